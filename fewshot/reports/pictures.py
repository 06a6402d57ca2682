"""Pictures: masks and class activation maps over images, histograms and curves.

Each function returns a figure; `save` writes one. Colours can be distinguished without colour vision and in grey
print: lines differ in dashes and markers, too (Okabe & Ito, 2008), and maps run evenly from light to dark.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fewshot.config import FIELDS, TrainConfig, to_json
from fewshot.core.errors import UserError
from fewshot.core.files import write_output
from fewshot.reports.tables import wrap
from fewshot.runs import Run

_SHADES = matplotlib.colormaps["magma_r"](np.linspace(0.0, 0.85, 256))
_SHADES[:64] = 1 - (1 - _SHADES[:64]) * np.linspace(0.0, 1.0, 64)[:, None]
SHADE = ListedColormap(_SHADES, "shade")  # the more is removed, the darker; white where nothing is
LIGHT = matplotlib.colormaps["viridis"]  # the more the network looks there, the lighter
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (8, 2)))  # fewer than colours: all pairs of the two come before one repeats
MARKERS = "os^DvPX"
SMOOTHED = 25  # parts of a training, over the last of which its loss is averaged

MARK = "fewshot.show"  # in the metadata of every picture: what `show` may replace
_NOT_IN_LABELS = (  # fields in which runs may differ: named anyway, or about where and not how they trained
    "reg", "recipe", "data_root", "device", "threads", "compile", "deterministic", "checkpoint_seconds",
    "val_episodes", "test_ways", "test_episodes", "test_shots", "test_queries",
)  # fmt: skip
_PANEL = 1.15  # inches: the side of an image in a gallery
_LETTERS = 15  # of a title, above a panel
_LUMA = (0.2989, 0.587, 0.114)
STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 8.5, "axes.labelsize": 9, "axes.grid": False,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "lines.linewidth": 1.4,
    "svg.hashsalt": "fewshot",  # identifiers in the file would otherwise be random
    "pdf.fonttype": 42,  # letters that other programs can edit
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """One column of a gallery: a heat map (N, H, W) for each of its N images."""

    title: str
    values: np.ndarray
    notes: Sequence[str] = ()
    """Lines below the title."""


@dataclass(frozen=True)
class Curves:
    """One run's training, as logged: pairs of a step and a value."""

    losses: Sequence[tuple[int, float]]
    accuracies: dict[str, list[tuple[int, float]]]
    """Of validation, as fractions of 1, by their name: "1shot"."""

    @property
    def last_step(self) -> int:
        """Of the last line logged; 0 before the first."""
        return max((log[-1][0] for log in (self.losses, *self.accuracies.values()) if log), default=0)


@dataclass(frozen=True)
class Group:
    """One configuration's trainings, each with another seed: drawn as one line."""

    label: str
    runs: Sequence[Curves]


def read_curves(run: Run) -> Curves:
    """What the run has logged so far. Raises UserError if that is nothing, or is damaged."""
    try:
        rows = list(run.metrics())
        losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
        validations = [(row["step"], row["validation"]) for row in rows if "validation" in row]
    except FileNotFoundError:
        rows = []
    if not rows:
        run.check_has_network()
        raise UserError(f"{run.folder} has no metrics yet: begin its training with --out {run.folder} --resume")
    accuracies: dict[str, list[tuple[int, float]]] = {}
    for step, scored in validations:
        for name, accuracy in scored.items():
            accuracies.setdefault(name, []).append((step, accuracy))
    return Curves(losses, accuracies)


def run_labels(configs: Sequence[TrainConfig], folders: Sequence[str]) -> list[str]:
    """Each run's regularizer and what else of its configuration differs; also its folder, if two would be the same."""
    values = [to_json(config) for config in configs]
    differing = [
        name for name in FIELDS if name not in _NOT_IN_LABELS and len({str(each[name]) for each in values}) > 1
    ]
    texts = [", ".join([each["reg"], *(f"{name}={each[name]}" for name in differing)]) for each in values]
    return [
        f"{text} ({folder})" if texts.count(text) > 1 else text for text, folder in zip(texts, folders, strict=True)
    ]


def ours(path: Path) -> bool:
    """Whether the file is a picture that `save` wrote."""
    return path.is_file() and MARK.encode() in path.read_bytes()


