"""The episode sampler: (membership, split, protocol, seed, number) decides an episode.

Nothing else does: not the process count, the device, the batch it is drawn in, nor what was drawn
before. Random numbers come from Philox, a counter-based generator (Salmon et al., SC 2011; NumPy
keeps its stream stable), keyed by a digest of those facts, and read at the episode's own counter.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real
from typing import NamedTuple

import numpy as np

from fewshot.core import typed
from fewshot.core.errors import UserError
from fewshot.data import Split
from fewshot.episodes.dirichlet import query_counts

_WORDS_PER_COUNTER = 4  # Philox 4x64 gives four 64-bit words per count
_CHUNK = 2_000_000  # images drawn at once: bounds the memory of a million episodes
LARGEST = 2**63 - 1
ALPHAS = (0.01, 1e6)  # of Dirichlet: from one class with nearly all queries to equally many of each


@dataclass(frozen=True)
class Protocol:
    """The form of a task: `ways` classes with `shots` support and `queries` query images each."""

    ways: int = 5
    shots: int = 1
    queries: int = 15
    query_alpha: float | None = None
    """None: each class has `queries` queries. A number: a class has `queries` on average, and each task's numbers are
    drawn from a Dirichlet distribution of this concentration (episodes/dirichlet.py)."""

    def __post_init__(self) -> None:
        for name, least in (("ways", 2), ("shots", 1), ("queries", 1)):
            number = typed.integer(getattr(self, name), name, -LARGEST, LARGEST)
            if number < least:
                raise UserError(f"--{name} {number}: give at least {least}")
            object.__setattr__(self, name, number)  # 5, if NumPy's 5 was given
        if (alpha := self.query_alpha) is not None:
            is_number = isinstance(alpha, Real) and not isinstance(alpha, bool)
            if not is_number or not ALPHAS[0] <= alpha <= ALPHAS[1]:
                raise UserError(
                    f"--query-alpha {alpha if is_number else repr(alpha)}: give a number from {ALPHAS[0]:g} to"
                    f" {ALPHAS[1]:,.0f}, such as the usual 2, or leave it out for balanced tasks"
                )
            object.__setattr__(self, "query_alpha", float(alpha))

    @property
    def images_per_class(self) -> int:
        """The most images that a task takes of a class; if query numbers are drawn, one class may have all queries."""
        return self.shots + (self.queries if self.query_alpha is None else self.ways * self.queries)

    @property
    def images(self) -> int:
        """Images in one episode."""
        return self.ways * (self.shots + self.queries)

    def __str__(self) -> str:
        return protocol_name(self.ways, self.shots, self.query_alpha)


def protocol_name(ways: int | str, shots: int | str, query_alpha: float | str | None) -> str:
    """`5-way 1-shot`, or with unbalanced queries `5-way 1-shot, Dirichlet 2`."""
    return f"{ways}-way {shots}-shot" + (f", Dirichlet {plain_number(query_alpha)}" if query_alpha else "")


def plain_number(value: float | str) -> str:
    """`2` for 2.0, `0.5` for 0.5: exact, and as a reader would write it."""
    return repr(float(value)).removesuffix(".0")


class Episodes(NamedTuple):
    """T episodes: the images' numbers in the split, int64."""

    support: np.ndarray
    """(T, W, S): class by class."""
    query: np.ndarray
    """(T, W*Q): class by class, as many of each as the episode has."""
    labels: np.ndarray
    """(T, W*Q): which of the W classes each query belongs to, 0..W-1."""


