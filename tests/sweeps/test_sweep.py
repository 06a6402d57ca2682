"""fewshot sweep: the same bits as one run after the other, whatever dies or is started twice; grids; executors."""

from __future__ import annotations

import csv
import dataclasses
import os
import re
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from boards import edit, variant
from commands import NETWORK, SMALL, command, one_line_error
from inline import Inline

from fewshot import evaluate, experiment, sweep
from fewshot.core import console
from fewshot.core.errors import UserError
from fewshot.runs import Run
from fewshot.sweeps import executors, grid, launch
from fewshot.sweeps.conduct import conduct
from fewshot.sweeps.executors import Local
from fewshot.sweeps.folder import Sweep
from fewshot.sweeps.runs import complete
from fewshot.sweeps.worker import TAKEN, work

FLAGS = {
    "dataset": "glyphs", "backbone": NETWORK, "epochs": 2, "episodes_per_epoch": 20, "episodes_per_batch": 2,
    "val_episodes": 20, "test_episodes": 50, "threads": 1, "device": "cpu", "precision": "fp32",
    "checkpoint_seconds": 0.01,
}  # fmt: skip


NAME = "dropblock-seed0"


def digests(folder: Path) -> list:
    """The outcome of a run: its weights, and each episode's accuracy."""
    weights = torch.load(folder / "checkpoint.pt", weights_only=True)["model"]
    records = [path.read_bytes() for path in sorted(folder.glob("episodes-*.npy"))]
    return [*(tensor.numpy().tobytes() for tensor in weights.values()), *records]


@pytest.fixture(scope="module")
def plan():
    return grid.points(FLAGS, {"reg": ["dropblock"]}, None)


@pytest.fixture(scope="module")
def undisturbed(plan, tmp_path_factory):
    """The outcome of the plan's run in this process."""
    return digests(experiment.run(plan[NAME], tmp_path_factory.mktemp("undisturbed") / NAME).folder)


class Killer:
    """Kills a run's process without warning, once, after some steps."""

    def __init__(self, sweep: Sweep, find) -> None:
        self.sweep, self.find, self.killed = sweep, find, ""

    def __call__(self, running: set[str], failed: dict[str, str]) -> None:
        for name in sorted(running):
            if not self.killed and self.sweep.step(name) >= 10 and (pid := self.find(name)):
                os.kill(pid, signal.SIGKILL)
                self.killed = name


def test_a_killed_process_changes_no_bit_and_done_runs_are_left_alone(plan, undisturbed, tmp_path):
    made = Sweep.make(tmp_path / "sweep", plan)
    local = Local(made, jobs=2)
    killer = Killer(made, lambda name: local._processes[name][0].pid if name in local._processes else 0)
    assert conduct(made, local, killer) == {}
    assert killer.killed
    assert digests(made.path(NAME)) == undisturbed
    before = {path: path.stat().st_mtime_ns for path in made.folder.rglob("*.*") if path.is_file()}
    assert conduct(made, Local(made, jobs=1)) == {}
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_run_that_another_process_has_is_waited_for_and_taken_over(plan, undisturbed, tmp_path):
    made, looks = Sweep.make(tmp_path / "sweep", plan), []
    with ExitStack() as theirs:
        theirs.enter_context(made.claim(NAME))

        def look(running: set[str], failed: dict[str, str]) -> None:
            looks.append(running)
            if len(looks) == 3:  # the other process dies
                assert made.claimed(NAME) and not made.path(NAME).exists()
                theirs.close()

        assert conduct(made, Inline(made), look) == {}
    assert looks[:3] == [{NAME}] * 3 and not made.claimed(NAME)
    assert digests(made.path(NAME)) == undisturbed
    with Run.open(made.path(NAME)).lock():  # `train --resume` by hand, or an evaluation
        assert made.claimed(NAME) and work(made.folder, NAME) == TAKEN


