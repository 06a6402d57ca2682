"""scripts/reproduce_tables.py on a data set of letters: trains, skips, resumes, and prints the papers' beside ours."""

from __future__ import annotations

import shutil

import classes
import numpy as np
import paper_rows
import pytest
import reproduce_tables
from commands import one_line_error
from inline import Inline
from scipy import stats

from fewshot import evaluate
from fewshot.core import console
from fewshot.data import open_dataset
from fewshot.evaluation.proportions import wilson
from fewshot.runs import Run
from fewshot.sweeps import executors

BASE, DROPPED = "focuseddropout/cifar-10", "focuseddropout/cifar-10+focuseddropout"
FLAGS = ["--dataset", "letters", "--backbone", "resnet8", "--regime", "supervised:batch=16,train=all",
         "--epochs", "1", "--lr", "0.05", "--schedule", "cosine", "--device", "cpu", "--precision", "fp32"]  # fmt: skip


class Here(Inline):
    """Records what it starts."""

    def start(self, names) -> None:
        super().start(begun := list(names))
        started.extend(begun)


started: list[str] = []


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.setattr(executors, "Local", Here)
    monkeypatch.setenv("COLUMNS", "200")
    started.clear()


def call(*argv) -> int:
    return console.run(reproduce_tables.main, [str(arg) for arg in argv])


def cells(text: str, recipe: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {recipe} |"))
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_rows_are_trained_once_and_compared_image_by_image(tmp_path, capsys):
    flags = [*FLAGS, "--data-root", classes.make(tmp_path / "data"), "--out", tmp_path / "runs"]
    assert call(BASE, DROPPED, *flags, "--results", tmp_path / "results") == 0
    assert started == ["focuseddropout-cifar-10-seed0", "focuseddropout-cifar-10+focuseddropout-seed0"]
    out = capsys.readouterr().out
    assert "FD-1: FocusedDropout, table 1, six networks on CIFAR-10; accuracy (%)" in out and "top-1" in out

    images = {}
    for name in started[:2]:
        run = Run.open(tmp_path / "results" / name)
        with np.load(run.folder / run.classification[0]["images_file"]) as record:
            images[name] = record["truth"] == record["predicted"]
    base, dropped = images.values()
    text = (tmp_path / "results/table.md").read_text()
    low, high = wilson(int(base.sum()), base.size)
    assert cells(text, BASE)[2] == f"{100 * base.mean():.2f} ({100 * low:.2f} .. {100 * high:.2f})"
    gain = cells(text, DROPPED)[3]
    assert gain.startswith(f"{100 * (dropped.mean() - base.mean()):+.2f} (")
    alone = (int((dropped & ~base).sum()), int((base & ~dropped).sum()))
    expected = stats.binomtest(alone[0], sum(alone)).pvalue if sum(alone) else 1.0
    assert sum(alone) < 25 and gain.endswith(f"p = {expected:.2g}")

    shutil.rmtree(tmp_path / "runs" / started[1])
    started.clear()
    assert call(BASE, DROPPED, *flags, "--seeds", 2) == 0
    assert started == [f"focuseddropout-cifar-10{more}" for more in ("+focuseddropout-seed0", "-seed1",
                                                                     "+focuseddropout-seed1")]  # fmt: skip
    out = capsys.readouterr().out
    runs = [Run.open(tmp_path / "runs" / f"focuseddropout-cifar-10-seed{seed}") for seed in range(2)]
    accuracies = [100 * run.classification[0]["top1"] for run in runs]
    half = stats.t.ppf(0.975, 1) * np.std(accuracies, ddof=1) / 2**0.5
    expected = f"{np.mean(accuracies):.2f} ± {half:.2f} ({accuracies[0]:.2f}, {accuracies[1]:.2f})"
    assert expected in out and "Student's t over 2 seeds" in out

    seen = len(open_dataset("letters", tmp_path / "data")["val"].images)
    again = [str(runs[0].folder), "--split", "val", "--data-root", str(tmp_path / "data")]
    assert console.run(evaluate.main, again) == 0
    assert f"training saw {seen:,} of the images of letters val" in capsys.readouterr().out
    assert "seen_in_training" not in runs[0].classification[0]


def test_without_a_held_out_part_all_training_images_are_trained_on(tmp_path, capsys):
    """`train=all`, as in the papers: the batches of an epoch hold the training and the validation images, each once."""
    from fewshot import experiment
    from fewshot.defaults import configure

    values = {"regime": "supervised:batch=18,train=all", "backbone": "resnet8", "dataset": "letters", "epochs": 1,
              "data_root": str(classes.make(tmp_path / "data")), "device": "cpu", "precision": "fp32"}  # fmt: skip
    made = experiment.prepare(configure(**values))
    index = np.concatenate([made.regime._index(step) for step in range(8)])
    shown = sorted(image.tobytes() for image in made.regime.source.images.numpy()[index])
    parts = [made.dataset[split].images for split in ("train", "val")]
    assert shown == sorted(image.tobytes() for part in parts for image in part)
    of_image = {image.tobytes(): label for split in ("train", "val") for image, label in
                zip(made.dataset[split].images, made.dataset[split].labels, strict=True)}  # fmt: skip
    labels = [of_image[image.tobytes()] for image in made.regime.source.images.numpy()]
    assert labels == made.regime.classes.tolist()
    for more, message in (({"epochs": 3}, "train=all leaves no images to choose weights by: give --val-every 3"),
                          ({"dataset": "glyphs"}, "images of glyphs show other classes")):  # fmt: skip
        with pytest.raises(experiment.UserError, match=message):
            experiment.prepare(configure(**values | more))


def test_a_name_is_one_table_or_how_several_begin():
    def names(*asked: str) -> list[str]:
        return [table.name for table in paper_rows.chosen(list(asked))]

    assert names("TD-1-C") == ["TD-1-CIFAR-10", "TD-1-CIFAR-100"] and names("TD-1-CIFAR-10") == ["TD-1-CIFAR-10"]
    assert names("targetdrop/cifar-10") == ["TD-1-CIFAR-10"]
    assert [len(table.rows) for table in paper_rows.chosen(["targetdrop/cifar-10"])] == [1]
    assert sum(len(table.rows) for table in paper_rows.chosen([""])) == 139


def test_all_rows_are_listed_without_training(capsys):
    assert call("--list", "CD-1") == 0
    out = capsys.readouterr().out
    assert "camdrop/cifar-10+camdrop" in out and "4.19" in out and "not run" in out


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "name tables or recipes; there are AD-CIFAR-10"),
        (["TD-9"], "TD-9: no table or recipe begins so; there are AD-CIFAR-10"),
        (["--list", "TD-9"], "TD-9: no table or recipe begins so; there are AD-CIFAR-10"),
        (["TD-2", "--seeds", "0"], "--seeds 0: give at least 1"),
        (["TD-2", "--recipe", "glyphs"], "--recipe glyphs: it differs from run to run here; give names of recipes"),
        (["TD-2", "--data-root", "nowhere"], "data set 'cifar-10' is not prepared under"),
    ],
)
def test_a_users_mistake_is_one_line(flags, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call(*flags) == console.USER_ERROR
    assert expected in one_line_error(capsys)
    assert list(tmp_path.iterdir()) == []
