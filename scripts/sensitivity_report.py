"""What a sensitivity sweep found: a Markdown table, the same figures as CSV, and a plot."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewshot.core.files import write_atomic
from fewshot.evaluation.statistics import paired_difference, summarise
from fewshot.reports.sweep import Bold, difference, explained, markdown, score
from fewshot.runs import Run
from fewshot.sweeps.points import Point
from fewshot.sweeps.runs import accuracies

COLUMNS = (
    "option", "value", "regularizer", "shots", "accuracy", "ci95", "seed_std", "difference", "difference_ci95",
    "dropped", "seeds", "episodes", "declined",
)  # fmt: skip
BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#595959"  # of Okabe and Ito's palette, except the grey
STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "sensitivity"}


class Measured:
    """What the runs of one regularizer, one a seed, scored and dropped."""

    def __init__(self, runs: Sequence[Run], shots: Sequence[int]) -> None:
        self.episodes = {n: accuracies(runs, n) for n in shots}
        """Number of shots -> (seeds, episodes) accuracies, fractions of 1."""
        self.dropped = float(np.mean([row["dropped"] for run in runs for row in run.metrics() if "dropped" in row]))
        """Mean over all steps of the fraction of elements that was set to zero."""

    def seeds(self, shots: int) -> np.ndarray:
        """(seeds,) accuracies in per cent."""
        return 100 * self.episodes[shots].mean(1)

    def spread(self, shots: int) -> float:
        """In per cent: the sample standard deviation over seeds; for one seed, its 95% interval over episodes."""
        seeds = self.seeds(shots)
        return float(seeds.std(ddof=1)) if len(seeds) > 1 else 100 * summarise(self.episodes[shots][0]).ci95


@dataclass(frozen=True)
class Findings:
    """What a sweep around the regularizer `base` found."""

    title: str
    base: str
    points: Sequence[Point]
    shots: Sequence[int]
    measured: dict[str, Measured]
    """By regularizer: `none`, and those of all points that were not declined."""

    @property
    def none(self) -> Measured:
        return self.measured["none"]

    @property
    def seeds(self) -> int:
        return len(self.none.seeds(self.shots[0]))


def keep(folder: Path, found: Findings, command: str) -> str:
    """Write table.md, points.csv and plot.svg into `folder`; returns the table and its notes."""
    notes = [
        explained(found.seeds, "`none`") + " s: standard deviation over seeds." * (found.seeds > 1),
        f"dropped: per cent of the elements set to zero, mean over the steps. Bold: `{found.base}` itself.",
        *(f"Declined: {each.option} {each.value} ({each.declined})." for each in found.points if each.declined),
    ]
    text = "\n\n".join([table(found), *notes]) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "points.csv", points_csv(found).encode())
    write_atomic(folder / "plot.svg", plot(found))
    write_atomic(folder / "table.md", f"# {found.title}\n\n    {command}\n\n![plot](plot.svg)\n\n{text}".encode())
    return "\n" + text


def table(found: Findings) -> str:
    """Markdown: a line for `none`, then one a point; those of `base` are in bold."""
    header = ["option", "value", *(name for n in found.shots for name in (f"{n}-shot", "difference")), "dropped"]
    lines = [["none", "", *(cell for n in found.shots for cell in (_accuracy(found.none, n), "")), ""]]
    for point in found.points:
        value = Bold(point.value) if point.reg == found.base else point.value
        cells = ["declined"] + [""] * (2 * len(found.shots))
        if not point.declined:
            ours = found.measured[point.reg]
            cells = [text for n in found.shots for text in (_accuracy(ours, n), _difference(ours, found.none, n))]
            cells.append(f"{100 * ours.dropped:.2f}")
        lines.append([point.option, value, *cells])
    return markdown(header, lines)


def _accuracy(ours: Measured, shots: int) -> str:
    several = len(ours.episodes[shots]) > 1
    return score(ours.episodes[shots]) + f" (s {ours.spread(shots):.2f})" * several


def _difference(ours: Measured, none: Measured, shots: int) -> str:
    return difference(ours.episodes[shots], none.episodes[shots])


def points_csv(found: Findings) -> str:
    """COLUMNS, a line for each point and number of shots; accuracies and fractions in per cent."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for point in [Point("", "", "none"), *found.points]:
        for n in found.shots:
            row = {"option": point.option, "value": point.value, "regularizer": point.reg, "shots": n}
            row |= {"declined": point.declined} if point.declined else _figures(found, point.reg, n)
            writer.writerow(row)
    return text.getvalue()


