"""Raw ImageNet (ILSVRC 2012): which of its files are mini-ImageNet's.

Ravi and Larochelle's names are a class and a number, n0153282900000005.jpg; ImageNet's are
n01532829_10.JPEG. The numbers differ. In the lists they run from 1 to 1300, and ImageNet's largest
class has 1,300 training images: they count, from 1, the class's files. Public scripts that rebuild the
set (mini-imagenet-tools and its descendants) all sort those files by the number after the underscore,
as integers; so do we. So a class must be complete: one absent file shifts those after it. Nothing tells
whether a class with fewer than 1,300 files is complete, so such classes are named (`remarks`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from fewshot.core.errors import UserError
from fewshot.data.importers.items import some

LARGEST = 1300  # training images of ImageNet's largest classes
_CLASS = re.compile(r"n\d{8}")  # WordNet's number of a class, which each of its files begins with
_RAW = r"_(\d+)\.jpe?g"
_LISTED = r"(\d{8})\.jpe?g"


def is_raw(cls: str, names: Collection[str]) -> bool:
    """Whether these are ImageNet's own file names of the class."""
    return bool(_CLASS.fullmatch(cls)) and any(re.fullmatch(cls + _RAW, name, re.IGNORECASE) for name in names)


def class_of(name: str) -> str:
    """The class that a file's name begins with, if it is one of ImageNet's; else ""."""
    found = _CLASS.match(name)
    return found[0] if found else ""


def in_order(cls: str, names: Collection[str]) -> list[str]:
    """ImageNet's own files of the class among `names`, by their numbers. UserError if there are more than it has."""
    numbered = [(match, name) for name in names if (match := re.fullmatch(cls + _RAW, name, re.IGNORECASE))]
    if len(numbered) > LARGEST:
        raise UserError(
            f"class {cls} has {len(numbered):,} files called {cls}_NUMBER.JPEG, and no class of ImageNet has more than"
            f" {LARGEST:,}: give the training images alone"
        )
    return [name for match, name in sorted(numbered, key=lambda pair: int(pair[0][1]))]


def raw_names(cls: str, files: Sequence[str], listed: Collection[str]) -> dict[str, str | None]:
    """Ravi and Larochelle's name -> ImageNet's, of `files` in order; None if the class has fewer."""
    result: dict[str, str | None] = {}
    for name in listed:
        match = re.fullmatch(cls + _LISTED, name, re.IGNORECASE)
        place = int(match[1]) if match else 0
        result[name] = files[place - 1] if 1 <= place <= len(files) else None
    return result


def remarks(counts: Mapping[str, int]) -> list[str]:
    """Notes on classes, given their numbers of files: only one with the largest number is known to be complete."""
    if not counts:
        return []
    notes = ["The images came from raw ILSVRC 2012: those that the lists number, in numeric order."]
    if fewer := [f"{cls} ({count:,})" for cls, count in counts.items() if count < LARGEST]:
        notes.append(
            f"{len(fewer)} of these classes have fewer than {LARGEST:,} files: {some(fewer)}. Some have fewer in"
            " ImageNet, too; but if a file is absent, each image after it is its neighbour: compare with your archive."
        )
    return notes
