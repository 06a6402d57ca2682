"""python -m fewshot.evaluate of finished runs: whose base classes, in which precision, and how many runs at once."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
from boards import edit
from commands import one_line_error

from fewshot import compare, evaluate
from fewshot.core import compute, console
from fewshot.data import dataset_json, open_dataset, store
from fewshot.episodes import Protocol, frozen
from fewshot.evaluation.score import score
from fewshot.evaluation.solve import accuracies
from fewshot.model import load_run
from fewshot.runs import Run

FEW = ["--shots", 1, "--queries", 5, "--episodes", 20, "--threads", 1, "--device", "cpu"]


def run(*args) -> int:
    return console.run(evaluate.main, [*map(str, (*args, *FEW))])


def prepare(root, name: str, **splits: np.ndarray):
    """A prepared data set of these images (classes, images, S, S, 3); returns its root."""
    (root / name).mkdir(parents=True)
    entries = {}
    for split, images in splits.items():
        classes, each = images.shape[:2]
        images = images.reshape(-1, *images.shape[2:])
        np.save(root / name / f"{split}.npy", images)
        entries[split] = {
            "classes": [f"{split} {number}" for number in range(classes)], "counts": [each] * classes,
            "shape": list(images.shape), "sha256": store.pixel_digest(images),
        }  # fmt: skip
    dataset_json.write(root / name, name, entries, "made", [], {}, ((0.5,) * 3, (0.25,) * 3))
    return root


def some(split: str, first: int = 0) -> np.ndarray:
    """Six classes of glyphs, 16 images of each."""
    its = open_dataset("glyphs")[split]
    return np.stack([its.images[start : start + 16] for start in its.starts[first : first + 6]])


@pytest.fixture
def root(tmp_path):
    """Data sets of other training classes and the same test classes."""
    prepare(tmp_path / "data", "flowers", train=some("train"), test=some("test"))
    return prepare(tmp_path / "data", "birds", train=255 - some("train", 6), test=some("test"))


def trained_on(folder, name: str, fingerprint: str, **config):
    """A run folder that says it was trained on this data set."""
    edit(folder / "config.json", lambda value: value.update(dataset=name, **config))
    edit(folder / "config.json", lambda value: value["resolved"].update(fingerprint=fingerprint))
    edit(folder / "config.json", lambda value: value["resolved"].pop("former_fingerprint"))
    return folder


@pytest.fixture
def folder(small_run, tmp_path):
    return shutil.copytree(small_run, tmp_path / "runs" / "a")


def test_heads_are_fitted_on_the_classes_that_the_network_was_trained_on(folder, root, capsys):
    """SimpleShot's base classes, whatever data set is tested: those of the tested set's training split are others."""
    flowers, birds = open_dataset("flowers", root), open_dataset("birds", root)
    trained_on(folder, "flowers", flowers.fingerprint)
    assert run(folder, "--dataset", "birds", "--data-root", root, "--head", "simpleshot:norm=cl2n") == 0
    row = Run.open(folder).rows[-1]
    assert row["base"] == {"dataset": "flowers", **flowers.fingerprints}
    assert f"the base classes are those of flowers, which {folder} was trained on" in capsys.readouterr().out

    where = compute.choose("cpu", "fp32")
    model = load_run(Run.open(folder), where)
    tasks = frozen.standard_tasks(birds, "test", Protocol(5, 1, 5), 20)
    found = {}
    for base in (flowers, birds):
        (right,) = score(model, [tasks], where, base["train"], model.head_for("simpleshot:norm=cl2n"), fold=True)
        found[base.name] = accuracies(right, 5).astype(np.float32)
    assert (found["flowers"] != found["birds"]).any()
    assert (np.load(folder / row["episodes_file"]) == found["flowers"]).all()

    assert run(folder, "--dataset", "birds", "--data-root", root) == 0
    assert "base" not in Run.open(folder).rows[-1], "proto is fitted on nothing"
    assert run(folder, "--data-root", root, "--transform", "center") == 0
    assert Run.open(folder).rows[-1]["base"]["dataset"] == "flowers"


def test_base_classes_that_are_not_at_hand_are_named(folder, root, capsys):
    trained_on(folder, "fish", "0" * 64)
    before = (folder / "result.json").read_bytes()
    birds = ["--dataset", "birds", "--data-root", root]
    assert run(folder, *birds, "--transform", "whiten") == console.USER_ERROR
    line = one_line_error(capsys)
    assert f"the classes that {folder} was trained on, those of fish" in line
    assert "'fish' is not prepared under" in line and "put both data sets under one --data-root" in line
    assert (folder / "result.json").read_bytes() == before
    assert run(folder, *birds) == 0, "what is fitted on nothing needs none"

    prepare(root, "fish", train=some("train", 12), test=some("test"))
    capsys.readouterr()
    assert run(folder, *birds, "--transform", "whiten") == 0
    assert "those of another copy of fish, which" in capsys.readouterr().out
    assert Run.open(folder).rows[-1]["base"]["fingerprint"] == open_dataset("fish", root).fingerprint


def test_base_classes_of_older_versions_are_named_in_a_comparison(folder, root, capsys):
    other = shutil.copytree(folder, folder.parent / "b")
    for each, rate in ((folder, 0.1), (other, 0.05)):
        trained_on(each, "flowers", open_dataset("flowers", root).fingerprint, lr=rate)
        assert run(each, "--dataset", "birds", "--data-root", root, "--head", "simpleshot") == 0
    both = [str(folder), str(other), "--head", "simpleshot"]
    capsys.readouterr()
    assert console.run(compare.main, both) == 0
    assert "warning" not in capsys.readouterr().out
    edit(other / "result.json", lambda result: result["results"][-1].pop("base"))
    assert console.run(compare.main, both) == 0
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert f"{other} by simpleshot was solved with base classes of birds, as by an older version" in warning


@pytest.mark.parametrize("native", [True, False], ids=["bf16 is native", "bf16 is not"])
def test_a_run_is_evaluated_in_the_precision_that_it_was_trained_in(folder, root, native, monkeypatch, capsys):
    trained_on(folder, "flowers", open_dataset("flowers", root).fingerprint)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)

    def evaluated(*flags: str) -> str:
        assert run(folder, "--data-root", root, *flags) == 0
        return Run.open(folder).rows[-1]["evaluated_by"]["precision"]

    assert evaluated() == "fp32" and "Note" not in capsys.readouterr().out
    edit(folder / "environment.json", lambda facts: facts["sittings"][-1].update(precision="bf16"))
    assert evaluated() == ("bf16" if native else "fp32")
    said = f"Note: {folder} was trained in bf16 and is evaluated in fp32 (bf16 is not native here)."
    assert (said in capsys.readouterr().out) != native
    assert evaluated("--precision", "fp32") == "fp32"
    assert f"Note: {folder} was trained in bf16 and is evaluated in fp32.\n" in capsys.readouterr().out


@contextmanager
def open_files_at_most(more: int):
    """At most `more` files can be opened in addition to those that are open."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest, held = max(map(int, os.listdir("/proc/self/fd"))), [os.open(os.devnull, os.O_RDONLY)]
    while held[-1] < highest:  # a number below it may be free
        held.append(os.open(os.devnull, os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[-1] + 1 + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for handle in held:
            os.close(handle)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files as Linux shows them")
def test_many_runs_take_no_more_open_files_than_one(folder, root, tmp_path, capsys):
    folders = [folder, *(shutil.copytree(folder, tmp_path / "runs" / f"b{number}") for number in range(6))]
    with open_files_at_most(8):
        assert run(*folders, "--dataset", "birds", "--data-root", root) == 0
    assert all(Run.open(each).rows[-1]["dataset"] == "birds" for each in folders)
    capsys.readouterr()
    with open_files_at_most(1):
        with pytest.raises(OSError) as error:
            open_dataset("birds", root)
        assert error.value.errno == errno.EMFILE
        status = run(folder, "--dataset", "birds", "--data-root", root)
    line = one_line_error(capsys)
    assert status == console.USER_ERROR and "too many files are open at once" in line and "ulimit -n" in line
    assert "delete" not in line


def test_images_of_another_size_are_refused(folder, root, capsys):
    """A network of convolutions would embed them all the same."""
    train, test = (some(split).repeat(2, 2).repeat(2, 3) for split in ("train", "test"))
    prepare(root, "large", train=train, test=test)
    before = (folder / "result.json").read_bytes()
    assert run(folder, "--dataset", "large", "--data-root", root) == console.USER_ERROR
    assert f"{folder} was trained on 32 px images, and large has 64 px" in one_line_error(capsys)
    assert (folder / "result.json").read_bytes() == before
    trained_on(folder, "large", "0" * 64)
    before = (folder / "result.json").read_bytes()
    birds = ["--dataset", "birds", "--data-root", root, "--transform", "center"]
    assert run(folder, *birds) == console.USER_ERROR
    assert "large has images of 64 px there, and the network takes 32 px" in one_line_error(capsys)
    assert (folder / "result.json").read_bytes() == before
