"""mini-ImageNet (Vinyals et al., NeurIPS 2016) with the splits of Ravi and Larochelle (ICLR 2017)."""

from __future__ import annotations

from fewshot.core.shipped import shipped
from fewshot.data.spec import DatasetSpec

SPEC = DatasetSpec(
    "mini-imagenet",
    splits=shipped("data") / "splits" / "mini-imagenet.csv",  # 64, 16 and 20 classes
    images_per_class=600,
    lists=True,
    image_size=84,
    mean=(120.396 / 255, 115.594 / 255, 104.540 / 255),  # of the training split, as MetaOptNet has them
    std=(70.682 / 255, 68.276 / 255, 72.545 / 255),
    licence="ImageNet's terms: non-commercial research and education",
)
