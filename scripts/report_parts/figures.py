"""The report's figures."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fewshot.reports import pictures
from report_parts.effects import Effect
from report_parts.gaps import Setting

_APART = 0.2  # points of the gap, between regularizers of one setting
_POOLED, _ANEW = pictures.COLOURS[5], pictures.COLOURS[1]


def forest(effects: Sequence[Effect], title: str) -> Figure:
    """Each regularizer's gain over `none` in points, a panel for each test, in the order of the first one.

    A thin line is the 95% interval of training anew by the regularizer's own seeds, a thick one that by the pooled
    variance of the study; ticks are the seeds. A mean beyond a panel's edge is written there.
    """
    tests = sorted({effect.test for effect in effects})
    order = list(dict.fromkeys(effect.reg for effect in effects))
    with matplotlib.rc_context(pictures.STYLE):
        figure = Figure(figsize=(4.2 * len(tests) + 1.4, 1.5 + 0.28 * len(order)), layout="constrained")
        panels = figure.subplots(1, len(tests), sharey=True, squeeze=False)[0]
        for panel, test in zip(panels, tests, strict=True):
            there = [effect for effect in effects if effect.test == test]
            low, high = _edges(there)
            for effect in there:
                _row(panel, order.index(effect.reg), effect, low, high)
            panel.axvline(0, color="0.4", linewidth=0.8)
            panel.set(xlabel="points above none", title=test, xlim=(low, high))
            panel.grid(axis="x", color="0.9", linewidth=0.6)
            panel.set_axisbelow(True)
        panels[0].set_yticks(range(len(order)), order)
        panels[0].set_ylim(len(order) - 0.4, -0.6)
        figure.suptitle(title, fontsize=10)
        figure.legend(handles=_legend(), loc="outside lower center", ncols=4)
        return figure


def _edges(effects: Sequence[Effect]) -> tuple[float, float]:
    """What a panel shows, in points: every seed and interval of those that the pooled variance covers."""
    near = [effect for effect in effects if effect.pooled] or effects
    intervals = [each for effect in near for each in (effect.pooled, effect.interval("training anew")) if each]
    ends = [gain for effect in near for gain in effect.each.values()]
    ends += [end for each in intervals for end in (each.low, each.high)]
    return 100 * min(0.0, *ends) - 0.2, 100 * max(0.0, *ends) + 0.2


def _row(panel: Axes, place: int, effect: Effect, low: float, high: float) -> None:
    gain = 100 * effect.seen.estimate
    if not low < gain < high:
        edge, arrow = (low, "◂ ") if gain <= low else (high, "▸ ")
        align = "left" if gain <= low else "right"
        panel.text(edge, place, f" {arrow}{gain:+.1f} ", color=_ANEW, ha=align, va="center", fontsize=8)
        return
    if effect.pooled:
        panel.plot([100 * effect.pooled.low, 100 * effect.pooled.high], [place, place], color=_POOLED, linewidth=3.5)
    if anew := effect.interval("training anew"):
        panel.plot([100 * anew.low, 100 * anew.high], [place, place], color=_ANEW, linewidth=1.0)
    panel.plot([100 * each for each in effect.each.values()], [place] * len(effect.each), "|", color="k", markersize=6)
    panel.plot([gain], [place], color=_ANEW, marker="o", markersize=4)


def _legend() -> list[Line2D]:
    """One line for each kind of mark."""
    kinds: list[dict[str, Any]] = [
        {"color": _ANEW, "marker": "o", "markersize": 4, "linestyle": "", "label": "mean"},
        {"color": "k", "marker": "|", "markersize": 6, "linestyle": "", "label": "a seed"},
        {"color": _ANEW, "linewidth": 1.0, "label": "interval by its own seeds"},
        {"color": _POOLED, "linewidth": 3.5, "label": "by all seeds pooled"},
    ]
    return [Line2D([], [], **kind) for kind in kinds]


def against_gaps(settings: Sequence[Setting]) -> Figure:
    """Each regularizer's gain in each setting, over the gap that a network has there without one; one panel a test.

    A line joins one regularizer's settings. Vertical bars: 95% intervals of training anew, if there are several seeds;
    side by side, so that all can be seen.
    """
    tests = list(settings[0].gap)
    regs = sorted({effect.reg for setting in settings for effect in setting.effects})
    with matplotlib.rc_context(pictures.STYLE):
        figure = Figure(figsize=(3.6 * len(tests) + 1.8, 3.4), layout="constrained")
        for panel, test in zip(figure.subplots(1, len(tests), squeeze=False)[0], tests, strict=True):
            for place, (reg, colour) in enumerate(zip(regs, itertools.cycle(pictures.COLOURS), strict=False)):
                _line(panel, test, reg, settings, colour, _APART * (place - (len(regs) - 1) / 2))
            panel.axhline(0, color="0.4", linewidth=0.8)
            panel.set(xlabel="training - validation of none (points)", title=test)
            panel.grid(color="0.9", linewidth=0.6)
            panel.set_axisbelow(True)
        figure.axes[0].set_ylabel("points above none")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=7)
        return figure


def _line(panel: Axes, test: str, reg: str, settings: Sequence[Setting], colour: str, shift: float) -> None:
    there = [(100 * each.gap[test] + shift, effect) for each in settings if (effect := each.find(reg, test))]
    panel.plot(
        [gap for gap, _ in there], [100 * effect.seen.estimate for _, effect in there],
        color=colour, marker="o", markersize=4, linewidth=0.8, label=reg,
    )  # fmt: skip
    for gap, effect in there:
        if anew := effect.interval("training anew"):
            panel.plot([gap] * 2, [100 * anew.low, 100 * anew.high], color=colour, linewidth=1.2)
