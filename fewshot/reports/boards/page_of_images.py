"""Classification rows on the leaderboard's page: plain tables below those of few-shot tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby

from fewshot.reports.boards.leaderboard import Row
from fewshot.reports.boards.of_images import IMAGES
from fewshot.reports.boards.ranking import board, tied

_CLASSES = {"regularizer": "spec", "top-1 (%)": "accuracy", "time": "time", "seeds": "seeds"}  # of the page's style
_LEFT_OUT = ("trained on", "run")  # the run, only where the others tell all rows apart


def sections(rows: Sequence[Row], csv: str = "") -> Iterator[str]:
    """A section for each board; before them, one that says what they are. `csv`: address of the same rows as CSV."""
    if not rows:
        return
    link = f' <a href="{escape(csv)}">All classification rows as CSV</a>' if csv else ""
    yield f'<section><h2>Classification</h2>\n<p class="soft">{escape(IMAGES.about)}{link}</p></section>'
    equals = tied(rows)
    for place, (key, group) in enumerate(groupby(rows, board), start=1):
        same = list(group)
        cells = [IMAGES.cells(row, (key, row["rank"]) in equals) for row in same]
        shown = [heading for heading in cells[0] if heading not in _LEFT_OUT]
        if len({tuple(line[name] for name in shown if name not in IMAGES.numbers) for line in cells}) < len(cells):
            shown.append("run")
        heads = "".join(
            f'<th class="{_style(name)}" scope="col" role="columnheader">{name[0].upper() + name[1:]}</th>'
            for name in shown
        )
        lines = "\n".join(f'<tr role="row">{"".join(_cell(name, line[name]) for name in shown)}</tr>' for line in cells)
        yield _SECTION.format(
            name=f"images-{place}", title=escape(IMAGES.title(same[0])), how=escape(IMAGES.how(same)), heads=heads,
            lines=lines,
        )  # fmt: skip


_SECTION = """<section>
<h2 id="{name}">{title}</h2>
<div class="box" tabindex="0" role="region" aria-labelledby="{name}">
<table role="table" aria-labelledby="{name}">
<thead role="rowgroup"><tr role="row">{heads}</tr></thead>
<tbody role="rowgroup">
{lines}
</tbody></table></div>
<p class="key">{how}</p>
</section>"""


def _cell(heading: str, text: str) -> str:
    if heading == "regularizer":
        return f'<th class="spec" scope="row" role="rowheader"><b>{escape(text)}</b></th>'
    return f'<td class="{_style(heading)}" role="cell">{escape(text)}</td>'


def _style(heading: str) -> str:
    return f"{_CLASSES.get(heading, heading)} number" if heading in IMAGES.numbers else _CLASSES.get(heading, heading)
