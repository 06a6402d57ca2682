"""Fashion-MNIST (Xiao et al., 2017), 10 kinds of clothes, 28 px: for classification, so each split has all classes.

Of a class's 6,000 training images, the last 500 in the order of the file are for validation. Its 1,000 test images are
for testing. Few-shot tasks of the test split have classes that training saw: they do not measure few-shot learning.
"""

from __future__ import annotations

from fewshot.data.names import SPLITS
from fewshot.data.spec import DatasetSpec

LABELS = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

SPEC = DatasetSpec(
    "fashion-mnist",
    splits=dict.fromkeys(SPLITS, LABELS),
    shared_classes=True,
    labels=LABELS,
    images_per_class={"train": 5500, "val": 500, "test": 1000},
    importers=("idx",),
    image_size=28,
    licence="MIT",
)
