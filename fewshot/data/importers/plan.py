"""Which images of the sources go into the store, class by class, before any is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePath

import numpy as np

from fewshot.core.errors import UserError
from fewshot.data.importers.arrays import Pixels
from fewshot.data.importers.ilsvrc import in_order, is_raw, raw_names
from fewshot.data.importers.images import Unreadable, decode
from fewshot.data.importers.items import Item, some
from fewshot.data.importers.limits import Limits
from fewshot.data.importers.lists import FilePath, Lists
from fewshot.data.importers.pickles import Pickle
from fewshot.data.importers.rows import Rows
from fewshot.data.importers.sources import ImageName, Sources
from fewshot.data.importers.tinyimagenet import Files
from fewshot.data.spec import DatasetSpec

FEWEST = 2  # images a class needs to appear in any episode: one of the support, one query


@dataclass(frozen=True)
class ClassPlan:
    """A class's images, in order.

    images:  for each image the files that hold it; several are copies
    names:   of these images, for messages
    pickles: instead, the pickles that each hold all of them
    pixels:  instead, the rows of arrays that hold them
    raw:     if the files are ImageNet's own, found by their place among the files of the class: how many these are
    turns:   quarter turns, counterclockwise, by which its images are rotated
    """

    name: str
    split: str
    count: int
    images: tuple[tuple[Item, ...], ...] = ()
    names: tuple[str, ...] = ()
    pickles: tuple[Pickle, ...] = ()
    pixels: Pixels | None = None
    raw: int = 0
    turns: int = 0

    def label(self, row: int) -> str:
        """Where an image is, for messages."""
        return f"{self.split}/{self.name}/{self.names[row] if self.names else row}"

    def read(self) -> list[bytes] | np.ndarray:
        """The content of the images' files; of pickles and arrays, their pixels (count, H, W, 3) uint8.

        Raises UserError if copies under one name differ.
        """
        if self.pixels:
            return self.pixels.read()
        if not self.pickles:
            return [_agreed(items) for items in self.images]
        first, *others = self.pickles
        pixels = first.images(self.name)
        for other in others:
            if not np.array_equal(pixels, other.images(self.name)):
                raise UserError(f"class {self.name} differs in {first.origin} and {other.origin}: give one of them")
        return pixels


def plan(spec: DatasetSpec, sources: Sources, wanted: Lists) -> list[ClassPlan]:
    """Every wanted class, split by split, in the order of names.

    Raises UserError naming the classes that are missing, or whose images are missing, too few or too many.
    """
    places = [(split, cls) for split, classes in wanted.splits.items() for cls in classes]
    missing = [
        cls
        for split, cls in places
        if (split, cls) not in wanted.rows
        and not sources.images(split, cls)
        and cls not in sources.pickled
        and (split, cls) not in sources.own
    ]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(places)} classes are missing: {some(missing)}"
            f"{sources.remark()}; give the folder that holds them too, with another --from"
        )
    rows = Rows(wanted, sources)
    plans: list[ClassPlan] = []
    complaints: list[str] = []
    for split, cls in places:
        with _noting(complaints):
            each = _plan_class(spec, split, cls, sources, wanted, rows)
            plans += [replace(each, name=name, turns=turns) for name, turns in spec.stored(cls).items()]
    for each in plans:
        with _noting(complaints):  # what a class lacks may follow from a wrong row, which therefore comes first
            _check_count(spec, each)
    if complaints:
        more = f" (and {len(complaints) - 1} more classes)" if len(complaints) > 1 else ""
        raise UserError(complaints[0] + more)
    return plans


@contextmanager
def _noting(complaints: list[str]) -> Iterator[None]:
    try:
        yield
    except UserError as complaint:
        complaints.append(str(complaint))


def _check_count(spec: DatasetSpec, each: ClassPlan) -> None:
    if (right := spec.count(each.split)) and each.count != right:
        raise UserError(f"class {each.name} has {each.count:,} images instead of {right:,}: fetch it again")
    if each.count < FEWEST:
        raise UserError(f"class {each.name} has {each.count} images; at least {FEWEST} are needed")


def _plan_class(spec: DatasetSpec, split: str, cls: str, sources: Sources, wanted: Lists, rows: Rows) -> ClassPlan:
    images, pickles, per_class = sources.images(split, cls), sources.pickled.get(cls, []), spec.count(split)
    if own := sources.own.get((split, cls)):
        if images:
            place = next(iter(images.values()))[0].origin
            raise UserError(f"class {cls} is in {own.origin} and, as images, in {place}: give one of them")
        if (split, cls) in wanted.rows:
            raise UserError(
                f"{own.origin} has images that no row of {wanted.origin} can name: give columns split,class"
            )
        if isinstance(own, Files):
            return ClassPlan(cls, split, len(own.names), tuple((item,) for item in own.items), own.names)
        return ClassPlan(cls, split, len(own.names), names=own.names, pixels=own)
    if images and pickles:
        place = next(iter(images.values()))[0].origin
        raise UserError(f"class {cls} is in {pickles[0].origin} and, as images, in {place}: give one of them")
    if pickles and (split, cls) in wanted.rows:
        raise UserError(
            f"{pickles[0].origin}: a pickle names no image, so that no row of {wanted.origin} can name one: give"
            " columns split,class"
        )
    if pickles and spec.shared_classes:
        raise UserError(f"{pickles[0].origin}: a pickle names no image, so that it cannot say which split one is in")
    if pickles:
        # MetaOptNet's train_phase_val and train_phase_test hold other images of the train classes
        counts = [pickle.counts[cls] for pickle in pickles]
        count = per_class if per_class and per_class in counts else max(counts)
        chosen = ClassPlan(cls, split, count, pickles=tuple(p for p in pickles if p.counts[cls] == count))
    elif (split, cls) in wanted.rows and not _is_numbered(spec, cls, images, _names(wanted.rows[split, cls])):
        chosen = _of_images(cls, split, rows.images(split, cls))
    else:
        listed = _names(wanted.rows[split, cls]) if (split, cls) in wanted.rows else sources.listed.get(cls)
        raw = in_order(cls, {name[0] for name in images}) if _is_numbered(spec, cls, images, listed) else []
        chosen = _of_images(cls, split, _choose(spec, split, cls, images, listed, raw), len(raw))
    return chosen


def _of_images(cls: str, split: str, images: Mapping[ImageName, list[Item]], raw: int = 0) -> ClassPlan:
    """In the order that `images` has, if they are raw ImageNet's; else in the order of their names."""
    order = list(images) if raw else sorted(images)
    names = tuple("/".join((*name[1:], name[0])) for name in order)
    return ClassPlan(cls, split, len(order), tuple(tuple(images[name]) for name in order), names, raw=raw)


