"""tiered-ImageNet (Ren et al., ICLR 2018): 608 classes of ImageNet, split by their parents in WordNet, 84 px."""

from __future__ import annotations

import dataclasses

from fewshot.core.shipped import shipped
from fewshot.data.specs import mini_imagenet

SPEC = dataclasses.replace(
    mini_imagenet.SPEC,
    name="tiered-imagenet",
    splits=shipped("data") / "splits" / "tiered-imagenet.csv",  # 351, 97 and 160 classes
    importers=("images", "ilsvrc"),
    images_per_class=None,  # 732 to 1,300
    images={"train": 448_695, "val": 124_261, "test": 206_209},
    lists=False,
)