def _figures(found: Findings, reg: str, shots: int) -> dict[str, str | int]:
    ours = found.measured[reg]
    episodes = ours.episodes[shots]
    summary = summarise(episodes.mean(0))
    figures = {"accuracy": summary.accuracy, "ci95": summary.ci95, "dropped": ours.dropped}
    if reg != "none":
        gain = paired_difference(episodes.mean(0), found.none.episodes[shots].mean(0))
        figures |= {"difference": gain.accuracy, "difference_ci95": gain.ci95}
    if found.seeds > 1:
        figures["seed_std"] = ours.spread(shots) / 100
    counts = {"seeds": found.seeds, "episodes": summary.episodes}
    return {name: f"{100 * value:.2f}" for name, value in figures.items()} | counts


def plot(found: Findings) -> bytes:
    """SVG: a column of panels for each option, a row for each number of shots."""
    options = dict.fromkeys(point.option for point in found.points)
    panels = [[point for point in found.points if point.option == option] for option in options]
    with matplotlib.rc_context(STYLE):
        widths = [len(points) + 1 for points in panels]
        figure = Figure(figsize=(max(7.0, 0.5 * sum(widths) + 1), 2.2 * len(found.shots) + 1.4), layout="constrained")
        grid = figure.subplots(
            len(found.shots), len(panels), sharex="col", sharey="row", squeeze=False, width_ratios=widths
        )
        for shots, row in zip(found.shots, grid, strict=True):
            row[0].set_ylabel(f"{shots}-shot accuracy (%)")
            for axes, points in zip(row, panels, strict=True):
                _panel(axes, found, points, shots)
        for axes, option in zip(grid[-1], options, strict=True):
            axes.set_xlabel(option)
        below = "One option varied at a time; below each value, the per cent of elements that it dropped."
        figure.suptitle(f"{found.title}\n{below}", x=0.01, ha="left", fontsize=10)
        legends = [axes.get_legend_handles_labels() for axes in grid.flat]
        shown = {label: each for legend in legends for each, label in zip(*legend, strict=True)}
        figure.legend(shown.values(), shown, loc="outside lower left", ncols=4, frameon=False)
        image = io.BytesIO()
        figure.savefig(image, format="svg", metadata={"Date": None})
    return image.getvalue()


def _panel(axes: Axes, found: Findings, points: Sequence[Point], shots: int) -> None:
    """Accuracy by value, evenly spaced; below each value what it dropped."""
    several = found.seeds > 1
    spread = "± std over seeds" if several else "± 95% CI over episodes"
    level, half = found.none.seeds(shots).mean(), found.none.spread(shots)
    axes.axhspan(level - half, level + half, color=GREY, alpha=0.18, linewidth=0)
    axes.axhline(level, color=GREY, linestyle="--", linewidth=1.2, label=f"none {spread}")

    done = {x: found.measured[point.reg] for x, point in enumerate(points) if not point.declined}
    means = [ours.seeds(shots).mean() for ours in done.values()]
    spreads = [ours.spread(shots) for ours in done.values()]
    ordered = all(re.fullmatch(r"[\d.e+-]+", point.value) for point in points)  # numbers, which a line may join
    axes.errorbar(
        list(done), means, spreads, color=BLUE, marker="o", markersize=5, linestyle="-" if ordered else "none",
        linewidth=1.4, capsize=3, label=f"mean {spread}" if several else f"accuracy {spread}",
    )  # fmt: skip
    for x, point in enumerate(points):
        if point.declined:
            where = axes.get_xaxis_transform()
            axes.text(x, 0.04, "declined", color=GREY, rotation=90, ha="center", va="bottom", transform=where)
            continue
        seeds = done[x].seeds(shots)
        if several:
            axes.plot([x + 0.15] * len(seeds), seeds, ".", color="black", markersize=4, label="each seed")
        if point.reg == found.base:
            style = {"color": VERMILION, "markeredgecolor": "black", "markersize": 7, "zorder": 4}
            axes.plot(x, seeds.mean(), "D", label=found.base, **style)
    ticks = [point.value + (f"\n{100 * done[x].dropped:.1f}" if x in done else "") for x, point in enumerate(points)]
    axes.set_xticks(range(len(points)), ticks)
    axes.set_xlim(-0.6, len(points) - 0.4)
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
