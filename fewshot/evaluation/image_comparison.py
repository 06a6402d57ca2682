"""Classifiers on the same images: what each scored and how two differ, for the two questions that images answer.

    new images       what other images of the same classes would give: the test images are a sample of them
    training anew    what the same training would give with other seeds, on these images

(On these very images the accuracy is known; there is nothing to estimate.) With one training seed on each side,
McNemar's test and Newcombe's interval answer for new images. With several seeds, an image's value is the mean over the
trained networks, 0..1, like that of a task in few-shot results, and differences are paired image by image: Student's t
over images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from fewshot.core.errors import UserError
from fewshot.evaluation.comparison import Answers, adjust, too_few
from fewshot.evaluation.intervals import LEVEL, NEW_IMAGES, Interval, this_test_set, training_anew
from fewshot.evaluation.proportions import WILSON, Pairs, mcnemar_p_values, paired_difference, wilson
from fewshot.evaluation.statistics import holm, paired_p_values
from fewshot.evaluation.verdicts import Verdicts

QUESTIONS = ("new images", "training anew")


@dataclass(frozen=True)
class Right:
    """Which of the same n images the networks of a configuration classify correctly, by training seed: (n,) bool."""

    truth: np.ndarray
    """(n,) the images' class numbers."""
    seeds: Mapping[int, np.ndarray]

    @classmethod
    def of(cls, verdicts: Mapping[int, Verdicts]) -> Right:
        """From one network's verdicts for each seed. Raises UserError if these are not of the same images."""
        truth = next(iter(verdicts.values())).truth
        for each in verdicts.values():
            _check_same(each.truth, truth)
        return cls(truth, {seed: each.top1 for seed, each in verdicts.items()})

    @property
    def mean(self) -> np.ndarray:
        """(n,) float64: the share of the networks that classify each image correctly."""
        return np.stack(list(self.seeds.values())).mean(0, dtype=np.float64)

    @property
    def only(self) -> np.ndarray | None:
        """If there is one seed, the (n,) bool of its network; else None."""
        return next(iter(self.seeds.values())) if len(self.seeds) == 1 else None


def answers(right: Right) -> Answers:
    """The accuracy of a configuration: an interval for each question, or why there is none."""
    single = right.only
    if single is not None:
        low, high = wilson(int(single.sum()), len(single))
        images = Interval(float(single.mean()), low, high, LEVEL, NEW_IMAGES, WILSON, None)
    else:
        images = _over_images(right.mean)
    return _answers(images, [each.mean() for each in right.seeds.values()], too_few(right.seeds))


def difference(a: Right, b: Right) -> Answers:
    """The same for the accuracy of a minus that of b. Raises UserError if these are not of the same images."""
    _check_same(a.truth, b.truth)
    one, other = a.only, b.only
    if one is not None and other is not None:
        images = paired_difference(one, other)
    else:
        images = _over_images(a.mean - b.mean)
    both = sorted(a.seeds.keys() & b.seeds.keys())
    by_seed = [a.seeds[seed].mean() - b.seeds[seed].mean() for seed in both]
    return _answers(images, by_seed, too_few(a.seeds, b.seeds))


def differences(each: Sequence[Right]) -> dict[tuple[int, int], Answers]:
    """Answers for each[i] - each[j], i < j; each question's p-values are Holm-adjusted over all pairs."""
    return adjust({(i, j): difference(each[i], each[j]) for i, j in combinations(range(len(each)), 2)}, QUESTIONS)


def pairs(a: Right, b: Right) -> Pairs | None:
    """How many images both, one or neither of two networks classify correctly. None if a side has several seeds."""
    one, other = a.only, b.only
    return None if one is None or other is None else Pairs.of(one, other)


def distinguishable(right: Sequence[Sequence[np.ndarray]], level: float = 0.05) -> np.ndarray:
    """(k, k) bool: which of k configurations differ, each given by its networks' (n,) bool of the same images.

    Two networks by McNemar's test, from one matrix of products; if a configuration has several, by the paired t-test of
    the means over images. Holm over all pairs, at `level`.
    """
    values = np.stack([np.mean(each, axis=0) for each in right])
    a, b = np.triu_indices(len(right), 1)
    single = np.array([len(each) == 1 for each in right])
    p_values = np.ones(len(a))
    of_two = single[a] & single[b]
    both = values @ values.T  # of a single network 0 or 1: these are counts
    first, second = (np.rint(both[each, each] - both[a, b])[of_two].astype(int) for each in (a, b))
    p_values[of_two] = mcnemar_p_values(first, second)
    rest = ~of_two
    if rest.any():
        p_values[rest] = paired_p_values(values, a[rest], b[rest])
    apart = np.zeros((len(right), len(right)), bool)
    apart[a, b] = holm(p_values) < level
    return apart | apart.T


def _check_same(one: np.ndarray, other: np.ndarray) -> None:
    if not np.array_equal(one, other):
        raise UserError("these are not the same images: their classes differ; evaluate all runs again")


def _over_images(values: np.ndarray) -> Interval:
    return replace(this_test_set(values), estimand=NEW_IMAGES, method="Student's t over images")


def _answers(images: Interval, by_seed: Sequence[float], why_not: str) -> Answers:
    anew = training_anew(np.array(by_seed)) if len(by_seed) > 1 else f"nothing is known: {why_not}"
    return {"new images": images, "training anew": anew}
