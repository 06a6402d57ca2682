"""Runs that are damaged, swapped, cut, moved to another machine or out of room: one line says so; nothing is lost."""

from __future__ import annotations

import dataclasses
import errno
import functools
import json
import os
import resource
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from boards import edit, variant
from commands import ROOT, command, one_line_error
from torture_cases import kills

import fewshot
from fewshot import compare, evaluate, experiment, leaderboard, train
from fewshot.core import compute, console, files, sealed
from fewshot.core.compute import Compute
from fewshot.core.crew import ALONE
from fewshot.core.errors import UserError
from fewshot.heads.proto import Proto
from fewshot.learning import checkpoint, resuming
from fewshot.learning.regimes import Validation
from fewshot.learning.regimes.episodic import Episodic
from fewshot.learning.regimes.supervised import Supervised
from fewshot.learning.reporter import SILENT, Reporter
from fewshot.reports import pictures
from fewshot.reports.comparisons.entries import Finished
from fewshot.runs import Run
from fewshot.runs import folder as folders

TESTED = ["--ways", "3", "--queries", "2", "--shots", "1", "--episodes", "20", "--threads", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A data root with a tiny data set."""
    kills.tiny(root := tmp_path_factory.mktemp("tiny"))
    return root


@pytest.fixture(scope="module")
def settled(data):
    """The configuration of a run of 21 steps, three validations and three checkpoints in half a second."""
    return kills.config("dropblock", data, 0)


@pytest.fixture(scope="module")
def whole(settled, tmp_path_factory) -> Path:
    """The folder of an undisturbed run."""
    return experiment.run(settled, tmp_path_factory.mktemp("whole") / "run").folder


class Cut(Exception):
    pass


class Cutting(Reporter):
    """Stops at the second validation, or calls `action` there."""

    def __init__(self, action=None) -> None:
        self.action, self.validations, self.said = action, 0, []

    def say(self, text):
        self.said.append(text)

    def validation(self, *_):
        self.validations += 1
        if self.validations == 2:
            if self.action is None:
                raise Cut
            self.action()


def cut(settled, folder: Path, resume: bool = False) -> Run:
    with pytest.raises(Cut):
        experiment.run(settled, folder, Cutting(), resume=resume)
    return Run.open(folder)


def load(folder):
    return fewshot.load(folder, device="cpu")


def curves(folder):
    return pictures.read_curves(Run.open(folder))


def compared(folder):
    return Finished.load(str(folder))


@pytest.mark.parametrize(
    "names, reader, said",
    [
        (["result.json"], compared, "result.json is not of this run"),
        (["environment.json"], compared, "environment.json is not of this run"),
        (["config.json"], compared, "is not of this run: it names another config.json"),
        (["config.json", "environment.json"], compared, "result.json is not of this run"),
        (["episodes-glyphs-test-5w1s15q.npy"], compared, "episodes-glyphs-test-5w1s15q.npy is damaged, or another"),
        (["tasks-glyphs-test-5w5s15q.npz"], compared, "tasks-glyphs-test-5w5s15q.npz is damaged, or another run's"),
        (["result.json", "episodes-glyphs-test-5w1s15q.npy"], compared, "result.json is not of this run"),
        (["best.safetensors"], load, "best.safetensors is damaged, or another run's"),
        (["best.safetensors", "environment.json"], load, "environment.json is not of this run"),
        (["metrics.jsonl"], curves, "metrics.jsonl is damaged"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_files_of_another_run_are_refused_by_name(small_run, tmp_path, names, reader, said):
    ours, other = shutil.copytree(small_run, tmp_path / "ours"), variant(small_run, tmp_path / "b", seed=1, gain=0.01)
    with open(other / "best.safetensors", "r+b") as file:  # as if from a training with another seed
        file.seek(-4, os.SEEK_END)
        file.write(b"abcd")
    (other / "metrics.jsonl").write_text((other / "metrics.jsonl").read_text().replace('"lr": 0.1', '"lr": 0.2'))
    tasks = other / "tasks-glyphs-test-5w5s15q.npz"
    np.savez(tasks, **{name: array[::-1] for name, array in np.load(tasks).items()})
    edit(other / "config.json", lambda value: value)
    reader(ours), reader(other)  # both are whole
    for name in names:
        assert (other / name).read_bytes() != (ours / name).read_bytes()
        shutil.copy(other / name, ours / name)
    with pytest.raises(UserError, match=said):
        reader(ours)


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda run, old: run.checkpoint_path.write_bytes((old / "checkpoint.pt").read_bytes()), "it is another run's"),
        (lambda run, old: run.best_path.unlink(), "best.safetensors is missing"),
        (lambda run, old: shutil.copy(old / "best.safetensors", run.best_path), "best.safetensors is damaged, or"),
        (lambda run, old: run.metrics_path.unlink(), "metrics.jsonl is missing"),
        (lambda run, old: os.truncate(run.metrics_path, 100), "metrics.jsonl is cut: it lacks"),
        (lambda run, old: shutil.copy(old / "metrics.jsonl", run.metrics_path), "metrics.jsonl is damaged"),
    ],
)
def test_a_run_goes_on_with_its_own_files_only(settled, whole, tmp_path, spoil, said):
    run = cut(dataclasses.replace(settled, seed=5), tmp_path / "run")
    spoil(run, whole)
    with pytest.raises(UserError, match=said):
        experiment.run(run.config, run.folder, resume=True)


def test_older_runs_without_digests_are_read(tmp_path):
    old = shutil.copytree(ROOT / "results" / "glyphs-methods" / "conv4-cutout", tmp_path / "old")
    assert not Run.open(old).sealed and Run.open(old).finished and compared(old).results and curves(old).losses
    (old / "result.json").write_bytes((old / "result.json").read_bytes())
    Run.open(old).note_environment(more=1)  # what is written from now on is sealed
    assert Run.open(old).finished
    (old / "environment.json").write_bytes((old / "environment.json").read_bytes().replace(b"fp32", b"bf16"))
    with pytest.raises(UserError, match="environment.json is damaged: it is not what was written"):
        _ = Run.open(old).environment


def test_torture_in_short(tmp_path):
    """Six kills and fifty damages; scripts/torture.py does thousands."""
    flags = ["--kills", "6", "--damages", "50", "--out", str(tmp_path)]
    arguments = [sys.executable, str(ROOT / "scripts" / "torture.py"), *flags]
    done = subprocess.run(arguments, capture_output=True, text=True, env=os.environ | {"FEWSHOT_DATA": "/nowhere"})
    assert done.returncode == 0, done.stderr
    counted = json.loads((tmp_path / "torture.json").read_text())
    assert counted["examples"] == []
    assert counted["kills"] >= 6 and counted["refused"] >= 50 and counted["left"] == 0


def test_an_evaluation_counts_from_one_moment_on(small_run, tmp_path, monkeypatch):
    """If it is killed at any step before result.json is renamed, the old rows and the old records are still there."""
    before, steps = Run.open(small_run).rows, []
    replace = os.replace

    def stop(last, source, target, *more):
        steps.append(Path(target).name)
        if len(steps) == last:
            raise Cut
        replace(source, target, *more)

    for last in (1, 2, 3, 4, 5):
        steps.clear()
        folder = shutil.copytree(small_run, tmp_path / f"run{last}")
        monkeypatch.setattr(os, "replace", functools.partial(stop, last))
        flags = ["--shots", "1", "5", "--episodes", "50", "--head", "r2d2", "--replace", "--threads", "1"]
        with pytest.raises(Cut):
            console.run(evaluate.main, [str(folder), *flags])
        assert Run.open(folder).rows == before and compared(folder).results
    assert steps[-1] == "result.json"


def test_an_interrupt_just_behind_a_rename_leaves_the_file_and_no_traceback(tmp_path, monkeypatch):
    replace = os.replace

    def then_interrupt(*paths):
        replace(*paths)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", then_interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        files.write_atomic(tmp_path / "a", b"new")
    assert caught.value.__context__ is None and (tmp_path / "a").read_bytes() == b"new"


def test_what_killed_processes_left_is_swept_and_nothing_else(small_run, tmp_path):
    folder = shutil.copytree(small_run, tmp_path / "run")
    ours = ["..best-before.safetensors-abcdefgh", ".steps-6-10.json"]
    ours += [".checkpoint.pt-ab_cd123", ".result.json-abcdefgh", ".episodes-glyphs-test-5w1s15q.npy-abcd1234"]
    theirs = [".notes", ".result.json-old", "result.json-abcdefgh", "episodes-mine.npy"]
    for name in [*ours, *theirs]:
        (folder / name).write_text("x")
    with Run.open(folder).lock():
        pass
    assert not any((folder / name).exists() for name in ours) and all((folder / name).exists() for name in theirs)
    for name in (last := (".lock", ".result.json-abcdefgh")):  # left by a process killed when all was done
        (folder / name).write_text("x")
    assert console.run(train.main, ["--out", str(folder), "--resume"]) == 0
    assert not any((folder / name).exists() for name in last) and all((folder / name).exists() for name in theirs)
    for name in (".new-abandoned", ".new-other"):
        (tmp_path / name).mkdir()
    (tmp_path / ".new-abandoned" / ".lock").write_text("")
    files.clear_abandoned(tmp_path, ".lock")
    assert [path.name for path in tmp_path.glob(".new-*")] == [".new-other"]


def test_the_best_of_the_checkpoint_comes_back_where_newer_ones_do_not_come_again(settled, tmp_path, monkeypatch):
    """As on a GPU, where a resumed run has other bits: the newer best of a killed run may never be found again."""
    selected = iter([0.5, 0.6, 0.4, 0.3, 0.2, 0.1])

    def validate(self, model):
        return Validation(found := next(selected), {"1shot": found})

    monkeypatch.setattr(Episodic, "validate", validate)
    run = cut(settled, tmp_path / "run")  # at the second, whose weights are the best, and in no checkpoint yet
    newer = run.best_path.read_bytes()
    assert run.spare_path.exists() and run.spare_path.read_bytes() != newer
    older = run.spare_path.read_bytes()
    run.note_environment(weights_sha256=["0" * 64, sealed.sha256(newer)])  # as after a third best, were it this one
    cut(settled, tmp_path / "run", resume=True)
    assert run.best_path.read_bytes() == older and run.weights() == older, "while it is not yet finished, too"
    finished = experiment.run(settled, tmp_path / "run", resume=True)
    assert finished.best_path.read_bytes() == older and finished.weights() == older
    assert finished.finished and finished.environment["best_step"] < finished.steps
    assert not finished.spare_path.exists()


def test_what_is_being_made_is_not_taken_for_abandoned(tmp_path):
    """A folder whose lock is gone is about to be renamed: no new lock is made in it in order to remove it."""
    (tmp_path / ".new-ready").mkdir()
    (tmp_path / ".new-ready" / ".lock").write_text("")
    opened = os.open

    def vanishing(path, *rest):
        Path(path).unlink()  # found, and then given up by its process
        return opened(path, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", vanishing)
        files.clear_abandoned(tmp_path, ".lock")
    assert (tmp_path / ".new-ready").is_dir() and not (tmp_path / ".new-ready" / ".lock").exists()


@pytest.mark.parametrize(
    "before, here, said, after",
    [
        ({"precision": "bf16"}, "auto", "last trained in bf16, and here it would go on in", {"precision": "bf16+fp32"}),
        ({"threads": 4096}, 0, "was last trained with 4096 threads, and this machine has", {"threads": None}),
        ({"device": "NVIDIA H100"}, "auto", "last trained on NVIDIA H100, here it would go on", {"device": None}),
    ],
)
def test_going_on_elsewhere_needs_a_word_and_is_recorded(
    settled, tmp_path, monkeypatch, capsys, before, here, said, after
):
    monkeypatch.setattr(compute, "_native_bf16", lambda device: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = dataclasses.replace(settled, **dict.fromkeys(("device", "precision"), "auto"), threads=0)
    run = cut(config, tmp_path / "run")
    edit(run.folder / "environment.json", lambda facts: facts["sittings"][0].update(before))
    again = ["--out", str(run.folder), "--resume"]
    assert console.run(train.main, again) == console.USER_ERROR
    assert said in (error := one_line_error(capsys)) and "--elsewhere" in error
    assert console.run(train.main, [*again, "--elsewhere"]) == 0
    assert "goes on with" in capsys.readouterr().out
    first, second = run.sittings
    assert first.items() >= before.items() and not second.items() >= before.items()
    assert all(value in (None, run.environment[name]) for name, value in after.items())


def test_going_on_under_another_torch_is_said_and_recorded(settled, tmp_path, capsys):
    run = cut(settled, tmp_path / "run")
    assert "torch" not in run.sittings[0]  # it is that of `versions`
    edit(run.folder / "environment.json", lambda facts: facts["versions"].update(torch="2.0.0"))
    assert console.run(train.main, ["--out", str(run.folder), "--resume"]) == 0
    now = metadata.version("torch")
    said = f"Warning: {run.folder} goes on with torch {now}, after 2.0.0: the run records it."
    assert said in capsys.readouterr().out
    first, second = run.sittings
    assert second == first | {"torch": now} and run.environment["versions"]["torch"] == "2.0.0"


def test_going_on_takes_the_device_and_threads_that_are_given(settled, whole, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:  # as if the CPU were a machine's two GPUs
        patch.setattr(compute, "_device", lambda name: torch.device("cpu"))
        run = cut(dataclasses.replace(settled, device="cuda:1"), tmp_path / "run")
    again = ["--out", str(run.folder), "--resume"]
    assert console.run(train.main, again) == console.USER_ERROR
    assert "--device cuda:1: this machine shows 0 CUDA devices; use --device cpu" in one_line_error(capsys)
    assert console.run(train.main, [*again, "--precision", "bf16"]) == console.USER_ERROR
    assert "--precision bf16 differs from fp32, with which" in (error := one_line_error(capsys))
    assert "add --elsewhere" in error
    moved = shutil.copytree(run.folder, tmp_path / "moved")
    assert console.run(train.main, [*again, "--device", "cpu", "--checkpoint-seconds", "9"]) == 0
    assert len(run.sittings) == 1 and run.best_path.read_bytes() == (whole / "best.safetensors").read_bytes()
    capsys.readouterr()
    flags = ["--elsewhere", "--device", "cpu", "--precision", "bf16", "--threads", "2"]
    try:
        assert console.run(train.main, ["--out", str(moved), "--resume", *flags]) == 0
    finally:
        torch.set_num_threads(1)
    said = capsys.readouterr().out
    assert "goes on with precision bf16, after fp32" in said and "goes on with threads 2, after 1" in said
    assert Run.open(moved).environment["precision"] == "fp32+bf16" and Run.open(moved).config.device == "cuda:1"


def test_threads_decide_nothing_on_a_gpu(whole, monkeypatch):
    last = {"device": "NVIDIA H100", "precision": "fp32", "threads": 4096}
    gpu = Compute(torch.device("cuda", 0), "fp32")
    monkeypatch.setattr(resuming, "choose", lambda *_: gpu)
    begun = resuming.Begun(Run.open(whole), finished=False, fresh=False, sitting=last)
    config = dataclasses.replace(begun.run.config, device="cuda", threads=0)
    assert resuming.where(config, begun, ALONE) == (gpu, 0)


def test_the_same_command_goes_on_with_what_it_named(settled, data, tmp_path, monkeypatch):
    (tmp_path / "tiny_sets.py").write_text("from fewshot.data import DatasetSpec\nTINY = DatasetSpec('tiny')\n")
    monkeypatch.syspath_prepend(tmp_path)
    kept = {name: value for name, value in kills.SHORT.items() if name not in ("dataset", "test_shots", "epochs")}
    flags = [word for name, value in kept.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    flags += ["--epochs", "0", "--test-shots", "1", "--data-root", str(data), "--out", str(tmp_path / "run")]
    for _ in range(2):
        command = ["--dataset", "tiny_sets.TINY", "--recipe", "auto", *flags, "--resume"]
        assert console.run(train.main, command) == 0
    assert Run.open(tmp_path / "run").config.dataset == "tiny"
    assert console.run(train.main, ["--dataset", "auto", *flags, "--resume"]) == 0


def test_a_run_begins_with_the_weights_that_it_names(settled, whole, tmp_path, monkeypatch, capsys):
    """The weights of --init are read once, and must still be the same if the run goes on without a checkpoint."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole, "first")
    config = fewshot.configure(**vars(settled) | {"init": "first"})
    assert config.init == str(tmp_path / "first")

    class Stopping(Reporter):
        def begin(self, *_):
            raise Cut

    with pytest.raises(Cut):
        experiment.run(config, "run", Stopping())
    run = Run.open("run")
    assert run.resolved["init"]["weights"] == files.file_digest(whole / "best.safetensors")
    other = experiment.run(dataclasses.replace(settled, epochs=0, seed=1), "other").folder
    shutil.rmtree("first")
    shutil.copytree(other, "first")
    again = ["--out", "run", "--resume", "--init", "first"]
    assert console.run(train.main, again) == console.USER_ERROR
    expected = f"--init {tmp_path / 'first'}: it has other weights now than when run began"
    assert expected in one_line_error(capsys)
    shutil.rmtree("first")
    shutil.copytree(whole, "first")
    assert console.run(train.main, again) == 0 and run.finished


@pytest.mark.parametrize(
    "where, limit, name",
    [(checkpoint, "_LARGEST", "checkpoint.pt"), (folders, "_LARGEST_WEIGHTS", "best.safetensors")],
)
def test_what_could_not_be_read_again_is_not_written(where, limit, name, settled, tmp_path, monkeypatch):
    monkeypatch.setattr(where, limit, 1000)
    with pytest.raises(UserError, match=rf"{name} would have [\d,]+ bytes, and at most 1,000 are read"):
        experiment.run(settled, tmp_path / "run")
    assert not list((tmp_path / "run").glob(f"*{name}*"))


def test_what_auto_came_to_it_comes_to_again(settled, whole, tmp_path, monkeypatch):
    """Begun in fp32 with one thread; resumed where `auto` would be bf16 and two threads."""
    config = dataclasses.replace(settled, **dict.fromkeys(("device", "precision"), "auto"), threads=0)
    monkeypatch.setattr(compute, "_native_bf16", lambda device: False)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        run = cut(config, tmp_path / "run")
        monkeypatch.setattr(compute, "_native_bf16", lambda device: True)
        torch.set_num_threads(2)
        experiment.run(config, run.folder, resume=True)
    finally:
        torch.set_num_threads(threads)
    assert len(run.sittings) == 1 and run.best_path.read_bytes() == (whole / "best.safetensors").read_bytes()


def test_a_trained_run_is_tested_even_where_it_was_evaluated(small_run, tmp_path):
    folder = shutil.copytree(small_run, tmp_path / "run")
    expected = [row["episodes_sha256"] for row in Run.open(folder).rows]
    (folder / "result.json").unlink()
    assert not Run.open(folder).finished
    flags = ["--shots", "1", "--episodes", "20", "--threads", "1"]
    assert console.run(evaluate.main, [str(folder), *flags]) == 0
    assert not Run.open(folder).finished, "that was not the configured test"
    assert console.run(train.main, ["--out", str(folder), "--resume"]) == 0
    run = Run.open(folder)
    tested = [row["episodes_sha256"] for row in run.rows if row["episodes"] == 50]
    assert run.finished and tested == expected and len(run.rows) == 3
    assert console.run(evaluate.main, [str(folder), *flags]) == 0 and run.finished


def test_a_run_that_diverges_stops_and_keeps_its_last_good_weights(settled, whole, tmp_path, monkeypatch):
    loss = Episodic.loss

    def poisoned(regime, model, batch):
        model.backbone.blocks[0].norm.running_var[0] = float("inf")  # weights and loss stay finite
        return loss(regime, model, batch)

    def poison():
        monkeypatch.setattr(Episodic, "loss", poisoned)

    with pytest.raises(UserError) as caught:
        experiment.run(settled, tmp_path / "run", Cutting(poison))
    assert "running_var is no longer finite before step 21, at the learning rate" in str(caught.value)
    step = Run.open(tmp_path / "run").environment["best_step"]
    assert f"the best weights are kept, of step {step}" in str(caught.value)
    assert all(tensor.isfinite().all() for tensor in load(tmp_path / "run").state_dict().values())
    assert not Run.open(tmp_path / "run").trained


def test_chance_is_said_and_marked(small_run, tmp_path, capsys):
    folder = variant(small_run, tmp_path / "runs" / "a", gain=-0.5)
    edit(folder / "result.json", lambda result: [row.update(at_chance=True) for row in result["results"]])
    assert console.run(train.main, ["--out", str(folder), "--resume"]) == 0
    assert "at chance, no better than guessing: 5-way 1-shot, 5-way 5-shot" in capsys.readouterr().out
    board = ["--runs", str(tmp_path / "runs"), "--csv", str(tmp_path / "b.csv"), "--markdown", str(tmp_path / "b.md")]
    assert console.run(leaderboard.main, board) == 0
    assert (tmp_path / "b.md").read_text().count("at chance") == 2
    assert "at_chance" not in Run.open(small_run).rows[0]


class Blind(Proto):
    """Sees nothing."""

    def solve(self, support, targets, query):
        return 0 * super().solve(support, targets, query)


def test_a_head_that_guesses_is_marked(small_run, tmp_path, capsys):
    folder = shutil.copytree(small_run, tmp_path / "run")
    flags = ["--shots", "1", "--episodes", "20", "--threads", "1", "--head", f"{__name__}.Blind"]
    assert console.run(evaluate.main, [str(folder), *flags]) == 0
    assert Run.open(folder).rows[-1]["at_chance"] is True and "at chance" in capsys.readouterr().out


@pytest.mark.parametrize("most", [2_000, 100_000, 500_000], ids=["metrics", "weights", "checkpoint"])
def test_a_limit_on_files_is_one_line_and_the_run_goes_on_to_the_same_bits(settled, whole, tmp_path, capsys, most):
    """EFBIG, as with `ulimit -f`."""
    flags = ["--out", str(tmp_path / "run"), "--resume"]
    run = Run.create(settled, tmp_path / "run", json.loads((whole / "config.json").read_text())["resolved"])
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, usual[1]))
    try:
        assert console.run(train.main, flags) == console.USER_ERROR
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert "larger than this process may write (ulimit -f)" in one_line_error(capsys)
    assert console.run(train.main, flags) == 0
    assert kills.digest(run.folder) == kills.digest(whole) and kills.left_behind(run.folder) == []


