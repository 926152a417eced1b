"""How good the labels are: mIoU against ground truth."""
