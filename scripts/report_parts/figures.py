"""The report's figures."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewshot.reports import pictures
from report_parts.effects import Effect
from report_parts.gaps import Setting

_TEST_SET, _ANEW = pictures.COLOURS[0], pictures.COLOURS[1]


def forest(effects: Sequence[Effect], title: str) -> Figure:
    """Each regularizer's gain over `none` in points, a panel for each test, in the order of the first one.

    A thick line is the 95% interval of these networks (Effect.seen), a thin one that of training anew.
    """
    tests = sorted({effect.test for effect in effects})
    order = [effect.reg for effect in effects if effect.test == tests[0]]
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
                panels[0].plot([], [], color=_TEST_SET, linewidth=3.5, label="these networks on this test set")[0],
                panels[0].plot([], [], color=_ANEW, linewidth=1.2, marker="o", markersize=4, label="training anew")[0],
            ],
            loc="outside lower center", ncols=2,
        )  # fmt: skip
        return figure


def _row(panel: Axes, place: int, effect: Effect) -> None:
    seen, anew = effect.seen, effect.interval("training anew")
    panel.plot([100 * seen.low, 100 * seen.high], [place, place], color=_TEST_SET, linewidth=3.5)
    if anew is not None:
        panel.plot([100 * anew.low, 100 * anew.high], [place, place], color=_ANEW, linewidth=1.2)
    panel.plot([100 * seen.estimate], [place], color=_ANEW, marker="o", markersize=4)


def against_gaps(panels: Mapping[str, Sequence[Setting]]) -> Figure:
    """Each method's gain in each setting, above that setting's gap from training to validation; a panel for each test.

    A line joins one method's settings; its bars are 95% intervals of training anew, where there are several seeds.
    """
    regs = sorted({effect.reg for settings in panels.values() for each in settings for effect in each.effects})
    with matplotlib.rc_context(pictures.STYLE):
        figure = Figure(figsize=(4.2 * len(panels) + 1.4, 3.6), layout="constrained")
        for panel, (test, settings) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            for reg, colour in zip(regs, itertools.cycle(pictures.COLOURS), strict=False):
                _line(panel, reg, settings, colour)
            panel.axhline(0, color="0.4", linewidth=0.8)
            panel.set(xlabel="training - validation, without a regularizer (points)", title=test)
            panel.grid(color="0.9", linewidth=0.6)
            panel.set_axisbelow(True)
        figure.axes[0].set_ylabel("points above none")
        lines, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(lines, labels, loc="outside right center", fontsize=7)
        return figure


def _line(panel: Axes, reg: str, settings: Sequence[Setting], colour: str) -> None:
    there = [(each.gap, effect) for each in settings for effect in each.effects if effect.reg == reg]
    panel.plot(
        [100 * gap for gap, _ in there], [100 * effect.seen.estimate for _, effect in there],
        color=colour, marker="o", markersize=4, linewidth=0.8, label=reg,
    )  # fmt: skip
    for gap, effect in there:
        if anew := effect.interval("training anew"):
            panel.plot([100 * gap] * 2, [100 * anew.low, 100 * anew.high], color=colour, linewidth=1.2)