@pytest.mark.parametrize(
    "name, error",
    [("checkpoint.pt", errno.ENOSPC), ("best.safetensors", errno.ENOSPC), ("environment.json", errno.ENOSPC),
     ("result.json", errno.ENOSPC), (".npy", errno.ENOSPC), ("checkpoint.pt", errno.EROFS)],
)  # fmt: skip
def test_a_disk_that_refuses_is_one_line_and_nothing_is_lost(
    settled, whole, tmp_path, capsys, monkeypatch, name, error
):
    make = files.tempfile.mkstemp
    folder, refused = shutil.copytree(whole, tmp_path / "run"), []
    for each in ("result.json", "checkpoint.pt"):
        (folder / each).unlink()

    def full(prefix, dir):
        if name in prefix:
            refused.append(prefix)
            raise OSError(error, os.strerror(error), f"{dir}/{prefix}")
        return make(prefix=prefix, dir=dir)

    edit(folder / "environment.json", lambda facts: facts.pop("train_seconds"))
    for path in folder.glob("episodes-*"):
        path.unlink()
    flags = ["--out", str(folder), "--resume"]
    with monkeypatch.context() as patch:
        patch.setattr(files.tempfile, "mkstemp", full)
        assert console.run(train.main, flags) == console.USER_ERROR
    assert refused and name in one_line_error(capsys)
    assert console.run(train.main, flags) == 0
    assert kills.digest(folder) == kills.digest(whole)


