"""Tiny ImageNet (Stanford's CS231n), 200 classes of ImageNet, 64 px: for classification, so each split has all classes.

Of a class's 500 training images, the last 50, in the order of their numbers, are for validation. What the data set
calls val, 50 images a class, is for testing: the classes of its own test images were never published. Its wnids.txt
lists the classes.
"""

from __future__ import annotations

from fewshot.data.spec import DatasetSpec

SPEC = DatasetSpec(
    "tiny-imagenet",
    shared_classes=True,
    images_per_class={"train": 450, "val": 50, "test": 50},
    importers=("tiny-imagenet",),
    image_size=64,
    licence="ImageNet's: non-commercial research and education only",
)
