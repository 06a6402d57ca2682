"""results/: the runs kept there were trained by the code of the commits that they name."""

from __future__ import annotations

import subprocess
from functools import cache

import pytest
from commands import ROOT

from fewshot.core import sealed
from fewshot.runs import Run

RUNS = [path.parent for path in sorted((ROOT / "results").rglob("config.json"))]


def git(*args: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, check=False)


@cache
def digest_in(commit: str, file: str) -> str:
    return sealed.sha256(git("show", f"{commit}:fewshot/{file}").stdout)


def test_each_run_was_trained_by_the_code_of_the_commit_that_it_names():
    """Even if its checkout had other changes (`-dirty`). Older runs did not record the files of their code."""
    if git("rev-parse", "--is-shallow-repository").stdout.strip() != b"false":
        pytest.skip("needs the project's whole history")
    told, wrong = 0, []
    for folder in RUNS:
        run = Run.open(folder)
        commit = str(run.environment["commit"]).removesuffix("-dirty")
        files = run.resolved.get("code", {"ours": {}})["ours"]
        told += bool(files)
        wrong += [(folder.name, file) for file, digest in files.items() if digest_in(commit, file) != digest]
    assert told >= 120 and wrong == []