class EpisodeSampler:
    """Draws the episodes of one split. Raises UserError if the split is too small or the seed is no integer."""

    def __init__(self, split: Split, protocol: Protocol, seed: int) -> None:
        _check_enough(split, protocol)
        seed = typed.integer(seed, "seed", -LARGEST, LARGEST)  # 0.0 would give other tasks than 0
        self.split, self.protocol, self.seed = split, protocol, seed
        # Written out: a field that protocols gain later must not change the episodes of those without it.
        facts = [split.membership, split.name, protocol.ways, protocol.shots, protocol.queries, seed]
        facts += [] if protocol.query_alpha is None else [float(protocol.query_alpha)]
        digest = hashlib.sha256(json.dumps(facts, separators=(",", ":")).encode()).digest()
        self._key = np.frombuffer(digest[:16], dtype="<u8").astype(np.uint64)

    def draw(self, first: int, count: int) -> np.ndarray:
        """Episodes first .. first+count-1 as indices into the split's images.

        (count, ways, shots + queries) int64: in each class its support first, then its queries. If queries are
        unbalanced, classes have different numbers: then (count, ways * (shots + queries)), class after class.
        """
        images, taken = self._images(first, count)
        return images if self.protocol.query_alpha is None else images[taken].reshape(-1, self.protocol.images)

    def episodes(self, first: int, count: int) -> Episodes:
        """The same episodes, with support, queries and the queries' classes apart: in one form for every protocol."""
        protocol = self.protocol
        images, taken = self._images(first, count)
        (support, query), taken = np.split(images, [protocol.shots], axis=2), taken[:, :, protocol.shots :]
        each = (len(images), protocol.ways * protocol.queries)
        return Episodes(support, query[taken].reshape(each), taken.nonzero()[1].reshape(each))

    def classes(self, count: int) -> np.ndarray:
        """(count, ways) int64: class numbers of episodes 0 .. count-1."""
        found = [self.split.labels[self._images(*each)[0][:, :, 0]] for each in self._chunks(0, count)]
        return np.concatenate([np.empty((0, self.protocol.ways), np.int64), *found])

    def digest(self, count: int) -> str:
        """SHA-256 of episodes 0 .. count-1 as `draw` gives them (little-endian int32), which any machine can check."""
        digest = hashlib.sha256()
        for each in self._chunks(0, count):
            digest.update(self.draw(*each).astype("<i4").tobytes())
        return digest.hexdigest()

    @property
    def _shape(self) -> tuple[int, int]:
        return self.protocol.ways, self.protocol.images_per_class

    def _chunks(self, first: int, count: int) -> Iterator[tuple[int, int]]:
        """(first, count) of some episodes at a time, so that memory does not grow with them."""
        at_once = max(1, _CHUNK // math.prod(self._shape))
        for start in range(first, first + count, at_once):
            yield start, min(at_once, first + count - start)

    def _images(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(count, *_shape) int64: images of each class, its support first; and bool: which of them episodes take."""
        images, taken = np.empty((count, *self._shape), np.int64), np.ones((count, *self._shape), bool)
        for start, some in self._chunks(first, count):
            part = slice(start - first, start - first + some)
            images[part], taken[part] = self._draw_chunk(start, some)
        return images, taken

    def _draw_chunk(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray | bool]:
        ways, per_class = self._shape
        drawn_counts = 0 if self.protocol.query_alpha is None else ways
        uniforms = self._uniforms(first, count, ways + drawn_counts + ways * per_class)
        class_u, count_u, image_u = np.split(uniforms, [ways, ways + drawn_counts], axis=1)
        classes = _without_replacement(class_u, np.full(count, len(self.split.classes)))
        images = _without_replacement(image_u.reshape(count, ways, per_class), np.asarray(self.split.counts)[classes])
        return self.split.starts[classes][..., None] + images, self._taken(count_u)

    def _taken(self, uniforms: np.ndarray) -> np.ndarray | bool:
        """Which images of each class are taken, (T, *_shape): all of them, unless numbers of queries are drawn.

        `uniforms`: (T, ways) in [0, 1), for these numbers.
        """
        protocol = self.protocol
        if protocol.query_alpha is None:
            return True
        counts = query_counts(uniforms, protocol.query_alpha, protocol.ways * protocol.queries)
        return np.arange(protocol.images_per_class) < protocol.shots + counts[..., None]

    def _uniforms(self, first: int, count: int, each: int) -> np.ndarray:
        """(count, each) float64 in [0, 1): episode n reads its own stretch of the key's stream."""
        counters = -(-each // _WORDS_PER_COUNTER)
        stream = np.random.Philox(key=self._key, counter=first * counters)
        return unit_interval(stream.random_raw(count * counters * _WORDS_PER_COUNTER).reshape(count, -1)[:, :each])


def unit_interval(words: np.ndarray) -> np.ndarray:
    """Random 64-bit words as float64 in [0, 1)."""
    return (words >> np.uint64(11)) * 2.0**-53


def _without_replacement(uniforms: np.ndarray, population: np.ndarray) -> np.ndarray:
    """For each row (..., k) of uniforms, k distinct numbers below its population (...), in random order.

    The first k steps of Fisher-Yates, for all rows at once. Only moved entries are remembered: at step i, position
    `picks[i]` gives up its value and receives that of position i.
    """
    k = uniforms.shape[-1]
    picks = np.empty((k, *population.shape), np.int64)
    moved = np.empty_like(picks)
    drawn = np.empty_like(picks)
    for i in range(k):
        picks[i] = i + (uniforms[..., i] * (population - i)).astype(np.int64)
        drawn[i], moved[i] = picks[i], i
        for j in range(i):  # later moves override earlier ones
            np.copyto(drawn[i], moved[j], where=picks[j] == picks[i])
            np.copyto(moved[i], moved[j], where=picks[j] == i)
    return np.moveaxis(drawn, 0, -1)


def _check_enough(split: Split, protocol: Protocol) -> None:
    if len(split.classes) < protocol.ways:
        raise UserError(
            f"{protocol.ways}-way episodes need {protocol.ways} classes, and the {split.name} split has"
            f" {len(split.classes)}: ask for fewer ways"
        )
    smallest = int(np.argmin(split.counts))
    if split.counts[smallest] < protocol.images_per_class:
        queries, remedy = f"{protocol.queries} queries", "fewer shots or queries"
        if protocol.query_alpha is not None:  # to cap a class would be another distribution
            most = max(0, split.counts[smallest] - protocol.shots) // protocol.ways
            queries = f"{protocol.ways * protocol.queries} queries, which may all be of one class (--query-alpha),"
            remedy = f"--queries {most} or fewer" if most else "fewer shots or ways"
        raise UserError(
            f"{protocol.shots} shots and {queries} need {protocol.images_per_class} images a class,"
            f" and {split.classes[smallest]} of the {split.name} split has {split.counts[smallest]}: ask for {remedy}"
        )
