"""Classification results: figures and records against NumPy, what is refused, and how runs come to them."""

from __future__ import annotations

import json
import shutil

import classes
import numpy as np
import pytest
import torch
from boards import edit, reseal
from commands import one_line_error

import fewshot
from fewshot import evaluate, show, train
from fewshot.core import console
from fewshot.core.compute import Compute
from fewshot.core.errors import UserError
from fewshot.data import dataset_json
from fewshot.data.augment import to_unit
from fewshot.evaluation import classification, record_files, verdicts
from fewshot.runs import Run

SAME = ["--threads", "1", "--device", "cpu", "--precision", "fp32"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return classes.make(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    """A finished run; tests must not change it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert console.run(train.main, [*classes.FLAGS, "--data-root", str(root), "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it."""
    return Run.open(shutil.copytree(trained, tmp_path / "run"))


def test_verdicts_are_those_of_sorted_logits():
    draw = np.random.default_rng(0)
    logits = draw.integers(0, 6, (300, 9)).astype(np.float32)  # with many ties: of these, the lower class wins
    truth = draw.integers(0, 9, 300)
    found = classification.judged(torch.from_numpy(logits), truth)
    order = np.argsort(-logits, axis=1, kind="stable")
    assert np.array_equal(found.predicted, order[:, 0])
    assert np.array_equal(found.top5, (order[:, :5] == truth[:, None]).any(1))
    figures = found.figures(9)
    assert figures["top1"] == np.mean(order[:, 0] == truth) and figures["error"] == pytest.approx(1 - figures["top1"])
    assert figures["top5"] == found.top5.mean()
    assert "top5" not in found.figures(5)


def test_a_run_on_shared_classes_is_tested_by_its_classifier(run, root):
    assert run.rows == [] and run.finished
    (row,) = run.classification
    dataset = fewshot.open_dataset("letters", root)
    assert dataset.shared_classes and not fewshot.open_dataset("glyphs").shared_classes
    images, labels = dataset["test"].images, dataset["test"].labels
    model = fewshot.load(run.folder)
    with torch.no_grad():
        logits = model.classifier(model(to_unit(torch.from_numpy(np.array(images)))))
    top = logits.topk(5).indices.numpy()
    record = verdicts.read(run.folder, row)
    assert np.array_equal(record.truth, labels) and np.array_equal(record.predicted, top[:, 0])
    assert np.array_equal(record.top5, (top == labels[:, None]).any(1))
    assert row["top1"] == np.mean(top[:, 0] == labels) > 2 / 8
    assert (row["images"], row["classes"], row["split"], row["classifier"]) == (48, 8, "test", "linear")
    assert row["membership"] == dataset["test"].membership and row["fingerprint"] == dataset.fingerprint


def test_validation_is_top_1_of_the_validation_images(run, root):
    validations = [row for row in run.metrics() if "validation" in row]
    assert [sorted(row["validation"]) for row in validations] == [["top1", "top5"]] * 2
    best = max(row["validation"]["top1"] for row in validations)
    model, split = fewshot.load(run.folder), fewshot.open_dataset("letters", root)["val"]
    found = classification.classify(model, split, Compute(torch.device("cpu"), "fp32"))
    assert found.figures(8)["top1"] == best  # the weights that are kept are those of the best validation


def test_evaluate_makes_it_again_and_tasks_are_for_the_asking(run, root, capsys):
    """The same row to the byte; then few-shot rows beside it; then the val split."""
    before = run.classification
    few = [str(run.folder), "--data-root", str(root), *SAME]
    assert console.run(evaluate.main, few) == 0
    assert "top-1" in capsys.readouterr().out
    assert run.classification == before and len(list(run.folder.glob("images-*"))) == 1
    assert console.run(evaluate.main, [*few, "--queries", "4", "--shots", "1", "--episodes", "30"]) == 0
    assert "trained on 8 classes" in capsys.readouterr().out
    assert [row["shots"] for row in run.rows] == [1] and run.rows[0]["seen_in_training"]["classes"] == 8
    assert run.classification == before
    assert console.run(evaluate.main, [*few, "--split", "val"]) == 0
    assert [row["split"] for row in run.classification] == ["test", "val"] and len(run.rows) == 1
    assert run.finished


def test_seeds_are_summed_up_and_curves_show_top_1(root, tmp_path, capsys):
    flags = [*classes.FLAGS, "--epochs", "1", "--data-root", str(root), "--seeds", "0", "1"]
    assert console.run(train.main, [*flags, "--out", str(tmp_path / "runs")]) == 0
    said = capsys.readouterr().out
    each = [Run.open(tmp_path / "runs" / f"seed{seed}").classification[0]["top1"] for seed in range(2)]
    (line,) = [line for line in said.splitlines() if "8 classes, top-1" in line]
    assert ", ".join(f"{100 * top1:.2f}" for top1 in each) in line and "validation: top1 " in said
    runs = [str(tmp_path / "runs" / f"seed{seed}") for seed in range(2)]
    picture = tmp_path / "curves.svg"
    assert console.run(show.main, ["curves", *runs, "--out", str(picture)]) == 0
    assert "validation, top-1" in picture.read_text()


def spoil(run, **fields):
    edit(run.result_path, lambda result: result["classification"][0].update(fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"top1": 0.99}, "says top1 0.99, and images-letters-test.npz gives"),
        ({"error": 0.01}, "says error 0.01"),
        ({"top1_ci95": [0.5, 0.6]}, "says top1_ci95"),
        ({"top5": 1.0, "top5_ci95": [0.9, 1.0]}, "says top5"),
        ({"ci_method": "exact"}, "says ci_method exact"),
        ({"images": 47}, "images-letters-test.npz is not what result.json says"),
        ({"classes": 7}, "images-letters-test.npz is not what result.json says"),
        ({"images_file": "../other.npz"}, "is no file's name"),
        ({"images_file": "images-nothing.npz"}, "images-nothing.npz is missing"),
    ],
)
def test_a_row_that_its_record_does_not_prove_is_refused(run, fields, message):
    spoil(run, **fields)
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        verdicts.read(run.folder, run.classification[0])


