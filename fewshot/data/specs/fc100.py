"""FC100 (Oreshkin et al., TADAM, NeurIPS 2018): CIFAR-100's classes, split by superclasses, 32 px."""

from __future__ import annotations

import dataclasses

from fewshot.core.shipped import shipped
from fewshot.data.specs import cifar_fs

SPEC = dataclasses.replace(
    cifar_fs.SPEC,
    name="fc100",
    splits=shipped("data") / "splits" / "fc100.csv",  # 12, 4 and 4 superclasses of 5 classes
)
