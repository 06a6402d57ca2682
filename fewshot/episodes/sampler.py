"""The episode sampler: (membership, split, ways, shots, queries, seed, number) decides an episode.

Nothing else does: not the process count, the device, the batch it is drawn in, nor what was drawn
before. Random numbers come from Philox, a counter-based generator (Salmon et al., SC 2011; NumPy
keeps its stream stable), keyed by a digest of those facts, and read at the episode's own counter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fewshot.core.errors import UserError
from fewshot.data import Split

_WORDS_PER_COUNTER = 4  # Philox 4x64 gives four 64-bit words a count
_CHUNK = 20_000  # episodes drawn at once: bounds the memory of a million


@dataclass(frozen=True)
class Protocol:
    """The form of a task: `ways` classes, of each `shots` support and `queries` query images."""

    ways: int = 5
    shots: int = 1
    queries: int = 15

    def __post_init__(self) -> None:
        for name, least in (("ways", 2), ("shots", 1), ("queries", 1)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} {getattr(self, name)}: give at least {least}")

    @property
    def images_per_class(self) -> int:
        return self.shots + self.queries

    @property
    def images(self) -> int:
        """Images in one episode."""
        return self.ways * self.images_per_class

    def __str__(self) -> str:
        return f"{self.ways}-way {self.shots}-shot"


class EpisodeSampler:
    """Draws the episodes of one split. Raises UserError where the split is too small for them."""

    def __init__(self, split: Split, protocol: Protocol, seed: int) -> None:
        _check_enough(split, protocol)
        self.split, self.protocol, self.seed = split, protocol, seed
        # Written out: a field that protocols gain later must not move the episodes of those that lack it.
        facts = [split.membership, split.name, protocol.ways, protocol.shots, protocol.queries, seed]
        digest = hashlib.sha256(json.dumps(facts, separators=(",", ":")).encode()).digest()
        self._key = np.frombuffer(digest[:16], dtype="<u8").astype(np.uint64)

    def draw(self, first: int, count: int) -> np.ndarray:
        """Episodes first .. first+count-1 as indices into the split's images.

        (count, ways, shots + queries) int64: in each class its support first, then its queries.
        """
        chunks = [
            self._draw_chunk(start, min(_CHUNK, first + count - start))
            for start in range(first, first + count, _CHUNK)
        ]
        return np.concatenate(chunks) if chunks else np.empty((0, *self._shape), np.int64)

    def classes(self, count: int) -> np.ndarray:
        """(count, ways) int64: class numbers of episodes 0 .. count-1."""
        return np.concatenate([self.split.labels[drawn[:, :, 0]] for drawn in self._chunks(count)])

    def digest(self, count: int) -> str:
        """SHA-256 of episodes 0 .. count-1 (little-endian int32), which any machine can check."""
        digest = hashlib.sha256()
        for drawn in self._chunks(count):
            digest.update(drawn.astype("<i4").tobytes())
        return digest.hexdigest()

    def _chunks(self, count: int) -> Iterator[np.ndarray]:
        """Episodes 0 .. count-1, some at a time, so that memory does not grow with them."""
        for start in range(0, count, _CHUNK):
            yield self.draw(start, min(_CHUNK, count - start))

    @property
    def _shape(self) -> tuple[int, int]:
        return self.protocol.ways, self.protocol.images_per_class

    def _draw_chunk(self, first: int, count: int) -> np.ndarray:
        ways, per_class = self._shape
        uniforms = self._uniforms(first, count, ways * (1 + per_class))
        class_u, image_u = uniforms[:, :ways], uniforms[:, ways:].reshape(count, ways, per_class)
        classes = _without_replacement(class_u, np.full(count, len(self.split.classes)))
        images = _without_replacement(image_u, np.asarray(self.split.counts)[classes])
        return self.split.starts[classes][..., None] + images

    def _uniforms(self, first: int, count: int, each: int) -> np.ndarray:
        """(count, each) float64 in [0, 1): episode n reads its own stretch of the key's stream."""
        counters = -(-each // _WORDS_PER_COUNTER)
        stream = np.random.Philox(key=self._key, counter=first * counters)
        words = stream.random_raw(count * counters * _WORDS_PER_COUNTER).reshape(count, -1)[:, :each]
        return (words >> np.uint64(11)) * 2.0**-53


def _without_replacement(uniforms: np.ndarray, population: np.ndarray) -> np.ndarray:
    """For each row (..., k) of uniforms, k distinct numbers below its population (...), in random order.

    The first k steps of Fisher-Yates, for all rows at once. Only moved entries are remembered: at
    step i position `picks[i]` gives up its value and receives that of position i.
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
        raise UserError(
            f"{protocol.shots} shots and {protocol.queries} queries need {protocol.images_per_class} images a class,"
            f" and {split.classes[smallest]} of the {split.name} split has {split.counts[smallest]}"
            ": ask for fewer shots or queries"
        )
