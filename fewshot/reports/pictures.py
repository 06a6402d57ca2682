"""Pictures: masks and class activation maps over images, histograms and curves.

Each function returns a figure; `save` writes one. Colours are told apart without colour vision, and in grey
print: lines differ in dashes and markers too (Okabe & Ito, 2008), maps run evenly from light to dark.
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
from fewshot.core.files import writable_parent, write_atomic
from fewshot.reports.tables import wrap
from fewshot.runs import Run

_SHADES = matplotlib.colormaps["magma_r"](np.linspace(0.0, 0.85, 256))
_SHADES[:64] = 1 - (1 - _SHADES[:64]) * np.linspace(0.0, 1.0, 64)[:, None]
SHADE = ListedColormap(_SHADES, "shade")  # the more is taken away, the darker; white where nothing is
LIGHT = matplotlib.colormaps["viridis"]  # the more the network looks there, the lighter
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (8, 2)))  # fewer than colours: all pairs of the two come before one returns
MARKERS = "os^DvPX"

_UNTOLD = (  # of what may differ between runs: what is named anyway, and what says where, not how, they trained
    "reg", "recipe", "data_root", "device", "threads", "compile", "deterministic", "checkpoint_seconds",
    "val_episodes", "test_ways", "test_episodes", "test_shots", "test_queries",
)  # fmt: skip
_PANEL = 1.15  # inches: the side of an image in a gallery
_LETTERS = 15  # of a title, above a panel
_LUMA = (0.2989, 0.587, 0.114)
_STYLE = {
    "font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 8.5, "axes.labelsize": 9, "axes.grid": False,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "lines.linewidth": 1.4,
    "svg.hashsalt": "fewshot",  # identifiers in the file are else random
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """One column of a gallery: a heat map (N, H, W) for each of its N images."""

    title: str
    values: np.ndarray
    notes: Sequence[str] = ()
    """What stands below the title, each on a line of its own."""


@dataclass(frozen=True)
class Curves:
    """One run's training, as logged: pairs of a step and a value."""

    label: str
    losses: Sequence[tuple[int, float]]
    accuracies: dict[str, list[tuple[int, float]]]
    """Of validation, as fractions of 1, by their name: "1shot"."""


def read_curves(run: Run, label: str) -> Curves:
    """What the run has logged so far. UserError where that is nothing, or is damaged."""
    try:
        rows = list(run.metrics())
        losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
        validations = [(row["step"], row["validation"]) for row in rows if "validation" in row]
    except FileNotFoundError:
        rows = []
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{run.metrics_path} is damaged ({error!r}): it is not as training writes it") from None
    if not rows:
        raise UserError(f"{run.folder} has no metrics yet: begin its training with --out {run.folder} --resume")
    accuracies: dict[str, list[tuple[int, float]]] = {}
    for step, scored in validations:
        for name, accuracy in scored.items():
            accuracies.setdefault(name, []).append((step, accuracy))
    return Curves(label, losses, accuracies)


def run_labels(configs: Sequence[TrainConfig], folders: Sequence[str]) -> list[str]:
    """Each run's regularizer and what else of its configuration differs; where nothing does, its folder."""
    values = [to_json(config) for config in configs]
    differing = [name for name in FIELDS if name not in _UNTOLD and len({str(each[name]) for each in values}) > 1]
    texts = [", ".join([each["reg"], *(f"{name}={each[name]}" for name in differing)]) for each in values]
    return [
        f"{text} ({folder})" if texts.count(text) > 1 else text for text, folder in zip(texts, folders, strict=True)
    ]


def save(figure: Figure, path: Path, dpi: int) -> None:
    """Draw into memory and write PNG or SVG, as the ending says, whole or not at all; the same bytes each time."""
    ending = path.suffix.lower()[1:]
    undated: dict[str, Any] = {"svg": {"Date": None}, "png": {"Software": None}}
    drawn = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(drawn, format=ending, dpi=dpi, metadata=undated[ending], bbox_inches="tight", pad_inches=0.1)
    writable_parent(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, drawn.getvalue())


def gallery(
    heading: str, images: np.ndarray, names: Sequence[str], columns: Sequence[Column], heat: Colormap, scale: str,
    shared: bool,
) -> Figure:  # fmt: skip
    """Rows of images (N, S, S, 3) uint8, named; beside each its heat maps in 0..1 over the greyed image.

    `scale` names what the colours measure: on one bar from 0 to 1 (`shared`), or under each column on one of its
    own, from 0 to its largest value.
    """
    with matplotlib.rc_context(_STYLE):
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
                for label, side in zip(bar.ax.get_xticklabels(), ("left", "right"), strict=True):
                    label.set_horizontalalignment(side)  # neighbours must not meet
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
    """Densities of magnitudes: one step line a label, counts (B,) between edges (B + 1,)."""
    with matplotlib.rc_context(_STYLE):
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


def training_curves(heading: str, runs: Sequence[Curves]) -> Figure:
    """Training loss, raw and smoothed, and a panel of validation accuracy for each number of shots."""
    with matplotlib.rc_context(_STYLE):
        shots = sorted({name for run in runs for name in run.accuracies}, key=lambda name: (len(name), name))
        figure = Figure(figsize=(3.3 * (1 + len(shots)), 3.3 + 0.2 * len(runs)), layout="constrained")
        first, *others = figure.subplots(1, 1 + len(shots), squeeze=False)[0]
        figure.suptitle(_wrap(heading, 46 * (1 + len(shots))), fontsize=10)
        legend = []
        for number, run in enumerate(runs):
            style = _line(number)
            marked = style | {"marker": MARKERS[number % len(MARKERS)], "markersize": 4}
            legend.append(Line2D([], [], label=_wrap(run.label, 100), **marked))
            if run.losses:
                steps, losses = np.array(run.losses).T
                window = max(1, len(losses) // 25)
                first.plot(steps, losses, color=style["color"], alpha=0.2, linewidth=0.6)
                smooth = np.convolve(losses, np.full(window, 1 / window), "valid")
                first.plot(steps[window - 1 :], smooth, **style)
            for name, panel in zip(shots, others, strict=True):
                steps, accuracies = np.array(run.accuracies.get(name, [])).reshape(-1, 2).T
                panel.plot(steps, 100 * accuracies, **marked)
        first.set(xlabel="step", ylabel="loss", title="training loss (light: every step)")
        for name, panel in zip(shots, others, strict=True):
            panel.set(xlabel="step", ylabel="accuracy (%)", title=f"validation, {name.replace('shot', '-shot')}")
        for panel in (first, *others):
            _grid(panel)
        figure.legend(handles=legend, loc="outside lower center", handlelength=4)
        return figure


def _line(number: int) -> dict[str, Any]:
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)]}


def _grid(panel: Axes) -> None:
    panel.grid(color="0.9", linewidth=0.6)
    panel.set_axisbelow(True)


def _wrap(text: str, letters: int) -> str:
    """`wrap`, without the sign that would begin a formula."""
    return wrap(text, letters).replace("$", r"\$")