def save(figure: Figure, path: Path, dpi: int) -> None:
    """Draw into memory and write PNG, SVG or PDF, as the ending says, whole or not at all; the same bytes each time."""
    ending = path.suffix.lower()[1:]
    metadata: dict[str, dict[str, Any]] = {
        "png": {"Software": MARK},
        "svg": {"Creator": MARK, "Date": None},
        "pdf": {"Creator": MARK, "Producer": None, "CreationDate": None},
    }
    drawn = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(drawn, format=ending, dpi=dpi, metadata=metadata[ending], bbox_inches="tight", pad_inches=0.1)
    write_output(path, drawn.getvalue())


def gallery(
    heading: str, images: np.ndarray, names: Sequence[str], columns: Sequence[Column], heat: Colormap, scale: str,
    shared: bool,
) -> Figure:  # fmt: skip
    """Rows of images (N, S, S, 3) uint8, named; beside each its heat maps in 0..1 over the greyed image.

    `scale` names what the colours measure: on one bar from 0 to 1 (`shared`), or on a bar under each column, from 0 to
    its largest value.
    """
    with matplotlib.rc_context(STYLE):
        rows, wide = len(images), len(columns) + 1
        width = max(_PANEL * wide + (1.2 if shared else 0.5), 4.0)
        heading = _wrap(heading, int(width * 13))
        titles = ["image", *("\n".join(_wrap(text, _LETTERS) for text in (c.title, *c.notes)) for c in columns)]
        lines = heading.count("\n") + max(title.count("\n") for title in titles) + 2
        height = (_PANEL + 0.05) * rows + 0.17 * lines + (0.2 if shared else 0.65)
        figure = Figure(figsize=(width, height), layout="compressed")
        ratios = [1.0] * rows + ([] if shared else [0.07])  # bars are a row of their own: all images keep their size
        cells = figure.subplots(len(ratios), wide, squeeze=False, height_ratios=ratios)
        axes, bars = cells[:rows], cells[rows:].ravel()
        figure.suptitle(heading, fontsize=10)
        for panel, title in zip(axes[0], titles, strict=True):
            panel.set_title(title)
        for panel, image, name in zip(axes[:, 0], images, names, strict=True):
            panel.imshow(image, interpolation="nearest")
            panel.set_ylabel(_wrap(name, 13))
        for number, column in enumerate(columns, start=1):
            top = 1.0 if shared else max(float(column.values.max()), 1e-9)
            colours = ScalarMappable(Normalize(0.0, top), heat)
            for panel, image, values in zip(axes[:, number], images, column.values, strict=True):
                panel.imshow(overlay(image, values, colours), interpolation="nearest")
            if not shared:
                bar = figure.colorbar(colours, cax=bars[number], orientation="horizontal")
                bar.set_ticks([0.0, top], labels=["0", f"{top:.2g}"])
                first, last = bar.ax.get_xticklabels()
                first.set_horizontalalignment("left")  # neighbours must not meet
                last.set_horizontalalignment("right")
        for panel in axes.flat:
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set(visible=True, linewidth=0.5, color="0.5")
        if shared:
            pad = 0.15 / width
            figure.colorbar(colours, ax=list(axes.flat), location="right", shrink=0.9, aspect=30, pad=pad, label=scale)
        else:
            bars[0].axis("off")
            figure.supxlabel(scale, fontsize=9)
        return figure


