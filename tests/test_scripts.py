"""Every script can be started: what it imports is there. And tests of scripts that have no file of their own."""

from __future__ import annotations

import importlib
import json
import shutil

import bench_image_files
import camdrop_labels
import fuzz
import fuzz_readers
import keep
import pytest
import torch
from boards import variant
from commands import ROOT, SMALL, one_line_error

import fewshot
from fewshot import train
from fewshot.core import console
from fewshot.data import open_dataset
from fewshot.episodes import EpisodeSampler, Protocol
from fewshot.runs import Run


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "scripts").glob("*.py")))
def test_a_script_finds_what_it_imports(name):
    assert importlib.import_module(name).__doc__


def test_what_camdrop_tells_is_measured_in_networks_trained_with_and_without_it(small_run, tmp_path):
    """A network is told its queries' classes, its guesses, or others; trained without CamDrop, it cannot listen."""
    named = tmp_path / "named"
    assert console.run(train.main, [*SMALL, "--reg", "camdrop:label=named,drop_prob=0.9", "--out", str(named)]) == 0
    flags = ["--tasks", "4", "--out", str(tmp_path / "page.md")]
    assert console.run(camdrop_labels.main, [*flags, "--runs", str(small_run), str(named)]) == 0
    page = (tmp_path / "page.md").read_text("utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")][2:]
    mask = "camdrop:drop_prob=0.9"
    assert [row[1:4] for row in rows] == [["targetdrop", mask, "0"], ["camdrop:label=named,drop_prob=0.9", mask, "0"]]
    assert f"    python scripts/camdrop_labels.py --tasks 4 --runs {small_run} {named}\n" in page

    network, split, right = fewshot.load(small_run), open_dataset("glyphs")["val"], []
    for episode in EpisodeSampler(split, Protocol(5, 5, 3), seed=0).draw(0, 4):
        z = network.embed(split.images[episode.ravel()]).view(5, 8, -1)
        nearest = torch.cdist(z[:, 5:].flatten(0, 1), z[:, :5].mean(1)).argmin(1)
        right.append((nearest == torch.arange(5).repeat_interleave(3)).float().mean().item())
    assert rows[0][4].split(" ± ")[0] == f"{100 * sum(right) / 4:.1f}"


def test_every_reader_of_the_fuzzer_is_on_record():
    record = json.loads((ROOT / "results" / "fuzz.json").read_text())["readers"]
    assert set(record) == set(fuzz_readers.READERS)
    assert min(tally["done"] for tally in record.values()) >= fuzz.LEAST


def test_a_reader_that_is_new_is_fuzzed_however_many_inputs_others_had():
    record = {"readers": {"old": fuzz.Tally(done=10**6), "new": fuzz.Tally(done=7)}}
    rounds = fuzz.rounds(["old", "new"], record, 10**6)
    assert next(rounds) == ("new", 7, fuzz.LEAST - 7)
    record["readers"]["new"].done = fuzz.LEAST
    assert not list(rounds)


def test_a_kept_command_says_the_precision_and_the_threads_that_were_used(small_run, tmp_path):
    run, used = Run.open(small_run), "--precision fp32 --threads 1"
    assert keep.command("x.py", ["--cells", "a b"], [run]) == "python scripts/x.py --cells 'a b' --threads 1"
    assert keep.command("x.py", used.split(), [run]) == f"python scripts/x.py {used}"
    chosen = Run.open(variant(small_run, tmp_path / "chosen", config={"precision": "auto"}))
    comment = "# here in fp32; where that is not the machine's choice, add --precision fp32"
    assert keep.command("x.py", ["--threads", "1"], [chosen]) == f"python scripts/x.py --threads 1  {comment}"


def test_everything_of_a_run_is_kept_but_weights_and_checkpoints(small_run, tmp_path, capsys):
    run = shutil.copytree(small_run, tmp_path / "runs" / "mine")
    (run / "code" / "my_pkg").mkdir(parents=True)
    (run / "code" / "my_pkg" / "my_drop.py").write_text("# a user's own\n")
    assert console.run(keep.main, [str(run.parent), str(tmp_path / "kept")]) == 0
    kept = {path.relative_to(tmp_path / "kept" / "mine"): path for path in (tmp_path / "kept").rglob("*.*")}
    whole = {path.relative_to(run): path for path in run.rglob("*.*") if path.name != ".lock"}
    assert {str(name) for name in whole.keys() - kept.keys()} == {"best.safetensors", "checkpoint.pt"}
    assert kept.keys() <= whole.keys()
    assert all(path.read_bytes() == whole[name].read_bytes() for name, path in kept.items())
    assert console.run(keep.main, [str(run.parent), str(run.parent)]) == 2
    assert "the copies would be the runs themselves" in one_line_error(capsys)


@pytest.mark.parametrize("flag", ["--images", "--rounds"])
def test_a_bench_of_nothing_is_refused(flag, capsys):
    assert console.run(bench_image_files.main, [flag, "0"]) == 2
    assert f"{flag} 0: give at least 1" in one_line_error(capsys)
