"""docs/papers.md: every table and figure has a valid command, and says truly whether it has been run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import paper_rows
import pgd
import pytest
import reproduce_tables
from commands import ROOT

from fewshot import config as configs
from fewshot import recipes, show, sweep, train
from fewshot.sweeps import grid

PAGE = (ROOT / "docs" / "papers.md").read_text("utf-8")
TABLES = {table.name: table for table in paper_rows.tables()}
LINES = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in PAGE.splitlines() if line.startswith("| ")]
COMMANDS = re.findall(r"^python .*$", PAGE, re.MULTILINE)


def test_every_table_has_one_line_which_says_what_it_is():
    commands = {line[2]: line for line in LINES}
    for table in TABLES.values():
        paper, _, where = table.where.partition(", ")
        command, what = f"`python scripts/reproduce_tables.py {table.name}`", table.what.partition(":")[0]
        section = PAGE.split(f"## {paper}")[1].split("\n## ")[0]
        assert command in section, table.name
        assert commands[command][0] == where and commands[command][1].endswith(what), table.name


def recipes_run() -> set[str]:
    """The recipes of runs under results/ that have as many epochs as the recipe."""
    found = set()
    for path in (ROOT / "results").rglob("config.json"):
        written = json.loads(path.read_text("utf-8"))
        name = written["recipe"]
        if name.partition("/")[0] in recipes.papers() and written["epochs"] == recipes.values(name)["epochs"]:
            found.add(name)
    return found


@pytest.mark.parametrize("name", TABLES)
def test_not_run_is_said_where_there_is_no_run_and_nowhere_else(name):
    (line,) = (line for line in LINES if line[2] == f"`python scripts/reproduce_tables.py {name}`")
    run = {row.recipe for row in TABLES[name].rows} & recipes_run()
    assert (line[3] == "not run") == (not run)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    _, name, *words = shlex.split(command.replace(" -m ", " "))
    rows = {row.name: row.recipe for row in paper_rows.every_row()}
    if name == "fewshot.sweep":
        args = vars(sweep.parser().parse_args(words))
        vary = dict(map(grid.parse_vary, args["vary"]))
        shared = {field: value for field, value in args.items() if field in configs.FIELDS}
        plan = grid.points(shared, vary, args["seeds"])
        assert len(plan) == (64 if "camdrop" in command else len(vary["reg"]))
        assert {config.regime for config in plan.values()} == {"supervised:batch=128,train=all"}
    elif name == "fewshot.train":
        assert train.parser().parse_args(words).recipe in rows.values()
    elif name in ("fewshot.show", "scripts/pgd.py"):
        runs = (show if name == "fewshot.show" else pgd).parser().parse_args(words).runs
        assert {Path(folder).name.removesuffix("-seed0") for folder in runs} <= rows.keys()
    elif name == "scripts/reproduce_tables.py":
        args, rest = reproduce_tables.parser().parse_known_args(words)
        plan = reproduce_tables.planned(paper_rows.chosen(args.names or [""]), args.seeds, train.train_flags(rest, {}))
        assert plan
    else:
        pytest.fail(f"nothing is known of {name}")
