"""scripts/heads.py on glyphs, a few tasks a head; the real figures are in results/heads.md."""

from __future__ import annotations

import importlib.util
import json
import shutil

import pytest
import torch
from commands import ROOT

from fewshot import evaluate
from fewshot.core import console


@pytest.fixture
def script(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("heads_script", ROOT / "scripts" / "heads.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, value in {"EPISODES": 30, "FEWER": 3}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "KEPT", tmp_path / "heads.json")
    monkeypatch.setattr(module, "PAGE", tmp_path / "heads.md")
    threads = torch.get_num_threads()
    yield module
    torch.set_num_threads(threads)


SPECS = ["proto", "relation", "simpleshot:norm=cl2n", "sklearn:LinearSVC"]


def test_keeps_a_row_of_each_head_and_makes_the_page(script, small_run, tmp_path):
    def call(*words):
        script.main(["--threads", "1", "--steps", "2", *map(str, words)])

    call("embed", small_run, tmp_path / "embedding")
    call("score", tmp_path / "embedding", *SPECS)
    other = shutil.copytree(small_run, tmp_path / "run")
    for flags in (["--split", "val"], ["--transform", "l2"], ["--head", "simpleshot", "--shots", "1"]):
        words = [str(other), *flags, "--episodes", "20", "--threads", "1", "--precision", "fp32"]
        assert console.run(evaluate.main, words) == 0
    assert script.glyphs(other) == script.glyphs(small_run), "its test with both numbers of shots, and nothing else"
    call("glyphs", small_run)
    kept = json.loads((tmp_path / "heads.json").read_text())
    assert list(kept["rows"]) == SPECS
    ours = json.loads((small_run / "result.json").read_text())["results"]
    assert kept["glyphs"]["proto"]["proto"]["5"]["accuracy"] == ours[1]["accuracy"]
    assert kept["embedding"]["shape"] == [16, 2, 2]
    for spec, row in kept["rows"].items():
        assert row.get("learned", 0) == 2 * (spec == "relation")
        assert row["5"]["episodes"] == (3 if spec.startswith("sklearn:") else 30)
        assert 0.2 < row["5"]["accuracy"] < 1
    page = (tmp_path / "heads.md").read_text()
    for spec in SPECS:
        assert f"| `{spec}`" in page
    assert "## Inductive" in page and "## Transductive" not in page and "| itself |" in page

    kept["rows"]["proto"]["setting"] = "transductive"
    (tmp_path / "heads.json").write_text(json.dumps(kept))
    call("report")
    apart = (tmp_path / "heads.md").read_text().partition("## Transductive")[2].partition("##")[0]
    assert "| `proto`" in apart and "simpleshot" not in apart


def test_the_catalogue_has_every_head(script):
    from fewshot import heads

    assert {spec.partition(":")[0] for spec in script.catalogue()} == {*heads.FAMILY.names(), "sklearn"}
