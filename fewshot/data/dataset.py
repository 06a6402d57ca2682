"""What a data set is to everything that uses one: splits of images, in which each class's images are consecutive.

data/store.py opens a prepared one; a specification may make one (data/specs/glyphs.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fewshot.core import sealed
from fewshot.core.errors import UserError
from fewshot.data.channels import Channels, Triple
from fewshot.data.image_files import ImageFiles

Normalisation = tuple[Triple, Triple]
"""(mean, std) of each channel, in [0, 1]."""


def digest_of(facts: list) -> str:
    """SHA-256 of facts, as compact JSON."""
    return sealed.sha256(json.dumps(facts, separators=(",", ":")).encode())


@dataclass(frozen=True)
class Split:
    """One split: `images` (N, H, W, 3) uint8, of which each class has `counts` consecutive ones."""

    name: str
    images: np.ndarray | ImageFiles
    classes: tuple[str, ...]
    counts: tuple[int, ...]

    @cached_property
    def starts(self) -> np.ndarray:
        """(C,) int64: index of each class's first image."""
        return np.concatenate([[0], np.cumsum(self.counts)[:-1]]).astype(np.int64)

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) int64: class number of each image."""
        return np.repeat(np.arange(len(self.classes)), self.counts)

    @cached_property
    def membership(self) -> str:
        """Digest of class names, their order and image counts: what decides the episodes."""
        facts = [list(self.classes), [int(count) for count in self.counts]]
        return digest_of(facts)


@dataclass(frozen=True)
class Dataset:
    """An opened data set. `fingerprint` identifies its classes and pixels, whatever it is called. `former_fingerprint`
    covers its name as well: results and run folders made before fingerprints left out the name have it.

    `normalisation`: its (mean, std), if they are known; otherwise they are computed when they are asked for.
    """

    name: str
    splits: Mapping[str, Split]
    fingerprint: str
    source: str
    root: Path | None = None
    notes: tuple[str, ...] = ()
    normalisation: Normalisation | None = None
    former_fingerprint: str = ""

    def is_known_as(self, fingerprint: str | None) -> bool:
        """Whether a result or run folder with this fingerprint, of the present or the former kind, is of this data."""
        return bool(fingerprint) and fingerprint in (self.fingerprint, self.former_fingerprint)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Both kinds of fingerprint by name, as results and run folders record them; `identity.pixels` reads them."""
        former = {"former_fingerprint": self.former_fingerprint} if self.former_fingerprint else {}
        return {"fingerprint": self.fingerprint} | former

    def __getitem__(self, split: str) -> Split:
        if split not in self.splits:
            raise UserError(f"data set {self.name!r} has no split {split!r}; it has {', '.join(self.splits)}")
        return self.splits[split]

    @property
    def shared_classes(self) -> bool:
        """Whether all splits have the same classes: a set for classification, not for few-shot learning."""
        return len({split.classes for split in self.splits.values()}) == 1 and len(self.splits) > 1

    @property
    def image_size(self) -> int:
        """Height (= width) of every image, in pixels."""
        return next(iter(self.splits.values())).images.shape[1]

    @property
    def mean(self) -> Triple:
        """Mean of each channel in [0, 1]: the field's, or the training split's. Raises UserError if it has neither."""
        return self._statistics[0]

    @property
    def std(self) -> Triple:
        """Standard deviation of each channel in [0, 1], likewise; at least 1/255."""
        return self._statistics[1]

    @cached_property
    def _statistics(self) -> Normalisation:
        if self.normalisation:
            return self.normalisation
        channels, images = Channels(), self["train"].images
        assert isinstance(images, np.ndarray), "a data set of files has its normalisation from its specification"
        channels.add(images)
        return channels.statistics()
