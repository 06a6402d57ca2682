"""What a data set is, before any image of it is read."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot.core import typed
from fewshot.core.errors import UserError
from fewshot.data.channels import Triple
from fewshot.data.names import NAME, SPLITS

if TYPE_CHECKING:
    from fewshot.data.dataset import Dataset

IMPORTERS = ("images", "pickles", "ilsvrc")
OF_ONE_SET = ("cifar", "cifar10", "idx", "imagenet", "svhn", "tiny-imagenet")
"""Importers of a data set's own format: its specification must name them."""
SIZES = (16, 1024)  # pixels, the least that a backbone can take, and the most


@dataclass(frozen=True)
class DatasetSpec:
    """A data set: where its images come from, which split each class is in, how images are stored and normalised.

    Each data set has one file in `fewshot/data/specs`. Your own can be an object in any module; the commands take it by
    its dotted name: `prepare my_sets.FLOWERS --from PATH`. Raises UserError if a value is not valid.
    """

    name: str
    """Letters, digits and . _ -: what `--dataset` takes, and the folder below the data root."""

    splits: Mapping[str, Sequence[str]] | Path | None = None
    """Split (train, val, test) -> its classes; or a CSV file, as for `--splits`. None: `prepare` takes them from
    `--splits`, or from folders train/, val/ and test/ in the source."""

    image_size: int = 84
    """Height and width of the stored images in pixels, unless `--size` gives another."""

    mean: Triple | None = None
    """Of each channel, in [0, 1], if the field agrees on one. None: `prepare` takes it from the training split."""

    std: Triple | None = None
    """Likewise. Give both or neither."""

    images_per_class: int | Mapping[str, int] | None = None
    """Images that every class must have, if that is known; by split, if it differs between them. If splits share their
    classes, and the source is the data set's own format, which has no validation split, `val` says how many of a
    class's training images become it. For image files, a list or the folders say that."""

    images: int | Mapping[str, int] | None = None
    """Images of the published set, in all or by split, if classes differ in size. `prepare` notes other numbers."""

    importers: Sequence[str] = IMPORTERS
    """The formats that the images may have. `images`: image files in folders and archives; `pickles`: those of
    learn2learn / Ren and MetaOptNet; `ilsvrc`: raw ImageNet, with files found by their numbers; `cifar` and `cifar10`:
    the python archives of CIFAR-100 and CIFAR-10; `idx`: MNIST's format, with class names from `labels`; `svhn`: SVHN's
    two .mat files; `tiny-imagenet`: Tiny ImageNet's folder, with its own list of classes; `imagenet`: ImageNet's
    folders, left where they are (`in_files`)."""

    labels: Sequence[str] = ()
    """The classes by number, if the source has only their numbers."""

    rotations: Sequence[int] = ()
    """Degrees, multiples of 90: each class of the source becomes one class per rotation, CLASS/rot090 and so on, with
    its images turned counterclockwise."""

    lists: bool = False
    """Whether lists among the sources, such as Ravi and Larochelle's train.csv (columns filename,label), say which
    images a class has. Otherwise, it has all that there are, or those that `--splits` names."""

    shared_classes: bool = False
    """Whether a class may be in several splits, as in classification. Few-shot data sets share none."""

    in_files: bool = False
    """Whether images stay in their files and are decoded when they are used, because they are too many for an array.
    For ImageNet's layout only: needs `importers=("imagenet",)`, `shared_classes`, no `splits` (all classes are in
    each), `mean` and `std`."""

    licence: str = ""
    """The terms on which the images may be used; `prepare` prints them."""

    load: Callable[[], Dataset] | None = None
    """Opens an embedded data set, which is never prepared. None: `prepare` writes a store."""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise UserError(f"a data set's name is letters, digits and . _ - only, not {self.name!r}")
        self._set("image_size", typed.integer(self.image_size, f"{self.name}: image_size", *SIZES))
        if (self.mean is None) != (self.std is None):
            raise UserError(f"{self.name}: give both mean and std, or neither")
        if self.mean is not None and self.std is not None:
            self._set("mean", _of_channels(f"{self.name}: mean", self.mean))
            self._set("std", _of_channels(f"{self.name}: std", self.std))
            if 0 in self.std:
                raise UserError(f"{self.name}: std={self.std} has a zero, by which nothing can be divided")
        if isinstance(self.splits, Mapping):
            self._set("splits", _named(self.name, self.splits))
        elif not isinstance(self.splits, Path | None):
            raise UserError(f"{self.name}: splits={self.splits!r}: give a Path, or each split's list of classes")
        counts = self.images_per_class
        for split, count in (counts.items() if isinstance(counts, Mapping) else [("train", counts)]):
            if split not in SPLITS:
                raise UserError(f"{self.name}: images_per_class of {split!r}, which is no split of {', '.join(SPLITS)}")
            if count is not None:
                typed.integer(count, f"{self.name}: images_per_class", 1)
        if unknown := set(self.importers) - {*IMPORTERS, *OF_ONE_SET}:
            valid = ", ".join((*IMPORTERS, *OF_ONE_SET))
            raise UserError(f"{self.name}: unknown importers {sorted(unknown)}; valid: {valid}")
        as_imagenet = self.in_files and self.shared_classes and tuple(self.importers) == ("imagenet",)
        if (self.in_files or "imagenet" in self.importers) and not (as_imagenet and self.splits is None):
            raise UserError(
                f"{self.name}: images stay in their files in ImageNet's layout only: in_files=True goes with"
                " importers=('imagenet',), shared_classes=True and no splits"
            )
        if "tiny-imagenet" in self.importers and not self.shared_classes:
            raise UserError(f"{self.name}: the importer tiny-imagenet is for classification: give shared_classes=True")
        if self.in_files and self.mean is None:
            raise UserError(f"{self.name}: images that stay in their files need mean and std")
        if any(degrees not in (0, 90, 180, 270) for degrees in self.rotations):
            raise UserError(f"{self.name}: rotations are 0, 90, 180 or 270 degrees, not {list(self.rotations)}")
        if self.rotations and set(self.importers) != {"images"}:
            raise UserError(f"{self.name}: only image files are rotated: give importers=['images']")

    def _set(self, field: str, value: Any) -> None:
        """Put a field into the form in which it is used. For everyone else, the object is frozen."""
        object.__setattr__(self, field, value)

    @property
    def splits_itself(self) -> bool:
        """Whether the source's own format says which image is in which split, so that `--splits` cannot."""
        return self.shared_classes and set(self.importers) <= set(OF_ONE_SET)

    @property
    def normalisation(self) -> tuple[Triple, Triple] | None:
        """(mean, std), if the specification gives them."""
        return None if self.mean is None or self.std is None else (self.mean, self.std)

    def count(self, split: str) -> int | None:
        """Images that every class of a split must have, if that is known."""
        given = self.images_per_class
        return given.get(split) if isinstance(given, Mapping) else given

    def stored(self, cls: str) -> dict[str, int]:
        """What a class of the source becomes: classes, in the order of their names -> quarter turns, counterclockwise.

        A class that is not rotated stays as it is.
        """
        return {f"{cls}/rot{degrees:03d}": degrees // 90 for degrees in sorted(self.rotations)} or {cls: 0}


def _of_channels(what: str, values: Any) -> Triple:
    """UserError unless these are three numbers in [0, 1]."""
    try:
        red, green, blue = map(float, values)
    except (TypeError, ValueError):
        raise UserError(f"{what}={values!r}: give three numbers in [0, 1], of red, green and blue") from None
    if not all(0 <= value <= 1 for value in (red, green, blue)):
        raise UserError(f"{what}={values!r}: give numbers in [0, 1]; those of pixels in 0..255 are divided by 255")
    return red, green, blue


def _named(name: str, splits: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Each split's classes, in NFC, where é is one character. UserError if they are not valid."""
    if unknown := set(splits) - set(SPLITS):
        raise UserError(f"{name}: unknown splits {', '.join(sorted(map(str, unknown)))}; valid: {', '.join(SPLITS)}")
    result = {}
    for split, classes in splits.items():
        listed = [] if isinstance(classes, str) or not isinstance(classes, Iterable) else list(classes)
        if not listed or not all(isinstance(cls, str) for cls in listed):
            raise UserError(f"{name}: the classes of {split} are {classes!r}: give a list of names")
        result[split] = tuple(unicodedata.normalize("NFC", cls) for cls in listed)
        if len(set(result[split])) < len(listed):
            raise UserError(f"{name}: class {max(result[split], key=result[split].count)!r} is in {split} twice")
    return result
