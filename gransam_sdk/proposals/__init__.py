"""Regions of a photo without labels and without a prompt: divide and conquer over the cells of any feature map."""
