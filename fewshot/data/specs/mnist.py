"""MNIST (LeCun et al., 1998), handwritten digits, 28 px: for classification, so each split has all ten digits.

60,000 training images, of which the last 500 of each digit, in the order of the file, are for validation; 10,000 test
images.
"""

from __future__ import annotations

from fewshot.data.names import SPLITS
from fewshot.data.spec import DatasetSpec

DIGITS = tuple("0123456789")

SPEC = DatasetSpec(
    "mnist",
    splits=dict.fromkeys(SPLITS, DIGITS),
    shared_classes=True,
    labels=DIGITS,
    images_per_class={"val": 500},
    images={"train": 55_000, "val": 5_000, "test": 10_000},
    importers=("idx",),
    image_size=28,
    licence="CC BY-SA 3.0",
)
