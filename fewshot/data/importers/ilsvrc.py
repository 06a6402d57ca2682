"""Raw ImageNet (ILSVRC 2012): which of its files are mini-ImageNet's.

Ravi and Larochelle's names are a class and a number, n0153282900000005.jpg; ImageNet's are
n01532829_10.JPEG. The numbers differ. In the lists they run from 1 to 1300, and ImageNet's largest
class has 1,300 training images: they count, from 1, the class's files. Public scripts that rebuild the
set (mini-imagenet-tools and what descends from it) all sort those files by the number after the underscore,
as integers; so do we. It follows that a class must be there whole: one absent file shifts those after it.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_RAW = r"_(\d+)\.jpe?g"
_LISTED = r"(\d{8})\.jpe?g"


def is_raw(cls: str, names: Collection[str]) -> bool:
    """Whether these are ImageNet's own file names of the class."""
    return bool(names) and any(re.fullmatch(cls + _RAW, name, re.IGNORECASE) for name in names)


def raw_names(cls: str, names: Collection[str], listed: Collection[str]) -> dict[str, str | None]:
    """Ravi and Larochelle's name -> ImageNet's; None where the class has not so many files."""
    numbered = [(match, name) for name in names if (match := re.fullmatch(cls + _RAW, name, re.IGNORECASE))]
    in_order = [name for match, name in sorted(numbered, key=lambda pair: int(pair[0][1]))]
    result: dict[str, str | None] = {}
    for name in listed:
        match = re.fullmatch(cls + _LISTED, name, re.IGNORECASE)
        place = int(match[1]) if match else 0
        result[name] = in_order[place - 1] if 1 <= place <= len(in_order) else None
    return result
