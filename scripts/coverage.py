"""How often does each 95% interval hold the value that it is for, and the values that it is not for?

    python scripts/coverage.py --out results            # all of it
    python scripts/coverage.py --power --out results    # only how often planned studies find their difference

Each repeat draws a world, a test set from the world, and episodes from the test set. A world has 20 classes; the images
of a class lie around a centre of its own, with a spread of its own, in 3 dimensions. A test set has 24 images a class.
Two networks see them differently, and an episode has one query a class, which goes to the nearest support image.
A distance is the largest of the differences in the 3 coordinates, because then the true values can be computed: of
this test set by counting all its episodes, of new images by integration, of new classes by averaging over worlds. The
package's own samplers and intervals do the rest.

How often an interval holds a value that it is not for depends on these numbers: on images a class, queries, classes and
episodes. Such figures (56% and 14% for the field's interval) belong to this simulation, not to any benchmark.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from math import comb
from pathlib import Path

import coverage_power
import numpy as np
from rich import box
from rich.table import Table
from scipy import special, stats

from fewshot.core.console import Parser, run, terminal
from fewshot.core.errors import UserError
from fewshot.core.files import write_atomic, write_json
from fewshot.data import Split
from fewshot.episodes import DisjointSampler, EpisodeSampler, Protocol
from fewshot.evaluation.intervals import new_classes, new_images, this_test_set, training_anew

CLASSES, IMAGES, DIMENSIONS = 20, 24, 3
PROTOCOL = Protocol(ways=5, shots=1, queries=1)
POINTS = 128  # a class, of the integration over new images; a power of two, as Sobol's sequence wants
TRUTHS = ("this test set", "new images", "new classes")


@dataclass(frozen=True)
class World:
    """20 classes as one network sees them."""

    centres: np.ndarray  # (classes, dimensions)
    spreads: np.ndarray  # (classes, 1)

    def images(self, noise: np.ndarray) -> np.ndarray:
        """(classes, n, dimensions) from standard normal noise of that shape."""
        return self.centres[:, None] + self.spreads[:, None] * noise


def two_networks(random: np.random.Generator) -> list[tuple[World, np.ndarray]]:
    """Two views of the same classes and images, with the same distribution: on new classes neither is better."""
    spreads = 0.5 * np.exp(0.4 * random.normal(size=(CLASSES, 1)))
    shapes = ((CLASSES, DIMENSIONS), (CLASSES, IMAGES, DIMENSIONS))
    centres, noise = (random.normal(size=shape) for shape in shapes)
    other_centres, other_noise = (random.normal(size=shape) for shape in shapes)
    first, second = World(centres, spreads), World(0.9 * centres + 0.19**0.5 * other_centres, spreads)
    return [(first, first.images(noise)), (second, second.images(0.8 * noise + 0.6 * other_noise))]


def of_this_test_set(images: np.ndarray) -> float:
    """The mean accuracy over every episode of these images: each query, each support of its class, all others."""
    images, number, total = images.astype(np.float32), np.arange(CLASSES), 0.0
    for c in number:
        query, others = images[c], images[number != c]
        own = distance(query[:, None], query)  # (query, support)
        farther = np.zeros((CLASSES - 1, IMAGES, IMAGES), np.uint8)
        for theirs in distance(others.swapaxes(0, 1)[:, :, None], query):  # (other class, query) of one image of each
            farther += theirs[..., None] > own
        right = chosen_at_random(farther / np.float32(IMAGES))
        total += (right.sum() - np.trace(right)) / (IMAGES * (IMAGES - 1))
    return total / CLASSES


def of_new_images(world: World, noise: np.ndarray) -> float:
    """The expected accuracy on new images; `noise` (classes, points, 2, dimensions) stands for queries and supports."""
    total = 0.0
    for c, (query, support) in enumerate(noise.transpose(0, 2, 1, 3)):
        query, support = (world.centres[c] + world.spreads[c] * each for each in (query, support))
        reach = distance(query, support)[:, None]
        centres, spreads = (np.delete(each, c, 0)[:, None] for each in (world.centres, world.spreads))
        nearer = special.ndtr((query + reach - centres) / spreads) - special.ndtr((query - reach - centres) / spreads)
        total += chosen_at_random(1 - nearer.prod(2)).mean()
    return total / CLASSES


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    x, y, z = np.moveaxis(np.abs(a - b), -1, 0)  # three passes: numpy is slow at reducing a last axis of three
    return np.maximum(np.maximum(x, y), z)


def chosen_at_random(farther: np.ndarray) -> np.ndarray:
    """The probability that all 4 other classes of an episode are farther, from that of each class (others, ...).

    The mean over all sets of 4: the elementary symmetric polynomial over the number of sets.
    """
    chosen = PROTOCOL.ways - 1
    sums = np.zeros((chosen + 1, *farther.shape[1:]), farther.dtype)
    sums[0] = 1
    for each in farther:
        sums[1:] += each * sums[:-1]
    return sums[chosen] / comb(len(farther), chosen)


def solve(images: np.ndarray, episodes: np.ndarray) -> np.ndarray:
    """(n, ways): whether the one query of each class went to its own class."""
    support, query = images.reshape(-1, DIMENSIONS)[episodes].swapaxes(0, 2).swapaxes(1, 2)  # (n, ways, dimensions)
    nearest = distance(query[:, :, None], support[:, None]).argmin(2)
    return (nearest == np.arange(PROTOCOL.ways)).astype(np.float64)


def simulate(repeats: int, episodes: int) -> tuple[dict, dict]:
    """Every interval (repeats, low and high) by (of what, name), and the truths (repeats,) by (of what, which)."""
    split = Split("test", np.empty((CLASSES * IMAGES, 0)), tuple(map(str, range(CLASSES))), (IMAGES,) * CLASSES)
    points = [stats.qmc.Sobol(2 * DIMENSIONS, seed=c).random(POINTS) for c in range(CLASSES)]
    noise = stats.norm.ppf(points).reshape(CLASSES, POINTS, 2, DIMENSIONS)
    found, truths = defaultdict(list), defaultdict(list)
    random, begin = np.random.default_rng(0), time.monotonic()
    for repeat in range(repeats):
        sampler, disjoint = (kind(split, PROTOCOL, repeat) for kind in (EpisodeSampler, DisjointSampler))
        index, classes = sampler.draw(0, episodes), sampler.classes(episodes)
        apart = disjoint.draw(0, len(disjoint))
        networks = two_networks(random)
        own_queries = solve(networks[0][1], index)
        accuracy = [solve(images, index).mean(1) for _, images in networks]
        on_apart = [solve(images, apart).mean(1) for _, images in networks]
        here = [of_this_test_set(images) for _, images in networks]
        there = [of_new_images(world, noise) for world, _ in networks]
        for what, take in (("accuracy", lambda two: two[0]), ("difference", lambda two: two[0] - two[1])):
            values, few = take(accuracy), take(on_apart)
            intervals = {
                "t": this_test_set(values),
                "disjoint tasks, t": this_test_set(few),
                "new_images": new_images(few, disjoint.classes(len(disjoint))),
                "new_classes": new_classes(values, classes),
            }
            if what == "accuracy":
                intervals |= {name: this_test_set(values, name) for name in ("field", "bootstrap")}
                by_class = np.array([own_queries[classes == c].mean() for c in range(CLASSES)])
                intervals["accuracies by class, t"] = training_anew(by_class)  # mean +- t(19) * std / sqrt(20)
            for name, interval in intervals.items():
                found[what, name].append((interval.low, interval.high))
            truths[what, "this test set"].append(take(here))
            truths[what, "new images"].append(take(there))
        if (repeat + 1) % 500 == 0:
            print(f"{repeat + 1:,} repeats, {time.monotonic() - begin:.0f} s", file=sys.stderr)
    truths["accuracy", "new classes"] = np.full(repeats, np.mean(truths["accuracy", "new images"]))
    truths["difference", "new classes"] = np.zeros(repeats)
    return {key: np.array(value) for key, value in found.items()}, truths


def over_seeds(repeats: int) -> list[dict]:
    """The interval over training seeds, for values that are normal, and for skewed (exponential) ones."""
    random, rows = np.random.default_rng(1), []
    for law, draw, truth in (("normal", random.normal, 0.0), ("exponential", random.exponential, 1.0)):
        for seeds in (2, 3, 5):
            intervals = [training_anew(draw(size=seeds)) for _ in range(repeats)]
            held = np.mean([each.low <= truth <= each.high for each in intervals])
            rows.append({"seeds": seeds, "law": law, "coverage": float(held)})
    return rows


ROWS = (  # of what, interval, what it is for
    ("accuracy", "field", "this test set"),
    ("accuracy", "t", "this test set"),
    ("accuracy", "bootstrap", "this test set"),
    ("accuracy", "disjoint tasks, t", "new images"),
    ("accuracy", "new_images", "new images"),
    ("accuracy", "accuracies by class, t", "new classes"),
    ("accuracy", "new_classes", "new classes"),
    ("difference", "t", "this test set"),
    ("difference", "disjoint tasks, t", "new images"),
    ("difference", "new_images", "new images"),
    ("difference", "new_classes", "new classes"),
)
HEADER = ("of", "interval", "for", "half-width", *TRUTHS)


def measured(found: dict, truths: dict) -> list[dict]:
    rows = []
    for what, name, aim in ROWS:
        low, high = found[what, name].T
        held = {t: float(np.mean((low <= truths[what, t]) & (truths[what, t] <= high))) for t in TRUTHS}
        half = float(np.mean(high - low) / 2)
        rows.append({"of": what, "interval": name, "for": aim, "half_width": half, "coverage": held})
    return rows


def lines(rows: list[dict]) -> list[tuple[str, ...]]:
    """Lines of text; what an interval is for is in stars."""
    return [
        (row["of"], row["interval"], row["for"], f"{100 * row['half_width']:.2f}")
        + tuple(f"**{100 * held:.1f}**" if name == row["for"] else f"{100 * held:.1f}"
                for name, held in row["coverage"].items())
        for row in rows
    ]  # fmt: skip


def parser() -> Parser:
    parser = Parser(prog="scripts.coverage", description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5000, metavar="N", help="worlds, each with its own test set")
    parser.add_argument("--episodes", type=int, default=2000, metavar="N", help="episodes of an evaluation")
    parser.add_argument("--quick", action="store_true", help="200 repeats")
    parser.add_argument("--power", action="store_true", help="only planned studies; the rest of coverage.json stays")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write coverage.md and coverage.json there")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    repeats = 200 if args.quick else args.repeats
    if repeats < 2 or args.episodes < 10 * CLASSES:
        raise UserError(f"give --repeats of 2 or more, and --episodes of {10 * CLASSES} or more")
    command = " ".join(["python scripts/coverage.py", *(sys.argv[1:] if argv is None else argv)])
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    if args.power:
        _power_alone(args.out, command, repeats)
        return
    start = time.monotonic()
    found, truths = simulate(repeats, args.episodes)
    rows, seeds = measured(found, truths), over_seeds(repeats)
    facts = {
        "repeats": repeats, "episodes": args.episodes, "classes": CLASSES, "images_per_class": IMAGES,
        "disjoint_tasks": CLASSES * (IMAGES // 2) // PROTOCOL.ways,
        "accuracy": float(truths["accuracy", "new classes"][0]),
        "binomial_error": 1.96 * (0.05 * 0.95 / repeats) ** 0.5, "seconds": round(time.monotonic() - start),
    }  # fmt: skip
    table = Table(*HEADER, box=box.SIMPLE_HEAD)
    for line in lines(rows):
        table.add_row(*line)
    terminal().print(table)
    facts |= {"command": command, "rows": rows, "seeds": seeds}
    if args.out:
        _write(args.out, facts | {"power": coverage_power.simulate(repeats) | {"command": command}})


def _power_alone(folder: Path | None, command: str, repeats: int) -> None:
    """Replace the planned studies in what was measured before."""
    before = folder and folder / "coverage.json"
    if not before or not before.is_file():
        raise UserError("--power goes with the --out FOLDER of an earlier run, which has coverage.json")
    assert folder
    _write(folder, json.loads(before.read_text()) | {"power": coverage_power.simulate(repeats) | {"command": command}})


def _write(folder: Path, facts: dict) -> None:
    write_json(folder / "coverage.json", facts)
    text = page(facts["command"], facts, facts["rows"], facts["seeds"])
    text += coverage_power.section(facts["power"]["command"], facts["power"])
    write_atomic(folder / "coverage.md", text.encode())


def page(command: str, facts: dict, rows: list[dict], seeds: list[dict]) -> str:
    body = "\n".join("| " + " | ".join(line) + " |" for line in (HEADER, ["---"] * len(HEADER), *lines(rows)))
    (field,) = (row["coverage"] for row in rows if (row["of"], row["interval"]) == ("accuracy", "field"))
    images, classes = (round(100 * field[name]) for name in ("new images", "new classes"))
    over = "\n".join(f"| {row['seeds']} | {row['law']} | {100 * row['coverage']:.1f} |" for row in seeds)
    return f"""# What each 95% interval holds

    {command}

