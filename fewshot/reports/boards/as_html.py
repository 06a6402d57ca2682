"""The leaderboard as one HTML page that needs nothing else: no network, no framework (leaderboard.html beside this).

The rows are tables in the HTML, so that the page is whole without JavaScript. Its script adds filters,
sorting, whiskers on a common axis, the details of a row, and the CSV of the rows shown.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from fewshot.reports.boards.as_text import MARK  # the same in every document that HTML comments can mark
from fewshot.reports.boards.leaderboard import Row, columns_of, of_kind
from fewshot.reports.boards.of_images import IMAGES
from fewshot.reports.boards.of_tasks import FEWSHOT
from fewshot.reports.boards.page_of_images import sections
from fewshot.reports.boards.ranking import board, tied
from fewshot.reports.tables import queries_a_class, training_time

TITLE = "Few-shot leaderboard"
_TEMPLATE = Path(__file__).with_name("leaderboard.html")
_HEADINGS = {  # of a column by its class
    "rank": "Rank", "spec": "Regularizer", "backbone": "Backbone", "head": "Head", "accuracy": "Accuracy, %",
    "plot": "95% interval", "trained": "Trained", "seeds": "Seeds", "time": "Time", "open": "Details",
}  # fmt: skip
_NUMBERS = ("accuracy", "seeds", "time")
_DRAWN = ("plot", "open")  # empty until the script fills them; hidden without it


def render(rows: Sequence[Row], title: str = TITLE, link: str = "", csv: str = "", images_csv: str = "") -> str:
    """The page with the rows in it. `link` is an address to show below the title, `csv` that of the same rows as CSV.

    Classification rows have plain tables of their own (page_of_images.py); `images_csv` is the address of their CSV.

    The page's policy lets the browser use this script and style, and load nothing else.
    """
    text = _TEMPLATE.read_text("utf-8")
    tasks, columns = of_kind(FEWSHOT, rows), columns_of(FEWSHOT, of_kind(FEWSHOT, rows))
    style, script = (_hash(text.split(f"<{tag}>")[1].split(f"</{tag}>")[0]) for tag in ("style", "script"))
    values = {
        "mark": MARK,
        "policy": f"default-src 'none'; style-src {style}; script-src {script}; base-uri 'none'; form-action 'none'",
        "title": escape(title),
        "subtitle": " · ".join(_subtitle(rows, link, csv * bool(tasks))),
        "boards": "\n".join(_boards(tasks)),
        "images": "\n".join(sections(of_kind(IMAGES, rows), images_csv)),
        "data": _inert({"columns": columns, "rows": [[row[column] for column in columns] for row in tasks]}),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], text)


def _subtitle(rows: Sequence[Row], link: str, csv: str) -> Iterator[str]:
    """What the rows are of, and from when."""
    yield escape(", ".join(dict.fromkeys(row["dataset"] for row in rows)))
    runs = {(score.own["run"], score.own["started"]) for row in rows for score in row.scores}
    newest = datetime.date.fromisoformat(max(started for _, started in runs)[:10])
    yield f"{_count(len(runs), 'run')}, the newest of <time datetime={newest}>{newest.day} {newest:%B %Y}</time>"
    if csv:
        yield f'<a href="{escape(csv)}">all rows as CSV</a>'
    if link:
        yield f'<a href="{escape(link)}">{escape(re.sub("^https?://", "", link))}</a>'


def _boards(rows: Sequence[Row]) -> Iterator[str]:
    """A section for each board; a table row's data-row says which of the page's rows it is."""
    equals, numbered = tied(rows), enumerate(rows)
    for place, (key, group) in enumerate(groupby(numbered, lambda pair: board(pair[1])), start=1):
        same = list(group)
        first, name = same[0][1], f"board-{place}"
        methods = escape("; or ".join(dict.fromkeys(row["ci_method"] for _, row in same)))
        heads = "".join(
            f'<th class="{_style(column)}" scope="col" role="columnheader" data-by="{column}">{heading}</th>'
            for column, heading in _HEADINGS.items()
        )
        ranks = [None, *(row["rank"] for _, row in same), None]
        lines = "\n".join(
            _line(number, row, tie=(key, row["rank"]) in equals, first=before != row["rank"], last=after != row["rank"])
            for (number, row), before, after in zip(same, ranks, ranks[2:], strict=False)
        )
        yield _SECTION.format(
            name=name, title=escape(FEWSHOT.title(first)), episodes=int(first["episodes"]),
            queries=queries_a_class(first.columns), heads=heads, lines=lines, methods=methods, rank_by=first["rank_by"],
            chance=_explained_chance(first) if any(row.at_chance for _, row in same) else "",
        )  # fmt: skip


_SECTION = """<section>
<h2 id="{name}">{title}</h2>
<p class="soft">Test accuracy over {episodes:,} episodes of {queries}</p>
<div class="box" tabindex="0" role="region" aria-labelledby="{name}">
<table role="table" aria-labelledby="{name}">
<thead role="rowgroup"><tr role="row">{heads}</tr></thead>
<tbody role="rowgroup">
{lines}
</tbody></table></div>
<p class="key"><span class="leads">rank 1: no row is established better</span>
<span>± and whiskers: 95% interval, {methods}</span> <span>Ranks by {rank_by}</span>{chance}</p>
</section>"""
_CHANCE = '<span class="chance">at chance</span>'


def _explained_chance(row: Row) -> str:
    """What the mark means in the board of `row`."""
    return f" <span>at chance: a run’s interval reaches down to guessing, {100 / int(row['ways']):.2f}%</span>"


def _line(number: int, row: Row, tie: bool, first: bool, last: bool) -> str:
    """One table row. `first`, `last`: whether it is the first or last of its rank. Its header is the regularizer."""
    transform = "" if row["transform"] == "none" else f' <span class="soft">after</span> {_component(row["transform"])}'
    cells = {
        "rank": row["rank"] + "=" * tie,
        "spec": _component(row["regularizer"]),
        "backbone": _component(row["backbone"]),
        "head": _component(row["head"]) + transform,
        "accuracy": f'<b>{row["accuracy"]}</b><span class="soft"> ± {row["ci95"]}</span>' + _CHANCE * row.at_chance,
        "plot": "",
        "trained": escape(_trained(row)),
        "seeds": row["seeds"],
        "time": training_time(row.columns),
        "open": "",
    }
    drawn = "".join(
        f'<th class="spec" scope="row" role="rowheader">{cell}</th>' if column == "spec"
        else f'<td class="{_style(column)}" role="cell">{cell}</td>'
        for column, cell in cells.items()
    )  # fmt: skip
    on = {"tie": tie, "first": first, "last": last, "leads": row["rank"] == "1"}
    styles = " ".join(style for style in on if on[style])
    return f'<tr role="row" data-row="{number}" class="{styles}">{drawn}</tr>'


def _trained(row: Row) -> str:
    """What it was trained on, and how long; the data set only if it is not the one tested on."""
    if row["steps"] == "0":
        return "not trained here"
    if not row["steps"]:  # by somebody else
        return row["trained_on"]
    on = "" if row["trained_on"] == row["dataset"] else f"{row['trained_on']} "
    tasks = f"{row['train_ways']}-way {row['train_shots']}-shot" if row["train_shots"] else row["regime"]
    return f"{on}{tasks}, {_count(int(row['steps']), 'step')}"


def _style(column: str) -> str:
    return f"{column} number" if column in _NUMBERS else f"{column} drawn" if column in _DRAWN else column


def _component(spec: str) -> str:
    """`targetdrop@3,4:drop_prob=0.15`, its names in bold; a line may break before a name and between options."""
    parts = []
    for part in re.split(r"(?=\+)", spec):
        name, *options = re.split(r"(?=[@:])", part, maxsplit=1)
        pieces = "".join(f"<wbr>{escape(piece)}" for piece in re.split(r"(?<=[:,])", "".join(options)))
        parts.append(f'<wbr><b>{escape(name)}</b><span class="soft">{pieces}</span>')
    return "".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _inert(value: object) -> str:
    """JSON that no HTML parser takes for a tag or comment, whatever names are in it."""
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c").replace(">", "\\u003e")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