def test_from_the_command_line(tmp_path, capsys):
    """A run that fails is named, and the others are trained, ranked and compared all the same."""
    out = tmp_path / "sweep"
    flags = [*SMALL, "--out", str(out), "--vary", "lr=0.05,1e30"]
    assert console.run(sweep.main, flags) == 2
    shown = capsys.readouterr()
    assert "1 of 2 runs failed, lr=1e+30-seed0 first (the loss is no longer finite" in shown.err
    assert "no longer finite" in shown.out and "rank" in shown.out
    names = {path.parent.name for path in out.glob("*/result.json")}
    assert names == {"lr=0.05-seed0"}
    assert (out / "leaderboard.csv").read_text().count("\n") == 3  # a head, 1 and 5 shots
    (ended,) = re.findall("lr=0.05-seed0: 5-way.*", shown.out)
    done = [str(out / "lr=0.05-seed0"), "--shots", "1", "--episodes", "20", "--threads", "1"]
    for other in (["--head", "simpleshot"], ["--split", "train"]):
        assert console.run(evaluate.main, [*done, *other]) == 0
    assert console.run(sweep.main, [*SMALL, "--out", str(out), "--vary", "lr=0.05"]) == 0
    assert ended in capsys.readouterr().out, "what it scored in its own tests"


def test_ctrl_c_saves_and_the_same_command_goes_on(plan, undisturbed, tmp_path):
    made = Sweep.make(tmp_path / "sweep", plan)

    def interrupt(running: set[str], failed: dict[str, str]) -> None:
        if made.step(NAME) >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="0 of 1 runs are done; the same command goes on"):
        conduct(made, Local(made, 1), interrupt)
    assert not made.claimed(NAME) and (made.path(NAME) / "checkpoint.pt").exists()
    # Also from a command, or a machine, that would begin runs with other threads.
    made = Sweep.make(made.folder, {NAME: dataclasses.replace(plan[NAME], threads=2)})
    assert conduct(made, Inline(made)) == {}
    assert digests(made.path(NAME)) == undisturbed
    assert [sitting["threads"] for sitting in Run.open(made.path(NAME)).sittings] == [1]


def test_an_error_leaves_no_process_at_work(plan, tmp_path):
    made = Sweep.make(tmp_path / "sweep", plan)
    local, found = Local(made, 1), []

    def look(running: set[str], failed: dict[str, str]) -> None:
        if made.step(NAME) >= 1:
            found.append(local._processes[NAME][0])
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        conduct(made, local, look)
    assert found[0].poll() is not None and not made.claimed(NAME)


def test_what_a_run_prints_elsewhere_is_in_its_log(plan, tmp_path):
    """As with Ray's and Slurm's workers: `Inline` works as they do."""
    made = Sweep.make(tmp_path / "sweep", grid.points(FLAGS | {"lr": 1e30}, {"reg": ["none"]}, None))
    (why,) = conduct(made, Inline(made)).values()
    assert "no longer finite" in why


