"""Tasks that share no image, for statements about images not seen (Lafargue et al., TMLR 2024).

The images of each class are shuffled and cut into sets of as many as a task needs. Each task takes the classes with
the most sets left, in random order where they have equally many, until fewer than `ways` classes have a set. So the
classes are used evenly, and no other choice gives more tasks. (With classes drawn at random, too few would soon have
images left.)
"""

from __future__ import annotations

import numpy as np

from fewshot.data import Split
from fewshot.episodes.sampler import EpisodeSampler, Protocol

_COUNTER = 1 << 128  # a place in the key's stream from which EpisodeSampler reads no episode


class DisjointSampler(EpisodeSampler):
    """All disjoint tasks of a split, `len(sampler)` of them; it is used like an EpisodeSampler.

    (membership, split, ways, shots, queries, seed) decides them. UserError where the split is too small for one.
    """

    def __init__(self, split: Split, protocol: Protocol, seed: int) -> None:
        super().__init__(split, protocol, seed)
        self._tasks = self._draw_all()

    def __len__(self) -> int:
        return len(self._tasks)

    def draw(self, first: int, count: int) -> np.ndarray:
        """Tasks first .. first+count-1, as EpisodeSampler.draw gives them; none beyond the last."""
        return self._tasks[first : first + count]

    def _draw_all(self) -> np.ndarray:
        ways, per_class = self._shape
        stream = np.random.Philox(key=self._key, counter=_COUNTER)
        words = np.split(stream.random_raw(len(self.split.labels)), self.split.starts[1:])
        shuffled = [start + word.argsort() for start, word in zip(self.split.starts, words, strict=True)]
        sets = np.asarray(self.split.counts) // per_class
        left, tasks = sets.copy(), []
        while np.count_nonzero(left) >= ways:
            classes = np.lexsort((stream.random_raw(len(left)), -left))[:ways]
            used = (sets - left)[classes] * per_class
            tasks.append([shuffled[c][start : start + per_class] for c, start in zip(classes, used, strict=True)])
            left[classes] -= 1
        return np.array(tasks, np.int64)
