"""The classes of PASCAL VOC and of COCO, and which of them are the same thing under two names."""

from __future__ import annotations

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""Pixel value = place in this tuple."""
COCO_CLASSES = (
    *("background", "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep"),
    *("cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
    *("skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
    *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich"),
    *("orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed"),
    *("dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven"),
    *("toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier"),
    "toothbrush",
)
"""The 80 classes of COCO's instance annotations in the order of their ids, after background."""
COCO_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
"""What COCO calls VOC's classes, where the names differ; all 20 are among COCO's 80."""

VOC_VALUES = {name: value for value, name in enumerate(VOC_CLASSES) if value}
VOC_VALUES |= {coco: VOC_VALUES[voc] for voc, coco in COCO_NAMES.items()}
"""Place in ``VOC_CLASSES`` by VOC's name or COCO's."""
COCO_VALUES = {name: value for value, name in enumerate(COCO_CLASSES) if value}
COCO_VALUES |= {voc: COCO_VALUES[coco] for voc, coco in COCO_NAMES.items()}
"""Place in ``COCO_CLASSES`` by COCO's name or VOC's."""