def test_a_leaderboard_that_cannot_be_written_keeps_the_old_one(small_run, tmp_path, capsys):
    board = ["--runs", str(small_run.parent), "--csv", str(tmp_path / "b.csv")]
    assert console.run(leaderboard.main, board) == 0
    before = (tmp_path / "b.csv").read_bytes()
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, usual[1]))
    capsys.readouterr()
    try:
        assert console.run(leaderboard.main, board) == console.USER_ERROR
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert "ulimit -f" in one_line_error(capsys) and (tmp_path / "b.csv").read_bytes() == before


def test_weights_that_may_not_be_read_are_not_called_damaged(small_run, monkeypatch):
    opened = os.open

    def refuse(path, *more):
        if str(path).endswith(".safetensors"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *more)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match="best.safetensors cannot be read: permission denied"):
        load(small_run)


def test_images_that_change_under_a_training_stop_it_before_the_next_checkpoint(settled, whole, tmp_path):
    shutil.copytree(settled.data_root, tmp_path / "data")
    config = dataclasses.replace(settled, data_root=str(tmp_path / "data"))
    images = tmp_path / "data" / "tiny" / "train.npy"
    before = images.read_bytes()

    def change():
        with open(images, "r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\0" if before[-1] else b"\1")

    with pytest.raises(UserError, match="train.npy has changed while it was trained on"):
        experiment.run(config, tmp_path / "run", Cutting(change))
    with pytest.raises(UserError, match="train.npy was changed since it was prepared"):
        experiment.run(config, tmp_path / "run", resume=True)
    images.write_bytes(before)
    experiment.run(config, tmp_path / "run", resume=True)
    assert kills.digest(tmp_path / "run") == kills.digest(whole)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), MemoryError(),
     RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
                  " to allocate 9 bytes. Error code 12 (Cannot allocate memory)")],
    ids=["device", "python", "torch on a cpu"],
)  # fmt: skip
@pytest.mark.parametrize(
    "regime, knob",
    [(Episodic, "fewer --episodes-per-batch, --shots or --queries"), (Supervised, "a smaller batch, as in --regime")],
)
def test_too_little_memory_names_the_knob(settled, tmp_path, monkeypatch, error, regime, knob):
    def refuse(*_):
        raise error

    monkeypatch.setattr(regime, "loss", refuse)
    reason = "CUDA out of memory|out of memory|can't allocate memory: you tried to allocate 9 bytes"
    with pytest.raises(UserError, match=rf"not enough memory \(({reason})\): try {knob}"):
        experiment.run(dataclasses.replace(settled, regime=regime.__name__.lower()), tmp_path / "run", SILENT)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written_ends_no_command(unbuffered):
    """If standard output is on a full device, one line says so; `| head` is no error."""
    env = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        arguments = [sys.executable, "-m", "fewshot", "list"]
        done = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True, env=env)
    assert done.returncode == console.FAILED
    assert done.stderr.splitlines() == [
        "error: standard output could not be written (No space left on device): it is not complete"
    ]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(arguments, stdout=write, stderr=subprocess.PIPE, text=True, env=env)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["train", "evaluate", "compare", "leaderboard", "show", "prepare", "list", "describe"])
