"""python -m fewshot.train: what it leaves behind, that it repeats, that it survives."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from commands import SMALL, command, one_line_error

from fewshot import config as configs
from fewshot import runs, train
from fewshot.core import console
from fewshot.core.errors import UserError
from fewshot.runs import Log, Run
from fewshot.runs import metrics as metrics_file

TIMINGS = ("images_per_second", "seconds")


def metrics(folder) -> list[dict]:
    """The logged lines without their timings."""
    return [{k: v for k, v in row.items() if k not in TIMINGS} for row in Run.open(folder).metrics()]


def weights(folder) -> str:
    return hashlib.sha256((folder / "best.safetensors").read_bytes()).hexdigest()


def final_state(folder) -> dict:
    import torch

    return torch.load(folder / "checkpoint.pt", weights_only=True)


def run(*args) -> int:
    return console.run(train.main, [str(arg) for arg in args])


def test_a_run_folder_holds_what_the_contract_says(small_run):
    result = json.loads((small_run / "result.json").read_text())
    assert result["run"]["regularizer"] == "targetdrop" and result["run"]["parameters"] == 7_472
    assert [(row["ways"], row["shots"], row["queries"]) for row in result["results"]] == [(5, 1, 15), (5, 5, 15)]
    for row in result["results"]:
        accuracies = np.load(small_run / row["episodes_file"])
        assert accuracies.shape == (50,) and row["episodes"] == 50
        assert row["accuracy"] == pytest.approx(accuracies.mean(), abs=1e-6)
        assert row["ci95"] == pytest.approx(1.96 * accuracies.std(ddof=1) / 50**0.5, abs=1e-6)
        assert 0.2 < row["accuracy"] <= 1 and row["split"] == "test" and len(row["episodes_digest"]) == 64
    config = json.loads((small_run / "config.json").read_text())
    assert config["mirror"] is False, "the recipe named as the data set is taken"
    assert config["epochs"] == 2, "flags override the recipe"
    assert config["resolved"]["regularizers"][0].startswith("site 2: TargetDrop(drop_prob=0.15, block_size=3")
    environment = json.loads((small_run / "environment.json").read_text())
    assert environment["device"].startswith("CPU") and environment["versions"]["torch"]
    rows = metrics(small_run)
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "validation" in row] == [3, 6]
    assert 0 < rows[0]["dropped"] < 0.15


def test_the_same_seed_gives_the_same_metrics_and_weights_and_another_seed_others(small_run, tmp_path):
    assert run(*SMALL, "--reg", "targetdrop", "--out", tmp_path / "again") == 0
    assert run(*SMALL, "--reg", "targetdrop", "--seed", 1, "--out", tmp_path / "other") == 0
    assert metrics(tmp_path / "again") == metrics(small_run)
    assert weights(tmp_path / "again") == weights(small_run)
    assert metrics(tmp_path / "other") != metrics(small_run)


def test_a_run_killed_at_any_moment_goes_on_to_the_same_bits(tmp_path):
    """SIGKILL three times, at whatever moment it hits; DropBlock's ramp depends on the step."""
    flags = [*SMALL, "--epochs", "3", "--episodes-per-epoch", "40", "--checkpoint-seconds", "0.001",
             "--reg", "dropblock+dropout@1"]  # fmt: skip
    assert run(*flags, "--out", tmp_path / "whole") == 0
    cut = tmp_path / "cut"
    arguments = [sys.executable, "-m", "fewshot.train", *flags, "--out", str(cut)]
    lengths = []
    for _ in range(3):
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
        seen = (cut / "metrics.jsonl").stat().st_size if lengths else 0
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if (cut / "checkpoint.pt").exists() and (cut / "metrics.jsonl").stat().st_size > seen:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
        lengths.append((cut / "metrics.jsonl").stat().st_size)
        arguments = [sys.executable, "-m", "fewshot.train", "--out", str(cut), "--resume"]
    assert run("--out", cut, "--resume") == 0
    assert metrics(cut) == metrics(tmp_path / "whole")
    assert weights(cut) == weights(tmp_path / "whole")
    ours, theirs = final_state(cut), final_state(tmp_path / "whole")
    momentum = [state["momentum_buffer"] for state in ours["optimizer"]["state"].values()]
    expected = [state["momentum_buffer"] for state in theirs["optimizer"]["state"].values()]
    assert all((a == b).all() for a, b in zip(momentum, expected, strict=True))
    assert ours["progress"]["step"] == theirs["progress"]["step"] == 60
    first, second = (json.loads((f / "result.json").read_text())["results"] for f in (cut, tmp_path / "whole"))
    assert first == second


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_saves_the_checkpoint_and_exits_with_130(number, tmp_path, hears_hangup):
    out = tmp_path / "run"
    flags = [*SMALL, "--epochs", "50", "--episodes-per-epoch", "200", "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-m", "fewshot.train", *flags], stderr=subprocess.PIPE, text=True)
    while not (out / "metrics.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.05)
    assert run("--out", out, "--resume") == 2, "two processes in one folder"
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "checkpoint saved; go on with --out" in errors and len(errors.strip().splitlines()) == 1
    assert final_state(out)["progress"]["step"] >= 10


@pytest.mark.parametrize("after", [0.15, 0.4, 0.8])
def test_an_interrupt_while_modules_are_imported_is_quiet(after, tmp_path):
    flags = [*SMALL, "--epochs", "500", "--out", str(tmp_path / "run")]
    process = subprocess.Popen([sys.executable, "-m", "fewshot.train", *flags], stderr=subprocess.PIPE, text=True)
    time.sleep(after)  # by then the process handles its signals, or Python itself does
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors and process.returncode in (130, -signal.SIGTERM)


def test_resuming_a_finished_run_only_prints_its_table(small_run, capsys):
    before = {path.name: path.read_bytes() for path in small_run.iterdir()}
    assert run("--out", small_run, "--resume") == 0
    assert "5-way 1-shot" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in small_run.iterdir()} == before