@pytest.mark.parametrize("fields", [{"top1": "0.9"}, {"top1_ci95": [0.5]}, {"classes": None}])
def test_a_row_of_other_types_is_not_ours(run, fields):
    spoil(run, **fields)
    with pytest.raises(UserError, match=r"result.json is not a result of ours"):
        run.classification  # noqa: B018


def test_a_damaged_or_foreign_record_is_refused(run):
    (row,) = run.classification
    path = run.folder / row["images_file"]
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with pytest.raises(UserError, match=r"images-letters-test.npz is damaged, or another run's"):
        verdicts.read(run.folder, row)
    names = np.arange(48, dtype=np.uint16) % 8
    path.write_bytes(record_files.npz(truth=names, predicted=names, top5=np.zeros(48, bool)))
    reseal(run.folder)
    with pytest.raises(UserError, match="is not what result.json says"):  # top 1 without being in the top 5
        verdicts.read(run.folder, run.classification[0])


def test_a_classifier_names_only_the_classes_that_it_knows(run, root, tmp_path):
    """Another set of shared classes, with other names: few-shot tasks are all that can be asked for."""
    other = tmp_path / "data"
    shutil.copytree(root / "letters", other / "signs")
    record = json.loads((other / "signs" / "dataset.json").read_text())
    record["name"] = "signs"
    for entry in record["splits"].values():
        entry["classes"] = [f"sign {name}" for name in entry["classes"]]
    record["fingerprint"] = dataset_json.fingerprint(record["splits"])
    (other / "signs" / "dataset.json").write_text(json.dumps(record))
    shutil.copytree(root / "letters", other / "letters")
    flags = ["--dataset", "signs", "--data-root", str(other), "--queries", "1", "--episodes", "20", *SAME]
    assert console.run(evaluate.main, [str(run.folder), *flags]) == 0
    assert len(run.classification) == 1 and {row["dataset"] for row in run.rows} == {"signs"}


def test_too_few_images_for_tasks_are_no_hindrance(root, tmp_path, capsys):
    """5 shots and 15 queries would need 20 images of a class; there are 6, and nobody asked for tasks."""
    flags = [*classes.FLAGS, "--epochs", "0", "--data-root", str(root), "--out", str(tmp_path / "run")]
    assert console.run(train.main, flags) == 0
    assert "epoch 0/0" in capsys.readouterr().out
    assert console.run(evaluate.main, [str(tmp_path / "run"), "--data-root", str(root), "--shots", "5"]) == 2
    assert "images" in one_line_error(capsys)