def test_grids_from_a_file(tmp_path):
    file = tmp_path / "grid.toml"
    shared = 'dataset = "glyphs"\nepochs = 3\nseeds = 2\nschedule = "steps"\nlr_values = [0.1]\n'
    file.write_text(shared + '[vary]\nreg = ["none", "dropout"]\nlr_epochs = [[1], [2]]\n')
    shared, vary, seeds = grid.read(file)
    names = list(grid.points(shared, vary, seeds))
    assert len(names) == 8 and all(name.endswith("seed0") for name in names[:4])
    configs = grid.points(shared, vary, seeds)
    assert {(each.reg, each.lr_epochs, each.seed) for each in configs.values()} == {
        (reg, until, seed) for reg in ("none", "dropout") for until in ((1,), (2,)) for seed in (0, 1)
    }


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "nothing varies: give --vary FIELD=VALUE,VALUE, or --seeds N"),
        (["--vary", "reg"], "--vary reg: write FIELD=VALUE,VALUE"),
        (["--vary", "rag=none,dropout"], "unknown field in --vary: 'rag'"),
        (["--vary", "lr=0.1,fast"], "argument --lr: invalid float value: 'fast'"),
        (["--vary", "reg=none,none"], "a value comes twice"),
        (["--vary", "reg=targetdrop:drop_prob=0.1,block_size=3"], "cannot read component 'block_size=3'"),
        (["--vary", "reg=none,targetdorp"], "unknown reg in --vary: 'targetdorp'. Did you mean 'targetdrop'?"),
        (["--vary", "lr=0.1,0.2", "--lr", "0.3"], "--lr is given, and varies"),
        (["--seeds", "0"], "--seeds 0: give a number from 1 on"),
        (["--vary", "lr=0.1", "--vary", "lr=0.2"], "--vary lr is given twice"),
        (["--seeds", "2", "--seed", "1"], "--seed 1: give --seeds N, or --vary seed=1"),
        (["--vary", "mirror=yes,no"], "--vary mirror=yes: give true or false"),
        (["--vary", "test-shots=1,5"], "--vary test_shots: it is a list itself"),
        (["none.toml"], "none.toml is not there"),
        (
            ["--dataset", "glyphs", "--vary", "reg=none,cutout", "--vary", "threads=1,2"],
            "--vary threads: none-threads=1-seed0 and none-threads=2-seed0 would be one experiment with one seed,"
            " trained twice; give all runs one value",
        ),
        (["--dataset", "glyphs", "--vary", "test_episodes=50,60"], "--vary test_episodes: "),
        (["--dataset", "glyphs", "--precision", "fp32", "--vary", "device=auto,cpu"], "--vary device: "),
        (["--seeds", "2", "--jobs", "-1"], "--jobs and --gpus-per-run are 0 or more"),
        (["--seeds", "2", "--minutes", "9"], "--minutes is for --executor slurm, and this sweep has local: change one"),
        (["--seeds", "2", "--gpus-per-run", "1"], "--gpus-per-run is for --executor ray or slurm, and this sweep has"),
        (["--seeds", "2", "--jobs", "2", "--executor", "ray"], "--jobs is for --executor local, and this"),
        (["--seeds", "2", "--dataset", "glyps"], "'glyphs'"),
        (["--seeds", "2", "--head", "prto"], "unknown head: 'prto'. Did you mean 'proto'?"),
        (["--seeds", "2", "--head", "original"], "unknown head: 'original'"),
        (["--seeds", "2", "--reg", "no_such.Drop"], "cannot import reg 'no_such.Drop': there is no module no_such"),
        (["--vary", "reg=none,boards.Drop"], "cannot import reg 'boards.Drop': module boards has no Drop"),
        (["--vary", "reg=none,hypothesis.no.Drop"], "there is no module hypothesis.no; is the name right?"),
    ],
)
def test_mistakes_are_one_line_and_make_no_folder(flags, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert console.run(sweep.main, flags) == 2
    assert message in one_line_error(capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_its_folder_is_named(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert console.run(sweep.main, [*SMALL, "--seeds", "2", "--out", str(tmp_path / "file")]) == 2
    assert "file is a file, not a folder" in one_line_error(capsys)


def test_a_run_in_the_place_of_its_folder_is_named(small_run, tmp_path, capsys):
    folder = variant(small_run, tmp_path / "run")
    before = sorted(folder.iterdir())
    assert console.run(sweep.main, [*SMALL, "--seeds", "2", "--out", str(folder)]) == 2
    assert f"{folder} is a run folder itself: give another --out" in one_line_error(capsys)
    assert sorted(folder.iterdir()) == before


def test_a_sweep_of_a_later_version_is_named(plan, tmp_path):
    made = Sweep.make(tmp_path / "sweep", plan)
    path = made.folder / "sweep.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(UserError, match="sweep.json is of format 9; this fewshot reads up to 1: install a newer one"):
        Sweep.open(made.folder)


def test_what_cannot_go_on_here_names_the_command_that_takes_the_flag(plan, tmp_path):
    run = experiment.run(dataclasses.replace(plan[NAME], epochs=0), tmp_path / "run")
    (run.folder / "result.json").unlink()
    edit(run.folder / "environment.json", lambda facts: facts["sittings"][0].update(threads=4096))
    with pytest.raises(UserError, match=f"; .* add --elsewhere to fewshot train --out {run.folder} --resume: the run"):
        complete(run.config, run.folder)


def test_one_experiment_by_two_names_counts_once(small_run, tmp_path, capsys):
    """What `auto` becomes is known only after training: here one seed twice, which tells nothing of training anew."""
    out = tmp_path / "sweep"
    for seed in (0, 1):
        variant(small_run, out / f"precision=fp32-seed{seed}", seed=seed, gain=seed / 10)
    later = {"config": {"precision": "auto"}, "started": "2100-01-01T00:00:00+00:00"}
    variant(small_run, out / "precision=auto-seed0", **later)
    flags = [*SMALL[: SMALL.index("--precision")], "--reg", "targetdrop", "--out", str(out)]
    assert console.run(sweep.main, [*flags, "--vary", "precision=auto,fp32", "--jobs", "1"]) == 0
    said = capsys.readouterr().out
    assert f"Left out, because a newer run has the same configuration and seed: {out / 'precision=fp32-seed0'}." in said
    rows = list(csv.DictReader((out / "leaderboard.csv").read_text().splitlines()))
    assert {(row["seeds"], row["seed"], row["run"]) for row in rows} == {
        ("2", "0 1", "precision={auto-seed0,fp32-seed1}")
    }
    assert "against" not in said, "there is nothing to compare"


def test_more_than_can_be_compared_are_ranked_all_the_same(small_run, tmp_path, capsys):
    """`compare` has 26 letters for configurations."""
    out, rates = tmp_path / "sweep", [f"0.{number}" for number in range(10, 37)]
    for rate in rates:
        variant(small_run, out / f"lr={float(rate)}-seed0", config={"lr": float(rate)})
    flags = [*SMALL, "--reg", "targetdrop", "--out", str(out), "--vary", f"lr={','.join(rates)}", "--jobs", "1"]
    assert console.run(sweep.main, flags) == 0
    said = capsys.readouterr().out
    assert "Not compared: 27 configurations: give at most 26 at once" in " ".join(said.split())
    assert (out / "leaderboard.csv").read_text().count("\n") == 1 + 2 * 27


def test_without_out_the_folder_is_that_of_the_runs_however_they_are_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(executors, "Local", Inline)
    for more in ([], ["--jobs", "1", "--checkpoint-seconds", "7"], ["--data-root", "there"]):
        assert console.run(sweep.main, [*SMALL, "--epochs", "0", "--seeds", "2", *more]) == 0
    assert len(list((tmp_path / "runs" / "sweeps").iterdir())) == 2, "one for each data root"


@pytest.mark.parametrize(
    ("device", "shown", "jobs", "threads"),
    [("auto", 4, 4, {}), ("auto", 0, 32, {"threads": 1}), ("cuda:1", 4, 1, {}), ("cpu", 4, 32, {"threads": 1})],
)
def test_runs_at_once_and_their_threads(device, shown, jobs, threads, plan, tmp_path, monkeypatch):
    """One on each GPU; one if a GPU is named; otherwise one on each processor core."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: shown)
    monkeypatch.setattr(launch, "processors", lambda: 32)
    args = sweep.parser().parse_args([])
    assert launch.threads(args, device) == threads
    made = Sweep(tmp_path, {name: dataclasses.replace(config, device=device) for name, config in plan.items()})
    assert len(launch._executor(made, args)._free) == jobs


def test_another_configuration_under_the_same_name_is_refused(plan, tmp_path, capsys):
    out = ["--out", str(tmp_path / "sweep"), "--vary", "reg=none,dropblock"]
    Sweep.make(tmp_path / "sweep", plan)
    assert console.run(sweep.main, [*SMALL, *out]) == 2
    assert "has dropblock-seed0 with --episodes-per-epoch 20, not 6; give another --out" in one_line_error(capsys)
    later = {name: dataclasses.replace(config, threads=2, data_root="there") for name, config in plan.items()}
    assert Sweep.make(tmp_path / "sweep", later).plan == Sweep.open(tmp_path / "sweep").plan == later


def test_help_needs_no_torch():
    done = command("sweep", "--help")
    assert done.returncode == 0 and "--vary" in done.stdout


def test_ray_takes_up_what_a_killed_worker_left(plan, undisturbed, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="comes with pip install 'fewshot[ray]'")
    monkeypatch.setenv("PYTHONPATH", str(Path(executors.__file__).parents[2]))
    made = Sweep.make(tmp_path / "sweep", plan)
    cluster = executors.Ray(made, None, threads=1, gpus=0)
    killer = Killer(made, _process_at)
    try:
        assert conduct(made, cluster, killer) == {}
        assert killer.killed
    finally:
        ray.shutdown()
    assert digests(made.path(NAME)) == undisturbed


def _process_at(name: str) -> int:
    """The process that has a run's claim file open."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(link).endswith(f".claims/{name}") for link in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:
            continue
    return 0


def test_slurm_by_submitits_local_executor(plan, undisturbed, tmp_path):
    pytest.importorskip("submitit", reason="comes with pip install 'fewshot[slurm]'")
    made = Sweep.make(tmp_path / "sweep", plan)
    queue = executors.Slurm(made, threads=1, gpus=0, minutes=10, partition="", cluster="local")
    assert conduct(made, queue) == {}
    assert digests(made.path(NAME)) == undisturbed


def test_without_slurm_it_is_one_line(plan, tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="comes with pip install 'fewshot[slurm]'")
    monkeypatch.setenv("PATH", str(tmp_path))
    made = Sweep.make(tmp_path / "sweep", plan)
    with pytest.raises(UserError, match="--executor slurm: Could not detect"):
        executors.Slurm(made, threads=1, gpus=0, minutes=10, partition="", cluster="slurm")


@pytest.mark.parametrize(("shown", "expected"), [("5,7", ["5", "7", "5"]), ("", ["0", "1", "0"])])
def test_each_process_sees_one_gpu_of_those_that_are_shown(shown, expected, plan, tmp_path, monkeypatch):
    seen = []

    class Process:
        def __init__(self, command, env, **_):
            seen.append(env["CUDA_VISIBLE_DEVICES"])

    monkeypatch.setattr(executors.subprocess, "Popen", Process)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    Local(Sweep(tmp_path, dict.fromkeys("abc", plan[NAME])), jobs=3, gpus=2).start("abc")
    assert seen == expected


def test_flags_go_before_the_file_and_seeds_are_said_once(tmp_path, monkeypatch):
    plans, file = [], tmp_path / "grid.toml"
    file.write_text('dataset = "glyphs"\nepochs = 3\nlr = 0.5\nseeds = 2\n[vary]\nreg = ["none", "dropout"]\n')

    def train(made, *_):
        plans.append(made.plan)
        return dict.fromkeys(made.plan, "not now")

    monkeypatch.setattr(launch, "train", train)
    flags = [str(file), "--lr", "0.25", "--seeds", "1", "--vary", "reg=cutout", "--out", str(tmp_path / "out")]
    assert console.run(sweep.main, flags) == 2
    (plan,) = plans
    assert [(each.reg, each.lr, each.epochs, each.seed) for each in plan.values()] == [("cutout", 0.25, 3, 0)]
    assert [each.seed for each in grid.points(FLAGS, {"seed": [3, 4]}, None).values()] == [3, 4]
    with pytest.raises(UserError, match="--seeds and --vary seed both say which seeds"):
        grid.points(FLAGS, {"seed": [3, 4]}, 5)


def test_runs_of_code_that_was_edited_since_are_named(small_run, tmp_path, monkeypatch, capsys):
    (tmp_path / "my_edited.py").write_text("Drop = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    out, before = tmp_path / "sweep", {"ours": {}, "users": {"my_edited.py": "0" * 64}}
    for reg in ("none", "my_edited.Drop"):
        variant(small_run, out / f"{reg}-seed0", reg=reg)
    config = out / "my_edited.Drop-seed0" / "config.json"
    edit(config, lambda value: value["resolved"].update(code=before))
    flags = [*SMALL, "--out", str(out), "--vary", "reg=none,my_edited.Drop", "--jobs", "1"]
    assert console.run(sweep.main, flags) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Warning: my_edited.py has changed since these were trained" in said
    assert "from the old code: my_edited.Drop-seed0. To train them with the new code, give another --out" in said
