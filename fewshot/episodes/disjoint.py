"""Tasks that share no image, for statements about unseen images (Lafargue et al., TMLR 2024).

The images of each class are shuffled, and each task takes the next ones. It takes the classes that suffice for the most
further tasks, ties in random order, until fewer than `ways` classes suffice for one. So the classes are used evenly,
and no other choice gives more tasks. (If classes were drawn at random, soon too few would have images left.)

If numbers of queries are drawn, a class suffices if it could give all of a task's queries. So what is left of a class
has no influence on the numbers drawn.
"""

from __future__ import annotations

import numpy as np

from fewshot.data import Split
from fewshot.episodes.sampler import EpisodeSampler, Protocol, unit_interval

_COUNTER = 1 << 128  # a place in the key's stream from which EpisodeSampler reads no episode


class DisjointSampler(EpisodeSampler):
    """All disjoint tasks of a split, `len(sampler)` of them; it is used like an EpisodeSampler.

    (membership, split, protocol, seed) decides them. Raises UserError if the split is too small for one task.
    """

    def __init__(self, split: Split, protocol: Protocol, seed: int) -> None:
        super().__init__(split, protocol, seed)
        self._tasks, self._which = self._draw_all()

    def __len__(self) -> int:
        return len(self._tasks)

    def _images(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Of tasks first .. first+count-1, as EpisodeSampler gives them; none beyond the last."""
        return self._tasks[first : first + count], self._which[first : first + count]

    def _draw_all(self) -> tuple[np.ndarray, np.ndarray]:
        ways, per_class = self._shape
        stream = np.random.Philox(key=self._key, counter=_COUNTER)
        words = np.split(stream.random_raw(len(self.split.labels)), self.split.starts[1:])
        shuffled = [start + word.argsort() for start, word in zip(self.split.starts, words, strict=True)]
        counts = np.asarray(self.split.counts)
        used, tasks, which = np.zeros_like(counts), [], []
        while np.count_nonzero(suffices := (counts - used) // per_class) >= ways:
            classes = np.lexsort((stream.random_raw(len(counts)), -suffices))[:ways]
            tasks.append([shuffled[c][used[c] : used[c] + per_class] for c in classes])
            drawn = self.protocol.query_alpha is not None
            taken = self._taken(unit_interval(stream.random_raw(ways))[None]) if drawn else True
            which.append(np.broadcast_to(taken, (1, *self._shape))[0])
            used[classes] += which[-1].sum(1)
        return np.array(tasks, np.int64), np.array(which)
