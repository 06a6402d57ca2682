"""Which images of the sources go into the store, class by class, before any is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fewshot.core.errors import UserError
from fewshot.data.importers import Sources
from fewshot.data.importers.ilsvrc import is_raw, raw_names
from fewshot.data.importers.images import Unreadable, decode
from fewshot.data.importers.items import Item, some
from fewshot.data.importers.lists import Lists
from fewshot.data.importers.pickles import Pickle
from fewshot.data.spec import DatasetSpec

FEWEST = 2  # images a class needs to appear in any episode: one of the support, one query


@dataclass(frozen=True)
class ClassPlan:
    """A class's images, in order.

    images:  for each image the files that hold it; several are copies
    pickles: instead, the pickles that each hold all of them
    raw:     the files are ImageNet's own, found by their place among the files of the class
    """

    name: str
    split: str
    count: int
    images: tuple[tuple[Item, ...], ...] = ()
    pickles: tuple[Pickle, ...] = ()
    raw: bool = False

    def label(self, row: int) -> str:
        """Where an image is, for messages."""
        return f"{self.split}/{self.name}/{self.images[row][0].name if self.images else row}"

    def read(self) -> list[bytes] | np.ndarray:
        """The images' files, or from pickles their pixels (count, H, W, 3) uint8.

        Raises UserError where copies under one name differ.
        """
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
    missing = [cls for split, cls in places if not sources.images(split, cls) and cls not in sources.pickled]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(places)} classes are missing: {some(missing)}"
            + (f" ({some(sources.empty)}: empty)" if sources.empty else "")
            + (f" (not read: {some(sources.foreign)})" if sources.foreign else "")
            + "; give the folder that holds them too, with another --from"
        )
    plans, complaints = [], []
    for split, cls in places:
        try:
            plans.append(_plan_class(spec, split, cls, sources, wanted))
        except UserError as complaint:
            complaints.append(str(complaint))
    if complaints:
        more = f" (and {len(complaints) - 1} more classes)" if len(complaints) > 1 else ""
        raise UserError(complaints[0] + more)
    return plans


def _plan_class(spec: DatasetSpec, split: str, cls: str, sources: Sources, wanted: Lists) -> ClassPlan:
    images, pickles, per_class = sources.images(split, cls), sources.pickled.get(cls, []), spec.images_per_class
    if images and pickles:
        place = next(iter(images.values()))[0].origin
        raise UserError(f"class {cls} is in {pickles[0].origin} and, as images, in {place}: give one of them")
    if pickles and spec.shared_classes:
        raise UserError(f"{pickles[0].origin}: a pickle names no image, so that it cannot say which split one is in")
    if pickles:
        # MetaOptNet's train_phase_val and train_phase_test hold other images of the train classes
        counts = [pickle.counts[cls] for pickle in pickles]
        count = per_class if per_class and per_class in counts else max(counts)
        chosen = ClassPlan(cls, split, count, pickles=tuple(p for p in pickles if p.counts[cls] == count))
    else:
        listed = wanted.files.get((split, cls), sources.listed.get(cls))
        raw = "ilsvrc" in spec.importers and listed is not None and is_raw(cls, images) and not listed & images.keys()
        names = _choose(spec, cls, images, listed, raw)
        chosen = ClassPlan(cls, split, len(names), tuple(tuple(images[name]) for name in names), raw=raw)
    if per_class and chosen.count != per_class:
        raise UserError(f"class {cls} has {chosen.count:,} images instead of {per_class:,}: fetch it again")
    if chosen.count < FEWEST:
        raise UserError(f"class {cls} has {chosen.count} images; at least {FEWEST} are needed")
    return chosen


def _choose(spec: DatasetSpec, cls: str, names: dict, listed: frozenset[str] | None, raw: bool) -> list[str]:
    """The names of a class's images, in the order of the names that the store knows them by."""
    if listed is None:
        if spec.images_per_class and len(names) > spec.images_per_class:
            raise UserError(
                f"class {cls} has {len(names):,} images, and {spec.name} takes {spec.images_per_class:,} of them: put"
                " the lists that name them (train.csv, val.csv, test.csv; for mini-imagenet those of Ravi and"
                " Larochelle) next to them, or in a folder of another --from"
            )
        return sorted(names)
    if raw:
        name_of = raw_names(cls, names, sorted(listed))
    else:
        name_of = {name: name if name in names else None for name in sorted(listed)}
    chosen = [own for own in name_of.values() if own is not None]
    if len(chosen) < len(name_of):
        missing = [name for name, own in name_of.items() if own is None]
        raise UserError(f"class {cls} lacks {len(missing)} of the {len(listed)} listed images: {some(missing)}")
    return chosen


def _agreed(items: tuple[Item, ...]) -> bytes:
    """The bytes of an image that may lie in several places; equal pixels in other files will do."""
    first, *others = items
    data = first.read()
    for other in others:
        again = other.read()
        if again != data and not _same_pixels(again, data):
            raise UserError(f"{first.origin} and {other.origin} have one name and differ: give one of them")
    return data


def _same_pixels(one: bytes, other: bytes) -> bool:
    try:
        return np.array_equal(decode(one), decode(other))
    except Unreadable:
        return False