def test_commands_work_without_docstrings(name):
    done = command(name, "--help", env=os.environ | {"PYTHONOPTIMIZE": "2"})
    assert done.returncode == 0 and "usage" in done.stdout, done.stderr


def test_a_csv_of_many_seeds_is_read_again(small_run, tmp_path, capsys):
    """each_run of 600 seeds is longer than the 131,072 characters that the csv module allows."""
    from fewshot.reports.boards import as_csv
    from fewshot.reports.boards.gathering import gather
    from fewshot.reports.boards.leaderboard import aggregate
    from fewshot.reports.boards.of_tasks import FEWSHOT
    from fewshot.reports.boards.ranking import rank

    (score, *_), _ = gather(small_run.parent)
    seeds = [dataclasses.replace(score, own=score.own | {"seed": n, "run": f"run{n}"}) for n in range(600)]
    rows = rank(aggregate(seeds), paired=False)
    (tmp_path / "b.csv").write_bytes(as_csv.render(FEWSHOT, rows).encode())
    assert len(rows[0]["each_run"]) > 131_072
    assert [each.own["seed"] for each in as_csv.read(FEWSHOT, tmp_path / "b.csv")] == list(range(600))


def test_one_run_cannot_be_compared_with_a_damaged_copy_in_silence(small_run, tmp_path, capsys):
    other = variant(small_run, tmp_path / "b", reg="none")
    text = (other / "result.json").read_text()
    (other / "result.json").write_text(text.replace('"accuracy": 0.', '"accuracy": 1.'))
    assert console.run(compare.main, [str(small_run), str(other)]) == console.USER_ERROR
    assert "result.json is damaged: it is not what was written" in one_line_error(capsys)


