"""learn2learn beside us: the same images and tasks, its MAML and ANIL around our backbones, rows like every other."""

from __future__ import annotations

import csv
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from commands import ROOT
from neighbours import neighbour
from pages import run_command, shown

import fewshot
from fewshot import leaderboard
from fewshot.core import console
from fewshot.core.errors import UserError
from fewshot.episodes import Protocol, frozen

with warnings.catch_warnings():  # of what it imports: gym, and setuptools' pkg_resources
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", message=".*pkg_resources", category=UserWarning)
    learn2learn = neighbour("learn2learn")

from fewshot.interop import learn2learn as l2l

GLYPHS = fewshot.open_dataset("glyphs")
TASKS = frozen.standard_tasks(GLYPHS, "test", Protocol(5, 5, 15), 20)


def test_images_labels_and_bookkeeping_are_the_splits():
    split = GLYPHS["val"]
    meta = l2l.meta_dataset(split)
    assert isinstance(meta, learn2learn.data.MetaDataset) and len(meta) == len(split.images)
    assert len(meta.labels) == len(split.classes)
    for label, start, count in zip(range(3), split.starts, split.counts, strict=False):
        assert meta.labels_to_indices[label] == list(range(start, start + count))
    image, label = meta[150]
    assert image.dtype == torch.float32 and label == split.labels[150]
    assert torch.equal((image * 255).round().byte(), torch.from_numpy(np.array(split.images[150])).permute(2, 0, 1))
    ways = learn2learn.data.transforms.NWays(meta, n=3)  # and its own tasks can be drawn from it
    shots = learn2learn.data.transforms.KShots(meta, k=2)
    load = learn2learn.data.transforms.LoadData(meta)
    images, labels = learn2learn.data.Taskset(meta, [ways, shots, load], num_tasks=1)[0]
    assert images.shape == (6, 3, 32, 32) and len(labels.unique()) == 3


def test_unbalanced_tasks_are_refused():
    with pytest.raises(UserError, match="5-way 1-shot, Dirichlet 2: learn2learn's tasks have as many queries of each"):
        l2l.taskset(frozen.standard_tasks(GLYPHS, "test", Protocol(5, 1, 3, query_alpha=2.0), 20))


def test_its_tasks_are_ours_to_the_bit():
    """As `evaluate_learner` gives them to a learner, whose queries are in another order."""
    taskset, seen = l2l.taskset(TASKS), []

    def learner(support, labels, query):
        seen.append((support, labels, query))
        return torch.zeros(len(query), dtype=torch.int64)

    fewshot.evaluate_learner(learner, GLYPHS, 5, episodes=20, preprocess=lambda images: images)
    assert isinstance(taskset, learn2learn.data.Taskset) and len(taskset) == 20
    seen = seen[:1] + seen[2:]  # the second call was to see whether the first stands alone
    for (images, labels), (support, targets, query) in zip(taskset, seen, strict=True):
        (ours, y), (queries, z) = learn2learn.data.partition_task(images, labels, shots=5)
        assert torch.equal(ours, support) and torch.equal(y, targets)
        assert z.tolist() == [way for way in range(5) for _ in range(15)]
        assert _sorted(queries) == _sorted(query)
    with pytest.raises(IndexError):
        taskset[20]
    normalised = l2l.taskset(TASKS, lambda images: images - 1)
    assert torch.equal(normalised[3][0], taskset[3][0] - 1)


def _sorted(images):
    return sorted(image.numpy().tobytes() for image in images)


def adapter(method=l2l.maml, reg="none", **options):
    torch.manual_seed(0)
    backbone = fewshot.backbones.build("conv4", reg=reg, image_size=32)
    return method(backbone, GLYPHS, 5, **{"lr": 0.05} | options)


def task():
    images, labels = l2l.taskset(TASKS)[0]
    (support, y), (query, z) = learn2learn.data.partition_task(images, labels, shots=5)
    return support, y, query, z