def test_resuming_with_the_flags_that_it_began_with_is_fine(tmp_path):
    flags = [*SMALL, "--epochs", 0, "--test-shots", 1, 2, "--out", tmp_path / "run"]
    (tmp_path / "run").mkdir()  # as scripts do; it is empty
    assert run(*flags) == 0
    assert run(*flags, "--resume", "--recipe", "auto") == 0
    assert [row["shots"] for row in Run.open(tmp_path / "run").result["results"]] == [1, 2]


def test_without_out_the_same_command_twice_makes_two_folders(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEWSHOT_DATA", raising=False)
    flags = [flag for flag in SMALL if flag not in ("--dataset", "glyphs")]
    for _ in range(2):
        assert run(*flags, "--head", "proto", "--reg", "targetdrop") == 0
    folders = sorted(path.name for path in (tmp_path / "runs").iterdir())
    readable = "glyphs_conv4-channels=16_proto_targetdrop_1shot_seed0"
    assert len(folders) == 2 and all(name.startswith(readable) for name in folders)
    out = capsys.readouterr().out
    assert out.startswith("Data set: glyphs (embedded; mini-imagenet is not prepared under data).")
    assert "±" in out and "1.96 * std / sqrt(n)" in out


def test_training_and_testing_may_differ_in_ways_and_an_epoch_in_the_middle_of_a_step(tmp_path):
    """3 epochs of 5 episodes in steps of 2: 8 steps, validated after the 3rd, the 5th and the last."""
    flags = ["--ways", 8, "--test-ways", 6, "--epochs", 3, "--episodes-per-epoch", 5, "--val-shots", 2]
    assert run(*SMALL, *flags, "--out", tmp_path / "run") == 0
    validations = [row for row in metrics(tmp_path / "run") if "validation" in row]
    assert [row["step"] for row in validations] == [3, 5, 8]
    assert list(validations[0]["validation"]) == ["2shot", "1shot", "5shot"], "the first selects"
    assert [row["ways"] for row in Run.open(tmp_path / "run").result["results"]] == [6, 6]


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_trains_to_nearly_the_same_figures(tmp_path):
    for name, more in (("plain", []), ("compiled", ["--compile"])):
        assert run(*SMALL, *more, "--out", tmp_path / name) == 0
    plain, compiled = metrics(tmp_path / "plain"), metrics(tmp_path / "compiled")
    losses = [[row["loss"] for row in rows if "loss" in row] for rows in (plain, compiled)]
    assert losses[1][0] == pytest.approx(losses[0][0], rel=1e-5)
    assert losses[1] == pytest.approx(losses[0], rel=1e-2), "rounding grows from step to step"
    assert run("--out", tmp_path / "compiled", "--resume") == 0, "weights have the same names"


def test_compiling_without_a_compiler_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert run(*SMALL, "--compile", "--out", tmp_path / "run") == console.USER_ERROR
    assert "there is no no-such-compiler: install it, or leave --compile out" in one_line_error(capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_run_begun_from_another_folder_finds_its_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEWSHOT_DATA", raising=False)
    assert run(*SMALL, "--epochs", 0, "--data-root", "here", "--out", "run") == 0
    assert Run.open("run").config.data_root == str(tmp_path / "here")


def test_a_run_that_cannot_begin_leaves_no_folder(tmp_path, monkeypatch, capsys):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert run(*SMALL, "--out", tmp_path / "run") == console.USER_ERROR
    assert "the disk is full" in one_line_error(capsys)
    assert list(tmp_path.iterdir()) == []


def test_torn_and_missing_metrics_are_not_made_up(small_run, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st')
    assert list(metrics_file.read(path)) == [{"step": 1}]
    with pytest.raises(UserError, match="metrics.jsonl is cut: it lacks 84 bytes"):
        Log(path, 100)
    assert path.read_text() == '{"step": 1}\n{"st'


def test_separate_embedding_trains_too(tmp_path):
    assert run(*SMALL, "--embed", "separate", "--shots", 2, "--out", tmp_path / "run") == 0


@pytest.mark.parametrize(
    "flags, expected",
    [
        (["--reg", "targetdop"], "Did you mean 'targetdrop'?"),
        (["--reg", "targetdrop:rate=1"], "Valid: attention, block_size, drop_prob, reduction, ties"),
        (["--backbone", "conv5"], "Did you mean 'conv4'?"),
        (["--head", "protos"], "Did you mean 'proto'?"),
        (["--recipe", "glyph"], "Did you mean 'glyphs'?"),
        (["--reg", "dropout:drop_prob=1.2"], "drop_prob=1.2 is not within 0..1"),
        (["--reg", "dropblock@4:block_size=3"], "larger than the 2x2 map at site 4"),
        (["--reg", "camdrop", "--head", "matching"], "head Matching has no method `fit`, which camdrop"),
        (["--ways", "0"], "--ways 0: give at least 2"),
        (["--shots", "-1"], "--shots -1: give at least 1"),
        (["--ways", "1000"], "1000-way episodes need 1000 classes, and the train split has 337"),
        (["--test-ways", "95"], "95-way episodes need 95 classes, and the val split has 79"),
        (["--schedule", "steps", "--lr-epochs", "3", "2", "--lr-values", "1", "1"], "give rising numbers"),
        (["--schedule", "steps", "--lr-epochs", "3", "--lr-values", "nan"], "give positive numbers"),
        (["--lr-epochs", "1", "--lr-values", "0.1"], "--lr-epochs and --lr-values do nothing with --schedule cosine"),
        (["--schedule", "steps", "--lr-epochs", "1", "3", "--lr-values", "1", "2"], "--lr-epochs 3: training has"),
        (["--schedule", "steps", "--lr-epochs", "-1", "--lr-values", "1"], "--lr-epochs -1: training has the epochs 0"),
        (["--epochs", "0", "--head", "relation"], "head Relation has weights that must be trained"),
        (["--reg", "fewshot.heads.proto.Proto"], "is no regularizer"),
        (["--shots", "24"], "images a class"),
        (["--lr", "nan"], "--lr nan: give a positive number"),
        (["--epochs", "many"], "invalid int value: 'many'"),
        (["--no-such-flag"], "unrecognized arguments: --no-such-flag (see python -m fewshot.train --help)"),
        (["--heads=r2d2"], "unrecognized arguments: --heads=r2d2; did you mean --head? (see"),
        (["--shots", "1", "5"], "unrecognized arguments: 5; --shots takes one value (see"),
        (["--resume", "5"], "unrecognized arguments: 5 (see"),
        (["--device", "tpu"], "give auto, cpu, cuda or cuda:N"),
        (["--device", "cuda:99"], "CUDA devices; use --device cpu"),
        (["--dataset", "cub"], "is not prepared under"),
        (["--resume"], "--resume needs --out"),
    ],
)
def test_a_users_mistake_is_one_line_and_leaves_nothing(flags, expected, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [*SMALL, *flags] if "--resume" not in flags else flags
    assert run(*given) == console.USER_ERROR
    assert expected in one_line_error(capsys)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_needs_resume_and_resume_an_unchanged_run(small_run, tmp_path, capsys):
    before = weights(small_run)
    assert run(*SMALL, "--reg", "targetdrop", "--out", small_run) == console.USER_ERROR
    assert "exists; give --resume" in one_line_error(capsys)
    assert run(*SMALL, "--out", small_run) == console.USER_ERROR
    assert "began with --reg targetdrop, not none; give another --out" in one_line_error(capsys)
    assert run("--out", small_run, "--resume", "--lr", "0.5") == console.USER_ERROR
    assert "--lr 0.5 differs from 0.1" in one_line_error(capsys)
    (tmp_path / "notes").write_text("somebody's")
    assert run("--out", tmp_path, "--resume") == console.USER_ERROR
    assert "is not a run folder" in one_line_error(capsys)
    assert run(*SMALL, "--out", tmp_path) == console.USER_ERROR
    assert one_line_error(capsys).endswith(f"{tmp_path} exists, and is no run folder; give another --out")
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]
    assert weights(small_run) == before


def test_an_out_below_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert run(*SMALL, "--out", tmp_path / "file" / "run") == console.USER_ERROR
    assert "is a file, not a folder" in one_line_error(capsys)


def test_a_damaged_checkpoint_is_named(small_run, tmp_path, capsys):
    out = tmp_path / "run"
    out.mkdir()
    for name in ("config.json", "environment.json"):
        (out / name).write_bytes((small_run / name).read_bytes())
    (out / "checkpoint.pt").write_bytes((small_run / "checkpoint.pt").read_bytes()[:1000])
    assert run("--out", out, "--resume") == console.USER_ERROR
    assert "checkpoint.pt cannot be read" in one_line_error(capsys)


def test_a_full_disk_is_one_line_and_keeps_the_last_checkpoint(tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    original = os.fsync

    def full_with_the_first_checkpoint(handle):
        if (out / "checkpoint.pt").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        original(handle)

    monkeypatch.setattr(os, "fsync", full_with_the_first_checkpoint)
    flags = [*SMALL, "--episodes-per-epoch", "200", "--checkpoint-seconds", "0.001", "--out", out]
    assert run(*flags) == console.USER_ERROR
    assert "the disk is full" in one_line_error(capsys)
    assert 0 < final_state(out)["progress"]["step"] < 200
    assert not [path for path in out.iterdir() if path.name.startswith(".") and path.name != ".lock"]


def test_diverged_training_says_so(tmp_path, capsys):
    assert run(*SMALL, "--lr", "1e30", "--out", tmp_path / "run") == console.USER_ERROR
    assert "lower --lr" in one_line_error(capsys)


def test_help_answers_without_torch():
    done = command("train", "--help")
    assert done.returncode == 0 and [name for name in configs.FIELDS if configs.flag(name) not in done.stdout] == []
    probe = "import sys; import fewshot.train as t; t.parser(); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", probe]).returncode == 0


def test_commit_is_recorded_from_a_checkout():
    commit = runs.environment()["commit"]
    assert commit is None or len(commit.removesuffix("-dirty")) == 12


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_commit_with_uncommitted_changes_is_recorded_as_such(tmp_path, monkeypatch):
    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    package = tmp_path / "fewshot"
    package.mkdir()
    (package / "a.py").write_text("a = 1\n")
    for words in (["init"], ["add", "."], ["commit", "-m", "one"], ["tag", "-a", "v1", "-m", "one"]):
        git(*words)
    monkeypatch.setattr("fewshot.runs.provenance.PACKAGE", package)
    commit = runs.environment()["commit"]
    assert len(commit) == 12 and set(commit) <= set("0123456789abcdef"), "no tag's name"
    (package / "a.py").write_text("a = 22\n")
    assert runs.environment()["commit"] == f"{commit}-dirty"
