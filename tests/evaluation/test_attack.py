"""Analyses of trained classifiers: targeted PGD against its closed form on a linear one, class activation maps."""

from __future__ import annotations

import json

import classes
import numpy as np
import pgd
import pytest
import torch
from commands import one_line_error

import fewshot
from fewshot import train
from fewshot.core import console
from fewshot.data import open_dataset
from fewshot.evaluation import inspection
from fewshot.evaluation.attack import Attack, attack_split, random_targets
from fewshot.evaluation.attack import pgd as attacked


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on letters that names most of them correctly, and its data root."""
    folder = tmp_path_factory.mktemp("attack")
    root = classes.make(folder / "data")
    flags = [*classes.FLAGS, "--backbone", "conv4", "--epochs", "6", "--data-root", str(root), "--out"]
    assert console.run(train.main, [*flags, str(folder / "run")]) == 0
    return folder / "run", root


def linear(classes: int, side: int):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(classes, 3 * side * side, generator=generator)
    images = torch.rand(5, 3, side, side, generator=generator)
    return weight, images, torch.tensor([0, 1, 2, 3, 1])


def test_the_first_step_on_a_linear_classifier_of_two_classes_is_the_sign_of_the_weights():
    """The loss falls along w_target - w_other, whatever the image: each pixel moves by `step` with that sign."""
    weight, images, _ = linear(2, 4)
    targets = torch.tensor([0, 1, 1, 0, 1])
    found = attacked(lambda x: x.flatten(1) @ weight.T, images, targets, Attack(eps=0.1, step=0.02, steps=1))
    direction = torch.stack([weight[t] - weight[1 - t] for t in targets]).view_as(images).sign()
    assert torch.allclose(found, (images + 0.02 * direction).clamp(0, 1), atol=1e-7)
    # Two steps go twice as far, and five end at the ball's edge.
    for steps, distance in ((2, 0.04), (5, 0.1), (9, 0.1)):
        found = attacked(lambda x: x.flatten(1) @ weight.T, images, targets, Attack(0.1, 0.02, steps))
        assert torch.allclose(found, (images + distance * direction).clamp(0, 1), atol=1e-6)


def test_a_step_on_several_classes_is_numpys():
    """d/dx of -log softmax_t is W^T (p - e_t); from a point of the ball that is not its centre."""
    weight, images, targets = linear(4, 4)
    start = torch.rand(images.shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    attack = Attack(eps=0.05, step=0.03, steps=2)
    found = attacked(lambda x: x.flatten(1) @ weight.T, images, targets, attack, start)
    w, clean = weight.double().numpy(), images.double().numpy().reshape(5, -1)
    x = np.clip(clean + 0.05 * start.double().numpy().reshape(5, -1), 0, 1)
    for _ in range(2):
        scores = x @ w.T
        p = np.exp(scores - scores.max(1, keepdims=True))
        gradient = (p / p.sum(1, keepdims=True) - np.eye(4)[targets]) @ w
        x = np.clip(np.clip(x - 0.03 * np.sign(gradient), clean - 0.05, clean + 0.05), 0, 1)
    np.testing.assert_allclose(found.numpy().reshape(5, -1), x, atol=1e-6)


def test_targets_are_other_classes_all_as_likely():
    labels = np.repeat(np.arange(4), 3000)
    targets = random_targets(labels, 4, seed=0)
    assert (targets != labels).all() and np.array_equal(targets, random_targets(labels, 4, seed=0))
    counts = np.bincount((targets - labels) % 4, minlength=4)
    assert counts[0] == 0 and (abs(counts[1:] - 4000) < 5 * 4000**0.5).all()


def test_an_attack_on_a_run_succeeds_the_more_the_larger_its_ball(trained):
    folder, root = trained
    model, test = fewshot.load(folder, device="cpu"), open_dataset("letters", root)["test"]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    shares = []
    for eps in (0, 4, 16, 64):
        found = attack_split(model, test, 48, Attack(eps / 255, max(1, eps / 4) / 255, steps=8))
        shares.append(found.success.mean())
    assert found.clean.mean() > 0.5, "it has learned"
    assert shares == sorted(shares) and shares[0] < 0.2 and shares[-1] > shares[0] + 0.3
    assert not (found.success & found.correct).any()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_runs_are_attacked_side_by_side(trained, tmp_path, capsys, monkeypatch):
    folder, root = trained
    monkeypatch.setenv("COLUMNS", "200")
    flags = ["--images", "48", "--eps", "0", "8", "--clean", "--device", "cpu", "--data-root", str(root)]
    assert console.run(pgd.main, [str(folder), str(folder), *flags, "--json", str(tmp_path / "pgd.json")]) == 0
    out = capsys.readouterr().out
    assert "+0.00 (" in out, "a run against itself"
    none, eight, *again = json.loads((tmp_path / "pgd.json").read_text())["figures"]
    assert again == [none, eight] and none["clean"] == none["correct"], "a ball without a radius changes nothing"
    assert eight["success"] > none["success"] and eight["success_ci95"][0] <= eight["success"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--eps", "300"], "--eps: give 0 to 255 gray levels"),
        (["--steps", "0"], "--steps 0: give at least 1"),
        (["--images", "0"], "--images 0: the test split has 48"),
    ],
)
def test_a_users_mistake_is_one_line(trained, flags, expected, capsys):
    folder, root = trained
    assert console.run(pgd.main, [str(folder), "--data-root", str(root), *flags]) == console.USER_ERROR
    assert expected in one_line_error(capsys)


def test_class_activation_maps_are_of_the_classifier_that_was_trained(trained):
    """Zhou et al., equation 2, with the classifier's own weights: not those of an episode's prototypes."""
    folder, root = trained
    model, dataset = fewshot.load(folder, device="cpu"), open_dataset("letters", root)
    scene = inspection.scene(dataset, 4, seed=0)
    assert [dataset["val"].classes[label] for label in scene.labels] == list(scene.classes)
    maps = []
    model.backbone.module_at(4).register_forward_hook(lambda module, inputs, output: maps.append(output.detach()))
    logits = model.classifier(model.embed(scene.shown))
    weights = model.classifier.weight.detach().unflatten(1, (64, 2, 2))  # Conv-4 embeds its last map flat
    expected = torch.einsum("nc,nchw->nhw", weights.mean((2, 3))[scene.labels], maps[0])
    found = inspection.class_activation_maps(model, scene)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    own = (weights[scene.labels] * maps[0]).sum((1, 2, 3)) + model.classifier.bias[scene.labels]
    torch.testing.assert_close(own, logits[torch.arange(4), scene.labels], rtol=1e-4, atol=1e-4)


def test_a_few_shot_run_has_no_classifier_to_attack(small_run, capsys):
    assert console.run(pgd.main, [str(small_run)]) == console.USER_ERROR
    assert "the run has no classifier of these classes" in one_line_error(capsys)
