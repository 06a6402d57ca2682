"""SVHN (Netzer et al., 2011), cropped house numbers, 32 px: for classification, so each split has all ten digits.

73,257 training images, of which the last 500 of each digit, in the order of the file, are for validation; 26,032 test
images. The 531,131 extra images are not read.
"""

from __future__ import annotations

from fewshot.data.names import SPLITS
from fewshot.data.spec import DatasetSpec

DIGITS = tuple("0123456789")

SPEC = DatasetSpec(
    "svhn",
    splits=dict.fromkeys(SPLITS, DIGITS),
    shared_classes=True,
    labels=DIGITS,
    images_per_class={"val": 500},
    images={"train": 68_257, "val": 5_000, "test": 26_032},
    importers=("svhn",),
    image_size=32,
    licence="non-commercial use only",
)
