"""Tables for the terminal: every row with its own facts."""

from __future__ import annotations

import re

from fewshot.core.console import terminal
from fewshot.reports.tables import print_results

ROW = {
    "dataset": "birds", "split": "test", "ways": 5, "shots": 1, "queries": 15, "episodes": 10_000, "accuracy": 0.5123,
    "ci95": 0.002, "ci_method": "1.96 * std / sqrt(n)", "head": "proto",
}  # fmt: skip


def printed(capsys, *changes) -> tuple[str, list[list[str]], str]:
    """Title, table rows (headings first) and note, as printed for rows with these changes."""
    print_results(terminal(), "Accuracy", [ROW | change for change in changes])
    title, *lines, note = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    return title, [re.split(r" {2,}", line.strip()) for line in lines if "──" not in line], note


def test_every_row_has_its_own_queries(capsys):
    title, (heads, *rows), note = printed(capsys, {"queries": 15}, {"queries": 5, "shots": 5, "episodes": 600})
    assert title == "Accuracy" and heads == ["data set", "task", "queries", "accuracy (%) ± 95% CI", "episodes"]
    assert rows == [
        ["birds test", "5-way 1-shot", "15", "51.23 ± 0.20", "10,000"],
        ["birds test", "5-way 5-shot", "5", "51.23 ± 0.20", "600"],
    ]
    assert note.startswith("95% CI: 1.96 * std / sqrt(n) over n episodes, of this network on these images.")


def test_every_row_says_its_split(capsys):
    _, (_, *rows), _ = printed(capsys, {"split": "val"}, {})
    assert [row[0] for row in rows] == ["birds test", "birds val"]


def test_heads_transforms_and_settings_are_said_where_they_differ(capsys):
    _, (heads, *rows), _ = printed(
        capsys, {}, {"head": "r2d2", "transform": "center+l2"}, {"head": "softkmeans", "setting": "transductive"}
    )
    assert heads[3] == "head"
    assert [(row[1], row[3]) for row in rows] == [
        ("5-way 1-shot", "proto"),
        ("5-way 1-shot", "r2d2 after center+l2"),
        ("5-way 1-shot, transductive", "softkmeans"),
    ]
