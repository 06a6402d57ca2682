"""Every block of code in README.md and docs/*.md runs as shown there; so do the examples."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pages
import pytest
import torch
from commands import ROOT

from fewshot import heads, regularizers

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TESTS = ("tests/test_readme.py", "tests/interop/test_learn2learn.py", ".ci/run")
ELSEWHERE = "".join((ROOT / path).read_text("utf-8") for path in TESTS)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a page runs: nothing is prepared there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("FEWSHOT_DATA", raising=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)
    pages.forget(tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_its_code_runs(page, folder):
    pages.run_page(page, folder, ELSEWHERE)


WRONG = {
    "```python\n1 / 0\n```": ZeroDivisionError,
    "```python\nx = 1\n```\n\n```python\nassert x == 2\n```": AssertionError,
    "```sh\npython -m fewshot.train --head nonsense\n```": "line 2: exit status 2 of python -m fewshot.train",
    "```sh\nfewshot list\npython -c 'raise SystemExit(3)'  # what a reader sees\n```": "line 2: exit status 3",
    "<!-- not run: -->\n```sh\ntrue\n```": "no reason given",
    "<!-- nobody's -->\n```sh\ntrue\n```": "no test runs the block marked",
    "```toml\na = 1\n```": "blocks are python, sh or text, not 'toml'",
    "```python\n# wrong.py\nvalue = 1\n```\n```python\nimport wrong\nassert wrong.value == 2\n```": AssertionError,
}


@pytest.mark.parametrize("text", WRONG)
def test_what_does_not_run_is_told(text, folder):
    page = folder / "page.md"
    page.write_text(text)
    expected = WRONG[text]
    with pytest.raises(AssertionError if isinstance(expected, str) else expected) as error:
        pages.run_page(page, folder)
    assert not isinstance(expected, str) or expected in str(error.value)


def test_blocks_that_are_not_run_are_left_alone(folder):
    page = folder / "page.md"
    page.write_text("<!-- not run: takes a day -->\n```sh\nfalse\n```\n\n```text\nrank 1\n```\n\n```\n1 / 0\n```\n")
    pages.run_page(page, folder)


SCORES = r"glyphs test, 5-way 1-shot: .* \(200 episodes\)\n.*5-shot: .* \(200 episodes\)\n"
EXAMPLES = {
    "score_my_network": r"proto  none       " + SCORES,
    "regularizers_in_my_loop": r"step 3: loss \d\.\d+\n" + SCORES,
    "my_regularizer_against_none": (
        r"(glyphs test 5-way [15]-shot, 15 queries a class, 200 episodes\nRowDrop against none\n"
        r"(  (this|new|training) .*\n){4}  To establish .* points with 80% power, .*\n(    (new|training) .*\n){3}){2}"
    ),
}

NEEDS_MORE = ["maml"]  # than every installation has: tried in tests/interop


@pytest.mark.parametrize("family", [regularizers.FAMILY, heads.FAMILY], ids=lambda family: family.kind)
def test_a_table_has_every_component_with_its_options_and_defaults(family):
    page = (ROOT / "docs" / f"{family.kind}s.md").read_text("utf-8")
    (table,) = re.findall(r"\| options, with defaults \|\n\|[-|]+\n((?:\|.*\n)+)", page)
    rows = {name: re.findall(r"`(\w+)=([^`]+)`", row) for name, row in re.findall(r"^\| `(\w+)` (.*)", table, re.M)}
    assert rows.keys() == {*family.names()}
    for name, shown in rows.items():
        declared = {key: default for key, (_, default) in family.options(family.find(name)).items()}
        declared = {key: 5 if key == "block_size" else default for key, default in declared.items()}  # none: see there
        given = {key: float(value) if value[0].isdigit() else value for key, value in shown}
        assert given == {key: _written(default) for key, default in declared.items()}, name


def _written(default: object) -> object:
    return str(default).lower() if isinstance(default, str | bool | None) else default


def test_every_example_is_tried_and_named_in_the_docs():
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} == {*EXAMPLES, *NEEDS_MORE}
    text = "".join(page.read_text("utf-8") for page in PAGES)
    assert not [name for name in (*EXAMPLES, *NEEDS_MORE) if f"examples/{name}.py" not in text]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name, folder, capsys):
    assert pages.run_command(f"python examples/{name}.py --quick", folder) == 0
    assert re.fullmatch(EXAMPLES[name], capsys.readouterr().out)
