"""How good the labels are: mIoU and average precision against ground truth."""
