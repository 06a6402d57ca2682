"""What a difference proves and what it does not, and what it would take to establish it, in words."""

from __future__ import annotations

from collections.abc import Mapping

from fewshot.evaluation.comparison import QUESTIONS, Answers
from fewshot.evaluation.intervals import Interval
from fewshot.evaluation.power import MOST, POWER, Need
from fewshot.reports.tables import percent, within

SIGNIFICANT = 0.05
NO_EFFECT = "what differs between them may have no effect at all"
_APART = "tasks without a common image"
_WIDEST = max(map(len, QUESTIONS))
_UNITS = {"new images": "images of each class", "new classes": "test classes", "training anew": "training seeds each"}


def conclusions(first: str, second: str, found: Answers) -> list[str]:
    """What can and cannot be said of first - second, one line for each question."""
    said = [f"{first} against {second}"] + [
        f"  {question:<{_WIDEST}}  {answer if isinstance(answer, str) else _verdict(first, second, answer)}"
        for question, answer in found.items()
    ]
    in_tasks = found.get("this test set")
    if isinstance(in_tasks, Interval) and in_tasks.estimate == in_tasks.half_width == 0:
        said.append(f"  They scored the same in every task: {NO_EFFECT}.")
    return said


def _verdict(first: str, second: str, gain: Interval) -> str:
    assert gain.p_value is not None  # every interval of QUESTIONS comes with a test
    probability = _probability(gain.p_value)
    if gain.p_value < SIGNIFICANT:
        better, worse = (first, second) if gain.estimate > 0 else (second, first)
        return f"{better} is better than {worse} by {_by(gain)} points ({probability})"
    between = f"{100 * gain.low:+.2f} .. {100 * gain.high:+.2f}"
    alone = ", though by itself it would be" * (gain.unadjusted is not None and gain.unadjusted < SIGNIFICANT)
    return f"a difference is not established{alone}: {first} - {second} is {between} points ({probability})"


def _probability(p_value: float) -> str:
    """`p = 0.012`: two digits, or as many as it takes to be on the right side of 0.05."""
    if p_value < 0.001:
        return "p < 0.001"
    texts = (f"{p_value:.{digits}g}" for digits in range(2, 18))  # 17 digits are exact
    return f"p = {next(text for text in texts if (float(text) < SIGNIFICANT) == (p_value < SIGNIFICANT))}"


def _by(gain: Interval) -> str:
    """`0.52 ± 0.41`, or `0.52 (0.10 .. 0.93)` if the interval is not symmetric; for the better one."""
    ends = (gain.low, gain.high) if gain.estimate > 0 else (-gain.high, -gain.low)
    return percent(abs(gain.estimate), gain.half_width) if gain.symmetric else within(abs(gain.estimate), ends)


def what_it_takes(size: float, needs: Mapping[str, Need | str], of_tasks: bool = False) -> list[str]:
    """How much would establish a difference of `size`, a fraction of 1: a line for each of the wider questions.

    of_tasks: whether the images at hand are counted in tasks that share none; the data set may have more.
    """
    if size == 0:
        return ["  No difference was seen. What it takes to establish one of 0.5 points: --detect 0.5"]
    points = f"{100 * abs(size):.2f} points with {100 * POWER:.0f}% power"
    return [f"  To establish {points}, such a study takes, by the variances measured here:"] + [
        f"    {question:<{_WIDEST}}  {_amount(_UNITS[question], each, of_tasks and question == 'new images')}"
        for question, each in needs.items()
    ]


def _amount(units: str, need: Need | str, in_tasks: bool) -> str:
    if isinstance(need, str):
        return f"not known: {need.removeprefix('nothing is known: ')}"
    if need.n is None:
        return f"more {units} than can be had, or more episodes"
    if need.enough:
        return f"no more {units}: the {need.have:,} {'that ' + _APART + ' use' if in_tasks else 'there are'} will do"
    low, high = (f"{MOST:,} or more" if each is None else f"{each:,}" for each in (need.low, need.high))
    now = f"; {_APART} use {need.have:,} now" if in_tasks else f", {need.n - need.have:,} more than now"
    return f"about {need.n:,} {units}{now} (95% interval: {low} to {high})"


def several(count: int) -> str:
    """What the reader must know if more than two entries are compared; "" for two."""
    pairs = count * (count - 1) // 2
    if pairs == 1:
        return ""
    return (
        f" Each entry is compared with the most accurate one, by --all-pairs with each other; p-values are Holm's over"
        f" all {pairs} pairs, intervals are not corrected. What it would take is for a test at 5% / {pairs}."
    )
