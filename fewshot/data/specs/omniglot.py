"""Omniglot (Lake et al., Science 2015) with the split of Vinyals et al. (2016); a rotation is a class, 28 px.

1,623 characters of 50 alphabets, 20 drawings each. Every character makes four classes, one for each rotation of its
drawings: `Greek/character01/rot000`, `rot090`, `rot180` and `rot270`, counterclockwise.
"""

from __future__ import annotations

from fewshot.core.shipped import shipped
from fewshot.data.spec import DatasetSpec

SPEC = DatasetSpec(
    "omniglot",
    splits=shipped("data") / "splits" / "omniglot.csv",  # 1,028, 172 and 423 characters
    rotations=(0, 90, 180, 270),
    images_per_class=20,
    importers=("images",),
    image_size=28,
    licence="MIT",
)
