"""CIFAR-10 (Krizhevsky, 2009), 32 px: for classification, so each split has all ten classes.

Of a class's 5,000 training images, the last 500 in the order of the files are for validation. Its 1,000 test images are
for testing. Few-shot tasks of the test split have classes that training saw: they do not measure few-shot learning.
"""

from __future__ import annotations

from fewshot.data.names import SPLITS
from fewshot.data.spec import DatasetSpec

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

SPEC = DatasetSpec(
    "cifar-10",
    splits=dict.fromkeys(SPLITS, CLASSES),
    shared_classes=True,
    images_per_class={"train": 4500, "val": 500, "test": 1000},
    importers=("cifar10",),
    image_size=32,
    licence="none is stated; its author asks to cite Krizhevsky (2009)",
)
