"""CUB-200-2011 (Wah et al., 2011), 200 kinds of birds, with the split of Chen et al. (ICLR 2019), 84 px."""

from __future__ import annotations

from fewshot.core.shipped import shipped
from fewshot.data.spec import DatasetSpec

SPEC = DatasetSpec(
    "cub",
    splits=shipped("data") / "splits" / "cub.csv",  # 100, 50 and 50 classes
    images=11_788,  # 41 to 60 a class
    importers=("images",),
    image_size=84,
    mean=(0.485, 0.456, 0.406),  # ImageNet's, as Chen et al. have them
    std=(0.229, 0.224, 0.225),
    licence="the images' owners'; for non-commercial research and education",
)