def test_a_run_begun_anew_is_not_called_trained(whole, tmp_path, monkeypatch, capsys):
    """Its checkpoint is gone, and so is its result: it is trained again from step 0, and says so."""
    told: list[str] = []
    monkeypatch.setattr(Cutting, "say", lambda self, text: told.append(text))
    folder = shutil.copytree(whole, tmp_path / "run")
    for name in ("result.json", "checkpoint.pt"):
        (folder / name).unlink()
    run = cut(Run.open(folder).config, folder, resume=True)
    assert not run.trained and list(run.metrics())
    assert f"Warning: {folder} has no checkpoint: it is trained again, from step 0." in told
    assert console.run(evaluate.main, [str(folder), *TESTED]) == console.USER_ERROR
    assert "has not finished training" in one_line_error(capsys)


def test_a_run_goes_on_with_every_processor_that_there_is(whole):
    every = max(torch.get_num_threads(), os.cpu_count() or 1)
    last = {"device": "CPU of ours", "precision": "fp32", "threads": every}
    begun = resuming.Begun(Run.open(whole), finished=False, fresh=False, sitting=last)
    where, threads = resuming.where(dataclasses.replace(begun.run.config, threads=0), begun, ALONE)
    assert (where.device.type, threads) == ("cpu", every)


def test_a_run_of_a_processor_stays_there_where_auto_would_be_a_gpu(whole, monkeypatch):
    def choose(name, precision, crew):
        return Compute(torch.device("cuda", 0) if name == "auto" else torch.device(name), "fp32")

    monkeypatch.setattr(resuming, "choose", choose)
    last = {"device": "CPU of ours", "precision": "fp32", "threads": 1}
    begun = resuming.Begun(Run.open(whole), finished=False, fresh=False, sitting=last)
    config = dataclasses.replace(begun.run.config, device="auto", threads=0)
    assert resuming.where(config, begun, ALONE)[0].device.type == "cpu"


