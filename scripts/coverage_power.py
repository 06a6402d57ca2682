"""Does a study that was planned for 80% power find its difference in 80% of cases? A part of scripts/coverage.py.

Each question has a world of known variance: `evaluation.power.needed` says how many units a difference takes, and a
study of that size is simulated again and again, tested by the package's own intervals. Differences are in points.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from fewshot.evaluation.intervals import Interval, Units, new_classes, new_images, training_anew
from fewshot.evaluation.power import need, needed, power

WAYS, CLASSES, EPISODES = 5, 20, 2000
SPREAD = {"training anew": 1.0, "new images": 8.0, "new classes": 3.0}
"""Standard deviations in points: of seeds; of a task's residual after its classes' effects; of classes' effects."""
RESIDUAL = 10.0  # of an episode, after its classes' effects
DIFFERENCES = {"training anew": (2.0, 1.0, 0.5), "new images": (4.0, 2.0, 1.0), "new classes": (4.0, 2.0, 1.2)}
PILOTS = (2, 3, 5, 10, 20)


def units(question: str) -> Units:
    """What the test of a question knows about its error, here from the world's own variances."""
    variance = SPREAD[question] ** 2
    if question == "new images":
        return Units(0, variance, lost=CLASSES)
    if question == "new classes":
        return Units(0, variance, rest=(variance / WAYS + RESIDUAL**2) / EPISODES)
    return Units(0, variance)


def seeds(random: np.random.Generator, gain: float, n: int) -> Interval:
    return training_anew(random.normal(gain, SPREAD["training anew"], n))


def images(random: np.random.Generator, gain: float, n: int) -> Interval:
    """n tasks that share no image, each class as often as any other; classes' effects sum to 0."""
    rounds = -(-n * WAYS // CLASSES)
    classes = random.random((rounds, CLASSES)).argsort(1).reshape(-1, WAYS)[:n]
    effects = random.normal(0, 5, CLASSES)
    noise = random.normal(gain, SPREAD["new images"], n)
    return new_images((effects - effects.mean())[classes].mean(1) + noise, classes)


def classes(random: np.random.Generator, gain: float, n: int) -> Interval:
    """n newly drawn classes."""
    chosen = random.random((EPISODES, n)).argpartition(WAYS - 1, 1)[:, :WAYS]
    effects = random.normal(gain, SPREAD["new classes"], n)
    return new_classes(effects[chosen].mean(1) + random.normal(0, RESIDUAL, EPISODES), chosen)


STUDIES: dict[str, Callable[..., Interval]] = {"training anew": seeds, "new images": images, "new classes": classes}


def planned(repeats: int) -> list[dict]:
    """For each question and difference: the units planned, the power stated, and how often it was found."""
    random, rows = np.random.default_rng(2), []
    for question, study in STUDIES.items():
        for gain in DIFFERENCES[question]:
            n = needed(gain, units(question))
            assert n is not None
            p_values = [study(random, gain, n).p_value for _ in range(repeats)]
            found = float(np.mean(np.array(p_values) < 0.05))
            stated = power(gain, units(question), n)
            rows.append({"question": question, "difference": gain, "n": n, "stated": stated, "found": found})
    return rows


def from_pilots(repeats: int) -> list[dict]:
    """Seeds planned from a few, whose variance is only an estimate, for a difference as large as their spread."""
    random, spread = np.random.default_rng(3), SPREAD["training anew"]
    right, rows = needed(spread, units("training anew")), []
    for pilot in PILOTS:
        needs = [need(spread, training_anew(random.normal(0, spread, pilot)).units) for _ in range(repeats)]
        held = [each.low <= right and (each.high is None or right <= each.high) for each in needs]
        reached = [power(spread, units("training anew"), each.n) for each in needs]
        rows.append({
            "seeds": pilot, "right": right, "median": float(np.median([each.n for each in needs])),
            "power": float(np.mean(reached)), "held": float(np.mean(held)),
        })  # fmt: skip
    return rows


def simulate(repeats: int) -> dict:
    """All of it, for coverage.json."""
    start = time.monotonic()
    found = {"repeats": repeats, "planned": planned(repeats), "from_pilots": from_pilots(min(repeats, 2000))}
    return found | {"seconds": round(time.monotonic() - start)}


def section(command: str, found: dict) -> str:
    """Of coverage.md."""
    names = {"training anew": "seeds", "new images": "disjoint tasks", "new classes": "classes"}
    rows = "\n".join(
        f"| {row['question']} | {row['difference']:g} | {row['n']:,} {names[row['question']]}"
        f" | {100 * row['stated']:.1f} | {100 * row['found']:.1f} |"
        for row in found["planned"]
    )
    pilots = "\n".join(
        f"| {row['seeds']} | {row['median']:g} | {100 * row['power']:.0f} | {100 * row['held']:.1f} |"
        for row in found["from_pilots"]
    )
    worst = max(abs(row["found"] - row["stated"]) for row in found["planned"])
    right = found["from_pilots"][0]["right"]
    error = 1.96 * (0.8 * 0.2 / found["repeats"]) ** 0.5
    return f"""
## What it would take

    {command}

`compare` says how many seeds, images or classes would establish a difference with 80% power. Here the variances are
known: {found["repeats"]:,} studies of each size that `evaluation/power.py` plans, and in how many of them the package's
own test establishes the difference (p < 0.05). A true 80% shows within +- {100 * error:.1f}. The largest error is
{100 * worst:.1f} points. It took {found["seconds"]} s on one thread; the worlds are in `scripts/coverage_power.py`.

| question | difference (points) | planned | stated power | found in |
|---|---|---|---|---|
{rows}

A plan from measured variances is no better than these. Where training seeds spread as much as the difference is large,
{right} seeds are right. Planned from the variance that a few seeds show:

| seeds measured | median plan | power reached, on average | the plan's 95% interval holds {right} |
|---|---|---|---|
{pilots}

So read the interval beside the number, above all with two or three seeds.
"""