def overlay(image: np.ndarray, values: np.ndarray, colours: ScalarMappable) -> np.ndarray:
    """RGB (S, S, 3) in 0..1: the image (S, S, 3) uint8, greyed and paled, times the colours of values (H, W)."""
    side = np.arange(len(image))
    nearest = values[np.ix_(side * values.shape[0] // len(image), side * values.shape[1] // len(image))]
    pale = 0.6 + 0.4 * (image @ np.array(_LUMA)) / 255
    return pale[..., None] * colours.to_rgba(nearest)[..., :3]


def histogram(heading: str, edges: np.ndarray, counts: dict[str, np.ndarray]) -> Figure:
    """Densities of magnitudes: one step line for each label, counts (B,) between edges (B + 1,)."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 4.2), layout="constrained")
        panel = figure.subplots()
        last = 1 + max(int(np.flatnonzero(count).max(initial=0)) for count in counts.values())
        for number, (label, count) in enumerate(counts.items()):
            density = count[:last] / max(count.sum(), 1) / np.diff(edges[: last + 1])
            panel.stairs(density, edges[: last + 1], label=_wrap(label, 90), baseline=None, **_line(number))
        panel.set(yscale="log", xlabel="|a|, magnitude of a batch-norm output", ylabel="density (log scale)")
        panel.set_title(_wrap(heading, 100), fontsize=10)
        _grid(panel)
        figure.legend(loc="outside lower center", handlelength=4)
        return figure


def training_curves(heading: str, groups: Sequence[Group]) -> Figure:
    """Training loss, smoothed, and a panel of validation accuracy for each number of shots, or for top-1 and top-5.

    One run: also its loss at every step, in a light line. Several seeds: their mean, and a band from the lowest to the
    highest of them, over the steps that all have logged.
    """
    with matplotlib.rc_context(STYLE):
        names = {name for group in groups for run in group.runs for name in run.accuracies}
        shots = sorted(names, key=lambda name: (len(name), name))
        figure = Figure(figsize=(3.3 * (1 + len(shots)), 3.3 + 0.2 * len(groups)), layout="constrained")
        first, *others = figure.subplots(1, 1 + len(shots), squeeze=False)[0]
        figure.suptitle(_wrap(heading, 46 * (1 + len(shots))), fontsize=10)
        legend, smoothed = [], False
        for number, group in enumerate(groups):
            style = _line(number)
            marked = style | {"marker": MARKERS[number % len(MARKERS)], "markersize": 4}
            legend.append(Line2D([], [], label=_wrap(group.label, 100), **marked))
            steps, losses = _common([run.losses for run in group.runs])
            if len(group.runs) == 1:
                first.plot(steps, losses[0], color=style["color"], alpha=0.2, linewidth=0.6)
            if len(steps):
                window = max(1, len(steps) // SMOOTHED)
                smoothed |= window > 1
                smooth = [np.convolve(each, np.full(window, 1 / window), "valid") for each in losses]
                _mean_and_band(first, steps[window - 1 :], np.array(smooth), style)
            for name, panel in zip(shots, others, strict=True):
                steps, accuracies = _common([run.accuracies.get(name, []) for run in group.runs])
                _mean_and_band(panel, steps, 100 * accuracies, marked)
        several = any(len(group.runs) > 1 for group in groups)
        notes = ["light: every step"] * any(len(group.runs) == 1 for group in groups) + [
            "band: range of seeds"
        ] * several
        how = f", mean of the last {1 / SMOOTHED:.0%} of steps" * smoothed
        first.set(xlabel="step", ylabel="loss", title=f"training loss{how}\n{'; '.join(notes)}")
        for name, panel in zip(shots, others, strict=True):
            panel.set(xlabel="step", ylabel="accuracy (%)", title=f"validation, {_named(name)}")
        for panel in (first, *others):
            _grid(panel)
        figure.legend(handles=legend, loc="outside lower center", handlelength=4)
        return figure


def _named(figure: str) -> str:
    """What a validation logs as 5shot or top1, as usually written: 5-shot, top-1."""
    return figure.replace("shot", "-shot").replace("top", "top-")


def _common(logs: Sequence[Sequence[tuple[int, float]]]) -> tuple[np.ndarray, np.ndarray]:
    """The steps (k,) that all of n logs have, and the values there (n, k)."""
    every = [dict(log) for log in logs]
    steps = sorted(set.intersection(*(set(log) for log in every)))
    return np.array(steps), np.array([[log[step] for step in steps] for log in every])


def _mean_and_band(panel: Axes, steps: np.ndarray, values: np.ndarray, style: dict[str, Any]) -> None:
    """The mean of values (n, k) over n seeds as a line; behind it their range, if there are several."""
    panel.plot(steps, values.mean(0), **style)
    if len(values) > 1:
        panel.fill_between(steps, values.min(0), values.max(0), color=style["color"], alpha=0.15, linewidth=0)


def _line(number: int) -> dict[str, Any]:
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)]}


def _grid(panel: Axes) -> None:
    panel.grid(color="0.9", linewidth=0.6)
    panel.set_axisbelow(True)


def _wrap(text: str, letters: int) -> str:
    """`wrap`, without the sign that would begin a formula."""
    return wrap(text, letters).replace("$", r"\$")