def test_what_went_on_in_bf16_goes_on_in_bf16(whole, monkeypatch):
    """Begun in fp32, as its configuration says, and last resumed in bf16 with --elsewhere."""
    last = {"device": "CPU of ours", "precision": "bf16", "threads": 1}
    begun = resuming.Begun(Run.open(whole), finished=False, fresh=False, sitting=last)
    config = dataclasses.replace(begun.run.config, precision="fp32")
    monkeypatch.setattr(compute, "_native_bf16", lambda device: True)
    assert resuming.where(config, begun, ALONE)[0].precision == "bf16"
    monkeypatch.setattr(compute, "_native_bf16", lambda device: False)
    with pytest.raises(UserError, match="was last trained in bf16, and here it would go on in fp32"):
        resuming.where(config, begun, ALONE)


def test_a_run_goes_on_with_the_data_where_the_variable_says(settled, tmp_path, monkeypatch):
    shutil.copytree(settled.data_root, tmp_path / "data")
    cut(dataclasses.replace(settled, data_root=str(tmp_path / "data")), tmp_path / "run")
    (tmp_path / "data").rename(tmp_path / "moved")
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path / "moved"))
    assert console.run(train.main, ["--out", str(tmp_path / "run"), "--resume"]) == 0


def test_a_training_that_could_not_keep_its_test_does_not_begin(whole, tmp_path):
    """Tested by hand, its checkpoint lost: trained again, it would have other weights than those results are of."""
    run = Run.open(shutil.copytree(whole, tmp_path / "run"))
    edit(run.result_path, lambda facts: facts.update(tested=False))
    run.checkpoint_path.unlink()
    with pytest.raises(UserError, match="result.json is of weights that training again replaces: move it away"):
        experiment.run(run.config, run.folder, SILENT, resume=True)
    run.result_path.rename(tmp_path / "result.json")
    assert experiment.run(run.config, run.folder, SILENT, resume=True).finished


def test_a_reporter_that_is_stopped_as_it_begins_is_told_the_end(settled, tmp_path):
    """It may have hidden the cursor by then; and what it takes until then is not training."""
    ended = []

    class Waiting(Reporter):
        def begin(self, *_):
            raise KeyboardInterrupt

        def end(self):
            ended.append(True)

    with pytest.raises(KeyboardInterrupt, match="go on with"):
        experiment.run(settled, tmp_path / "run", Waiting())
    assert ended


def test_a_run_does_not_go_on_with_images_of_another_making(settled, tmp_path, monkeypatch):
    """Prepared again, and undamaged: only the fingerprint shows that the images are others."""
    shutil.copytree(settled.data_root, tmp_path / "data")
    config = dataclasses.replace(settled, data_root=str(tmp_path / "data"))
    cut(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "data" / "tiny")
    monkeypatch.setattr(kills, "IMAGES", kills.IMAGES + 1)
    kills.tiny(tmp_path / "data")
    with pytest.raises(UserError, match="tiny has other pixels now than when .* began; restore that copy"):
        experiment.run(config, tmp_path / "run", resume=True)
