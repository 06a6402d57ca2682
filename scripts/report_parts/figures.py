"""The report's figures."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewshot.reports import pictures
from report_parts.effects import TOP1, Effect
from report_parts.gaps import Setting

_TEST_SET, _ANEW = pictures.COLOURS[0], pictures.COLOURS[1]


def forest(effects: Sequence[Effect], title: str) -> Figure:
    """Each regularizer's gain over `none` in points, a panel for each test, in the order of the first one.

    A thick line is the 95% interval of these networks (Effect.seen), a thin one that of training anew.
    """
    tests = sorted({effect.test for effect in effects})
    what = "new images" if tests == [TOP1] else "this test set"
    order = list(dict.fromkeys(effect.reg for effect in effects))
    with matplotlib.rc_context(pictures.STYLE):
        figure = Figure(figsize=(4.2 * len(tests) + 1.4, 1.3 + 0.28 * len(order)), layout="constrained")
        panels = figure.subplots(1, len(tests), sharey=True, squeeze=False)[0]
        for panel, test in zip(panels, tests, strict=True):
            for effect in effects:
                if effect.test == test:
                    _row(panel, order.index(effect.reg), effect)
            panel.axvline(0, color="0.4", linewidth=0.8)
            panel.set(xlabel="points above none", title=test)
            panel.grid(axis="x", color="0.9", linewidth=0.6)
            panel.set_axisbelow(True)
        panels[0].set_yticks(range(len(order)), order)
        panels[0].invert_yaxis()
        figure.suptitle(title, fontsize=10)
        figure.legend(
            handles=[
                panels[0].plot([], [], color=_TEST_SET, linewidth=3.5, label=f"these networks, on {what}")[0],
                panels[0].plot([], [], color=_ANEW, linewidth=1.2, marker="o", markersize=4, label="training anew")[0],
            ],
            loc="outside lower center", ncols=2,
        )  # fmt: skip
        return figure


def against_gaps(settings: Sequence[Setting]) -> Figure:
    """Each regularizer's gain in each setting, above the gap that a network has there without one; a panel a test.

    A line joins one regularizer's settings. Vertical bars: 95% intervals of training anew, where there are seeds.
    """
    tests = list(settings[0].gap)
    regs = sorted({effect.reg for setting in settings for effect in setting.effects})
    with matplotlib.rc_context(pictures.STYLE):
        figure = Figure(figsize=(3.6 * len(tests) + 1.8, 3.4), layout="constrained")
        for panel, test in zip(figure.subplots(1, len(tests), squeeze=False)[0], tests, strict=True):
            for reg, colour in zip(regs, itertools.cycle(pictures.COLOURS), strict=False):
                _line(panel, test, reg, settings, colour)
            panel.axhline(0, color="0.4", linewidth=0.8)
            panel.set(xlabel="training - validation of none (points)", title=test)
            panel.grid(color="0.9", linewidth=0.6)
            panel.set_axisbelow(True)
        figure.axes[0].set_ylabel("points above none")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=7)
        return figure


def _line(panel: Axes, test: str, reg: str, settings: Sequence[Setting], colour: str) -> None:
    there = [(100 * each.gap[test], effect) for each in settings if (effect := each.find(reg, test))]
    panel.plot(
        [gap for gap, _ in there], [100 * effect.seen.estimate for _, effect in there],
        color=colour, marker="o", markersize=4, linewidth=0.8, label=reg,
    )  # fmt: skip
    for gap, effect in there:
        if anew := effect.interval("training anew"):
            panel.plot([gap] * 2, [100 * anew.low, 100 * anew.high], color=colour, linewidth=1.2)


def _row(panel: Axes, place: int, effect: Effect) -> None:
    seen, anew = effect.seen, effect.interval("training anew")
    panel.plot([100 * seen.low, 100 * seen.high], [place, place], color=_TEST_SET, linewidth=3.5)
    if anew is not None:
        panel.plot([100 * anew.low, 100 * anew.high], [place, place], color=_ANEW, linewidth=1.2)
    panel.plot([100 * seen.estimate], [place], color=_ANEW, marker="o", markersize=4)
