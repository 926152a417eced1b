"""How good labels and masks are against ground truth: mIoU, average precision, clicks, parity of two models."""
