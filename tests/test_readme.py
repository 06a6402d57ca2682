"""What README.md, docs/ and their neighbours say is true. Their blocks of code without a mark run in test_docs.py."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT
from pages import shown

from fewshot import catalogue, compare
from fewshot.__main__ import COMMANDS
from fewshot.core import console
from fewshot.reports.boards.of_tasks import COLUMNS

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS, *(ROOT / name / "README.md" for name in ("data", "episodes", "results"))]


def anchors(page: Path) -> set[str]:
    """What `page.md#...` may name: its headings, as GitHub spells them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings(page):
    wrong = []
    for target in re.findall(r'\]\(([^)\s]+)\)|src="([^"]+)"', page.read_text("utf-8")):
        path, _, anchor = "".join(target).partition("#")
        if "://" not in path:
            found = page.parent / path if path else page
            if not found.exists() or (anchor and anchor not in anchors(found)):
                wrong.append("".join(target))
    assert not wrong


def test_every_page_of_docs_is_linked_from_the_readme():
    text = README.read_text("utf-8") + (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert [page.name for page in DOCS if f"(docs/{page.name})" not in text] == ["contributing.md"]


def test_the_commands_are_listed_and_a_wrong_one_is_told():
    named = re.findall(r"^\| `python -m fewshot\.(\w+)", README.read_text("utf-8"), re.MULTILINE)
    assert set(named) == set(COMMANDS)
    wrong = subprocess.run([sys.executable, "-m", "fewshot", "trian"], capture_output=True, text=True, cwd=ROOT)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: unknown command 'trian'. Did you mean 'train'?")


ROWS = {
    "backbones": "backbones", "heads": "heads", "regularizers": "regularizers",
    "transforms of embeddings": "transforms", "ways to train": "regimes", "data sets": "datasets",
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_the_table_of_what_there_is_has_every_name(row):
    cell = re.search(rf"^\| {row} \| ([^|]*) \|", README.read_text("utf-8"), re.MULTILINE)[1]
    assert re.findall(r"`([\w-]+)`", cell) == catalogue.names(ROWS[row])


def test_any_network_is_scored_in_three_lines(capsys):
    lines = shown(README, "benchmark").splitlines()
    assert lines[0].startswith("import ") and len(lines) == 4
    exec(shown(README, "benchmark"), {})
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("glyphs test, 5-way 1-shot: ") and second.endswith("% (10,000 episodes)")


def test_what_compare_says_in_the_docs(capsys):
    folders = (ROOT / "results" / "conv4-mini-imagenet" / name for name in ("none", "targetdrop"))
    assert console.run(compare.main, list(map(str, folders))) == 0
    said = capsys.readouterr().out
    assert [line for line in shown(ROOT / "docs" / "statistics.md", "compare").splitlines() if line not in said] == []


def test_what_compare_says_of_heads_in_the_docs(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    folders = [f"results/mini-imagenet-42/none-seed{seed}" for seed in range(3)]
    assert console.run(compare.main, [*folders, "--head", "proto", "simpleshot:norm=cl2n"]) == 0
    said = capsys.readouterr().out
    assert [line for line in shown(ROOT / "docs" / "heads.md", "compare heads").splitlines() if line not in said] == []


def test_figures_stand_in_results():
    """Every accuracy with an interval in the text of README and docs; not in blocks, which show a command's output."""
    measured = "".join(page.read_text("utf-8") for page in (ROOT / "results").rglob("*.md"))
    for page in (README, *DOCS):
        text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
        assert [figure for figure in re.findall(r"[-+]?\d+\.\d+ ± \d+\.\d+", text) if figure not in measured] == []


def test_where_things_are_and_no_import_runs_back():
    tree = README.read_text("utf-8").partition("## Where things are")[2].partition("\n```\n")[0]
    rooms = re.findall(r"^fewshot/(\w+)/ ", tree, re.MULTILINE)
    assert set(rooms) == {folder.parent.name for folder in (ROOT / "fewshot").glob("*/__init__.py")} | {"recipes"}
    assert [name for name in re.findall(r"(?:^|  )(\w+)/ ", tree, re.MULTILINE) if not (ROOT / name).is_dir()] == []
    for place, room in enumerate(rooms):
        text = "".join(file.read_text("utf-8") for file in (ROOT / "fewshot" / room).rglob("*.py"))
        imported = re.findall(r"^ *(?:from|import) fewshot\.(\w+)|^ *from fewshot import ([\w, ]+)", text, re.MULTILINE)
        names = {name for one, several in imported for name in (one, *several.split(", "))}
        assert sorted(names & set(rooms[place + 1 :])) == [], room


def test_files_that_concepts_names_are_there():
    text = (ROOT / "docs" / "concepts.md").read_text("utf-8")
    paths = re.findall(r"`([\w/*]+(?:\.py|/))`", text)
    assert len(paths) > 30
    assert [path for path in paths if not (list(ROOT.glob(path)) or list((ROOT / "fewshot").rglob(path)))] == []


def test_columns_of_the_leaderboard_in_the_docs():
    text = (ROOT / "docs" / "file-formats.md").read_text("utf-8")
    block = re.search(r"```text\n(rank,dataset,.*?)```", text, re.DOTALL)[1]
    assert tuple(block.replace("\n", "").split(",")) == COLUMNS