@pytest.mark.parametrize("method, adapts", [(l2l.maml, "all"), (l2l.anil, "classifier")])
def test_it_adapts_by_gradient_steps(method, adapts):
    """By hand: two steps of plain gradient descent on a copy, in evaluation mode."""
    ours = adapter(method, steps=2).eval()
    support, labels, query, _ = task()
    logits = ours(support, labels, query)
    by_hand = adapter(method).eval()
    inner = by_hand.algorithm.module
    network = inner if adapts == "all" else torch.nn.Sequential(by_hand.fixed, inner)
    weights = list(inner.parameters())
    for _ in range(2):
        gradients = torch.autograd.grad(F.cross_entropy(network(support), labels), weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight -= 0.05 * gradient
    torch.testing.assert_close(logits, network(query), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(*pair) for pair in zip(ours.parameters(), adapter(method).parameters(), strict=True))


def test_gradients_reach_the_beginning_and_differ_by_order():
    support, labels, query, targets = task()
    gradients = {}
    for first_order in (False, True):
        maml = adapter(first_order=first_order).eval()
        F.cross_entropy(maml(support, labels, query), targets).backward()
        gradients[first_order] = next(maml.backbone.parameters()).grad
    assert gradients[False].norm() > 0 and gradients[True].norm() > 0
    assert not torch.allclose(gradients[False], gradients[True], rtol=1e-2)


@pytest.mark.parametrize("reg", ["dropblock@3,4:drop_prob=0.3", "targetdrop@4:drop_prob=0.5", "cutout", "dropout@2"])
def test_regularizers_draw_in_training_and_are_silent_in_evaluation(reg):
    """Also within clones, whose masks are their own."""
    support, labels, query, _ = task()
    maml = adapter(reg=reg, steps=1).train()
    plain = adapter().train()
    plain.load_state_dict({key: value for key, value in maml.state_dict().items() if ".regs." not in key}, strict=False)
    maml.backbone.begin_step(1.0)
    assert not torch.allclose(maml(support, labels, query), plain(support, labels, query))
    plain.load_state_dict({key: value for key, value in maml.state_dict().items() if ".regs." not in key}, strict=False)
    clone = maml.algorithm.clone()
    clone.eval()  # leaves the original in training
    assert torch.equal(clone(query), clone(query)) and maml.backbone.training
    maml.eval()
    one, other = (maml(support, labels, query) for _ in range(2))
    assert torch.equal(one, other)
    plain.eval()
    torch.testing.assert_close(plain(support, labels, query), one)


def test_its_rows_are_like_every_other(tmp_path):
    maml = adapter(reg="dropblock@4", steps=1).train()
    before = {name: tensor.clone() for name, tensor in maml.state_dict().items()}
    origin = fewshot.Origin("conv4", reg="dropblock@4", dataset="glyphs", seed=0)
    (score,) = l2l.evaluate(maml, GLYPHS, shots=1, episodes=8, out=tmp_path / "run", origin=origin)
    (batch,) = l2l.evaluate(maml, GLYPHS, shots=1, episodes=8, batch_statistics=True)
    assert (score.setting, batch.setting) == ("inductive", "transductive") and score.episodes == 8
    assert maml.training and all(torch.equal(before[name], tensor) for name, tensor in maml.state_dict().items())
    (row,) = json.loads((tmp_path / "run" / "result.json").read_text())["results"]
    assert (row["head"], row["setting"], row["episodes_digest"]) == ("maml", "inductive", score.episodes_digest)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["backbone"], config["reg"], config["dataset"]) == ("conv4", "dropblock@4", "glyphs")
    assert config["resolved"]["parameters"] == sum(weight.numel() for weight in maml.parameters())


def test_what_it_cannot_do_is_one_line():
    with pytest.raises(UserError, match="guided by class weights"):
        adapter(reg="camdrop@4")
    with pytest.raises(UserError, match="device, setting: the adapter says it itself"):
        l2l.evaluate(adapter(), GLYPHS, device="cpu", setting="transductive", episodes=2)


def test_what_the_docs_show_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(shown(ROOT / "docs" / "coming-from.md", "learn2learn"), {})
    assert "5-way 1-shot: " in capsys.readouterr().out and (tmp_path / "runs/maml-untrained/result.json").is_file()


def test_the_example_trains_and_leaves_a_row(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_command("python examples/maml.py --quick --method anil --reg dropblock@4 --out runs/anil", tmp_path) == 0
    assert re.fullmatch(r"step 2: loss \d\.\d+\nglyphs test, 5-way 1-shot: .*\n", capsys.readouterr().out)
    assert console.run(leaderboard.main, ["--runs", "runs"]) == 0
    (row,) = csv.DictReader(Path("leaderboard.csv").read_text("utf-8").splitlines())
    assert (row["head"], row["regularizer"], row["trained_on"]) == ("anil", "dropblock@4", "glyphs")
