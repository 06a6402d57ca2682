"""The report's figures."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewshot.reports import pictures
from report_parts.effects import TOP1, Effect

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


def _row(panel: Axes, place: int, effect: Effect) -> None:
    seen, anew = effect.seen, effect.interval("training anew")
    panel.plot([100 * seen.low, 100 * seen.high], [place, place], color=_TEST_SET, linewidth=3.5)
    if anew is not None:
        panel.plot([100 * anew.low, 100 * anew.high], [place, place], color=_ANEW, linewidth=1.2)
    panel.plot([100 * seen.estimate], [place], color=_ANEW, marker="o", markersize=4)