def _names(rows: Iterable[FilePath]) -> frozenset[str]:
    return frozenset(path[-1] for path in rows)


def _is_numbered(
    spec: DatasetSpec, cls: str, images: Mapping[ImageName, object], listed: frozenset[str] | None
) -> bool:
    """Whether the class is raw ImageNet's, and the list has the numbers of Ravi and Larochelle."""
    names = {name[0] for name in images}
    known = names | {PurePath(name).stem for name in names}  # a list may leave endings out
    return "ilsvrc" in spec.importers and listed is not None and is_raw(cls, names) and not listed & known


def _choose(
    spec: DatasetSpec,
    split: str,
    cls: str,
    images: dict[ImageName, list[Item]],
    listed: frozenset[str] | None,
    raw: list[str],
) -> dict[ImageName, list[Item]]:
    """A class's images, or only the listed ones, sorted by listed name. `raw`: ImageNet's files, if they are these."""
    if listed is None:
        if (right := spec.count(split)) and len(images) > right:
            raise UserError(
                f"class {cls} has {len(images):,} images, and {spec.name} takes {right:,} of them: put"
                " the lists that name them (train.csv, val.csv, test.csv; for mini-imagenet those of Ravi and"
                " Larochelle) next to them, or in a folder of another --from"
            )
        return images
    files: dict[str, list[Item]] = {}
    for name, items in images.items():
        files.setdefault(name[0], []).extend(items)
    if raw:
        name_of = raw_names(cls, raw, sorted(listed))
    else:
        name_of = {name: name if name in files else None for name in sorted(listed)}
    chosen: dict[ImageName, list[Item]] = {(own,): files[own] for own in name_of.values() if own is not None}
    if len(chosen) < len(name_of):
        missing = [name for name, own in name_of.items() if own is None]
        raise UserError(f"class {cls} lacks {len(missing)} of the {len(listed)} listed images: {some(missing)}")
    return chosen


def _agreed(items: tuple[Item, ...]) -> bytes:
    """The bytes of an image that may be in several places; different files with equal pixels are accepted."""
    first, *others = items
    data = first.read()
    for other in others:
        again = other.read()
        if again != data and not _same_pixels(again, data, first.limits):
            raise UserError(
                f"{first.origin} and {other.origin} have one name and differ: give one of them, or write in a list of"
                " images which one is meant, with its folder"
            )
    return data


def _same_pixels(one: bytes, other: bytes, limits: Limits) -> bool:
    try:
        return np.array_equal(decode(one, limits), decode(other, limits))
    except Unreadable:
        return False