{facts["repeats"]:,} simulated evaluations of {facts["episodes"]:,} episodes ({PROTOCOL}, one query a class), each of
its own test set of {CLASSES} classes x {IMAGES} images; {facts["disjoint_tasks"]} tasks share no image. The mean
accuracy is {100 * facts["accuracy"]:.1f}. The last three columns are the per cent of the intervals that hold the true
value of this test set, of new images of its classes, and of new classes; in bold the value that the interval is for.
A true 95% shows within +- {100 * facts["binomial_error"]:.1f}. Half-widths are in points. The model is described in
`scripts/coverage.py`; it took {facts["seconds"]} s on one thread.

{body}

The figures that are not bold belong to this simulation only: {CLASSES} classes, {IMAGES} images a class, one query a
class, {facts["episodes"]:,} episodes. Here the field's interval holds the value of new images in {images}% of
cases, and that of new classes in {classes}%; with other numbers it would be other shares.

`field` is 1.96 * std / sqrt(n). `disjoint tasks, t` is the open interval of Lafargue et al. (2024) as they give it.
`accuracies by class, t` takes each class's accuracy of its own queries for one observation, which leaves out what a
class does to the others; it is not in the package. `new_classes` errs on the safe side where classes join by more than
sums, as in differences: the jackknife's variance is on average not too small (Efron and Stein, 1981).

Over training seeds, Student's t:

| seeds | law of their values | coverage |
|---|---|---|
{over}
"""


if __name__ == "__main__":
    raise SystemExit(run(main))
