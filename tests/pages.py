"""The code that README.md and docs/*.md show: read, and run as a reader would.

A page runs from top to bottom, in one empty folder, which is the working directory and on sys.path:

    ```python          runs; all such blocks of a page share their names
    ```sh              runs line by line; each command must exit with 0
    ```text            is output, and is not run; the same goes for a block without a language

A block whose first line is `# my_drop.py`, or that follows `<!-- file: my_drop.py -->`, is written to that file
instead. A block that follows `<!-- not run: REASON -->` is not run. Any other comment right above a block is a mark:
another test runs that block.

Trainings and evaluations get the flags of a test, so that they take seconds; flags that the page gives override them.
"""

from __future__ import annotations

import glob
import importlib
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands import ROOT, SMALL

from fewshot.core import console

OUTPUT = ("", "text")
_FENCE = re.compile(r"(?:<!-- ([^\n]*?) -->\n)?^( *)```([^\n`]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (\S+\.\w+)\n")
_SHELL = re.compile(r"[|&;<>$`]")  # what only a shell understands
_BRIEFLY = {
    "train": [*SMALL, "--epochs", "1", "--episodes-per-epoch", "4"],
    "evaluate": ["--episodes", "50", "--threads", "1", "--device", "cpu", "--precision", "fp32"],
}


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    text: str
    mark: str
    """The comment in the line above it; "" if there is none."""
    line: int
    """The line number, in the page, of its first line of text."""

    @property
    def file(self) -> str | None:
        """The file that it is written to."""
        if self.mark.startswith("file: "):
            return self.mark.removeprefix("file: ")
        named = _FILE.match(self.text) if self.language == "python" else None
        return named[1] if named else None

    @property
    def reason(self) -> str | None:
        """Why it is not run; None if it is."""
        if not self.mark.startswith("not run"):
            return None
        reason = self.mark.removeprefix("not run").removeprefix(":").strip()
        assert reason, f"line {self.line}: not run, and no reason given: write <!-- not run: REASON -->"
        return reason


def blocks(text: str) -> list[Block]:
    """Every fenced block of a page."""
    found = []
    for match in _FENCE.finditer(text):
        mark, indent, language, inside = match.groups()
        inside = re.sub(f"^{indent}", "", inside, flags=re.MULTILINE)
        found.append(Block(language, inside, mark or "", text.count("\n", 0, match.start(4)) + 1))
    return found


def shown(page: Path, mark: str) -> str:
    """The text of the block that follows a mark."""
    return next(block.text for block in blocks(page.read_text("utf-8")) if block.mark == mark)


def run_page(page: Path, folder: Path, elsewhere: str = "") -> None:
    """Run a page in `folder`, which is the working directory and on sys.path.

    elsewhere: text of the tests that run marked blocks; each mark must be in it, in quotes.
    """
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page.read_text("utf-8")):
        where = f"{page.name}, line {block.line}"
        if block.file:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.text, "utf-8")
            forget(folder)
        elif block.language in OUTPUT or block.reason:
            continue
        elif block.mark:
            assert f'"{block.mark}"' in elsewhere, f"{where}: no test runs the block marked {block.mark!r}"
        elif block.language == "python":
            # Empty lines above it, so that a traceback names the line of the page.
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)
        else:
            assert block.language == "sh", f"{where}: blocks are python, sh or text, not {block.language!r}"
            for command in commands(block.text):
                status = run_command(command, folder)
                assert status == 0, f"{where}: exit status {status} of {command}"


def commands(text: str) -> Iterator[str]:
    """The commands of an sh block: its lines without comments; one that ends in a backslash is joined with the next."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()


def run_command(command: str, folder: Path) -> int:
    """Run one command and return its exit status: ours in this process, others in one of their own."""
    words = shlex.split(command, comments=True)
    if words[:2] == ["python", "-m"] and len(words) > 2 and words[2].startswith("fewshot."):
        words[:3] = ["fewshot", words[2].removeprefix("fewshot.")]
    if _SHELL.search(command.partition(" #")[0]):
        return _in_a_process(["sh", "-c", command], folder)
    words = [each for word in words for each in (sorted(glob.glob(word)) or [word] if "*" in word else [word])]
    if words[0] == "fewshot" and len(words) > 1 and not words[1].startswith("-"):
        name, given = words[1], words[2:]
        return console.run(importlib.import_module(f"fewshot.{name}").main, [*_briefly(name, given), *given])
    if words[0] == "python" and len(words) > 1 and words[1].startswith(("scripts/", "examples/")):
        return _script(ROOT / words[1], words[2:])
    return _in_a_process([sys.executable if word == "python" else word for word in words], folder)


def _briefly(name: str, given: list[str]) -> list[str]:
    """Flags in front of those of the page, which override them."""
    flags = _BRIEFLY.get(name, [])
    return flags[2:] if name == "evaluate" and "--tasks" in given else flags


def _script(path: Path, argv: list[str]) -> int:
    """The exit status of a script's `main(argv)`; its own folder is on sys.path, as when Python runs it."""
    sys.path.insert(0, str(path.parent))
    try:
        return console.run(runpy.run_path(str(path), run_name="script")["main"], argv)
    finally:
        sys.path.remove(str(path.parent))
        forget(path.parent)


def _in_a_process(command: list[str], folder: Path) -> int:
    path = os.pathsep.join([str(folder), str(ROOT)])
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, timeout=300)
    return done.returncode


def forget(folder: Path) -> None:
    """Have modules of this folder imported again: one of its files was written, or is gone."""
    importlib.invalidate_caches()
    for name, module in list(sys.modules.items()):
        if folder in Path(getattr(module, "__file__", None) or "/").parents:
            del sys.modules[name]
