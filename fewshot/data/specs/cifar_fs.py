"""CIFAR-FS (Bertinetto et al., ICLR 2019): CIFAR-100's classes, split at random, 32 px."""

from __future__ import annotations

from fewshot.core.shipped import shipped
from fewshot.data.spec import DatasetSpec

SPEC = DatasetSpec(
    "cifar-fs",
    splits=shipped("data") / "splits" / "cifar-fs.csv",  # 64, 16 and 20 classes
    images_per_class=600,  # 500 of CIFAR-100's training file and 100 of its test file
    importers=("cifar", "images"),
    image_size=32,
    mean=(129.377 / 255, 124.106 / 255, 112.478 / 255),  # as MetaOptNet has them
    std=(68.209 / 255, 65.431 / 255, 70.459 / 255),
    licence="CIFAR-100's: none is stated; its author asks to cite Krizhevsky (2009)",
)
