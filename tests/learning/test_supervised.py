"""Supervised training against plain PyTorch; its batches, mixing and turns; its run folder and what builds on it."""

from __future__ import annotations

import dataclasses
import os
import signal
import warnings

import classes
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from commands import NETWORK, SMALL, one_line_error
from torchvision.transforms import v2

import fewshot
from fewshot import evaluate, experiment, train
from fewshot.classifiers import Classifier, Form
from fewshot.core import console
from fewshot.core.errors import UserError
from fewshot.core.seeding import derive, generator_for
from fewshot.data import open_dataset
from fewshot.evaluation.score import score
from fewshot.evaluation.solve import accuracies
from fewshot.learning.reporter import Reporter
from fewshot.recipes import resolve

CONFIG = resolve(
    "glyphs",
    {
        "backbone": NETWORK, "regime": "supervised:batch=32", "epochs": 1, "val_episodes": 20, "test_episodes": 50,
        "threads": 1, "device": "cpu", "precision": "fp32", "lr": 0.05, "schedule": "constant",
        "episodes_per_epoch": 1000,
    },
)  # fmt: skip
IMAGES = 7  # of each class: an epoch of a few steps, and enough for an episode


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    """The training split with few images of each class, its statistics unchanged."""
    whole = open_dataset

    def smaller(name, root):
        dataset = whole(name, root)
        train = dataset["train"]
        chosen = np.concatenate([np.flatnonzero(train.labels == label)[:IMAGES] for label in range(len(train.classes))])
        few = dataclasses.replace(train, images=train.images[chosen], counts=(IMAGES,) * len(train.classes))
        return dataclasses.replace(dataset, splits=dataset.splits | {"train": few})

    monkeypatch.setattr("fewshot.experiment.setup.open_dataset", smaller)


def setup(**changes) -> experiment.Setup:
    return experiment.prepare(dataclasses.replace(CONFIG, **changes))


def test_an_epoch_is_every_image_once_and_batches_run_over_its_end():
    regime = setup().regime
    count = IMAGES * len(setup().dataset["train"].classes)
    assert regime.pace(CONFIG).steps == -(-count // 32)
    stream = np.concatenate([regime._index(step) for step in range(3 * count // 32 + 1)])
    for epoch in range(3):
        assert sorted(stream[epoch * count : (epoch + 1) * count]) == list(range(count))
    assert not np.array_equal(stream[:count], stream[count : 2 * count])
    assert np.array_equal(regime._index(1), setup().regime._index(1))
    labels = regime.batch(1).labels.numpy()
    assert np.array_equal(labels, setup().dataset["train"].labels[regime._index(1)])


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_a_step_is_plain_pytorchs(kind, tmp_path):
    config = dataclasses.replace(CONFIG, regime=f"supervised:batch=32,classifier={kind},smoothing=0.1")
    made = experiment.prepare(config)
    batch, model = made.regime.batch(0), made.model.train()
    loss, accuracy = made.regime.loss(model, batch)
    again = experiment.prepare(config).model.train()
    z = again.backbone(again.normalise(batch.images))
    weight = again.state_dict()["classifier.weight"]
    if kind == "linear":
        logits = z @ weight.T + again.state_dict()["classifier.bias"]
    else:
        logits = 10 * (z / z.norm(dim=1, keepdim=True)) @ (weight / weight.norm(dim=1, keepdim=True)).T
    log_p = logits.log_softmax(1)
    expected = -(0.9 * log_p[torch.arange(32), batch.labels] + 0.1 * log_p.mean(1)).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert accuracy == (logits.argmax(1) == batch.labels).float().mean()


def test_mixing_is_what_it_says_and_its_loss_is_shared():
    """mixup: share * image + (1 - share) * other. cutmix: each pixel comes from one of the two, in the stated area."""
    plain = setup(jitter=0.0).regime
    for name, step in (("mixup", 0), ("cutmix", 3)):
        regime = setup(jitter=0.0, regime=f"supervised:batch=32,{name}=1.0").regime
        own, mixed = plain.batch(step), regime.batch(step)
        assert torch.equal(own.labels, mixed.labels) and 0 < mixed.share < 1
        draw = np.random.default_rng(derive(0, step, "mixing"))
        draw.integers(1)
        draw.beta(1.0, 1.0)
        order = draw.permutation(32)
        assert torch.equal(mixed.others, own.labels[order])
        if name == "mixup":
            expected = mixed.share * own.images + (1 - mixed.share) * own.images[order]
            assert torch.allclose(mixed.images, expected, atol=1e-6)
        else:
            mine, theirs = mixed.images == own.images, mixed.images == own.images[order]
            assert (mine | theirs).all()
            replaced = (~mine.all(1)).any(0).float().mean().item()  # pixels in which some image is not its own
            assert replaced == pytest.approx(1 - mixed.share, abs=0.05)
    model = setup().model.train()
    logits = model.classifier(model(mixed.images))
    one, other = F.cross_entropy(logits, mixed.labels), F.cross_entropy(logits, mixed.others)
    loss, _ = regime.loss(setup().model.train(), mixed)
    assert loss.item() == pytest.approx((mixed.share * one + (1 - mixed.share) * other).item(), rel=1e-5)


def test_randaugment_is_torchvisions_from_the_runs_own_seeds():
    """Image by image: the same in any batch of the step, whatever else was drawn, and no other draw changes."""
    plain, regime = setup().regime, setup(regime="supervised:batch=32,randaugment=2,magnitude=12").regime
    torch.manual_seed(5)
    before = torch.get_rng_state()
    own, changed = plain.batch(3), regime.batch(3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(own.labels, changed.labels) and changed.images.shape == own.images.shape
    transform = v2.RandAugment(2, 12)
    for number, (image, found) in enumerate(zip(own.images, changed.images, strict=True)):
        torch.manual_seed(derive(0, 3 * 32 + number, "RandAugment"))
        assert torch.equal((found * 255).round(), transform((image * 255).round().to(torch.uint8)).float())
    assert torch.equal(regime.batch(3).images, changed.images)
    assert not torch.equal(changed.images, own.images) and 0 <= changed.images.min() and changed.images.max() <= 1


def test_rotation_shows_each_image_in_four_turns():
    made = setup(regime="supervised:batch=8,rotation=true")
    assert made.regime.images_per_step == 32
    batch, model, seen = made.regime.batch(0), made.model.train(), []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    loss, _ = made.regime.loss(model, batch)
    normal = model.normalise(batch.images)
    for turn, part in enumerate(seen[0].split(8)):
        assert torch.allclose(part, torch.rot90(normal, turn, (2, 3)))
    z = setup(regime="supervised:batch=8,rotation=true").model.train().backbone(seen[0])
    named = F.cross_entropy(model.classifier(z), batch.labels.repeat(4))
    turned = F.cross_entropy(model.classifier.rotated(z), torch.arange(4).repeat_interleave(8))
    assert loss.item() == pytest.approx((named + turned).item(), rel=1e-4)


@pytest.mark.parametrize(("backbone", "mixup", "step"), [("conv4", 0, 0), ("resnet8", 0, 0), ("conv4", 1.0, 1)])
def test_camdrop_is_guided_by_the_classifiers_own_weights(backbone, mixup, step):
    """fc.weight[y] on the channels of the deepest map; y of a mixed image is the class that it shows most of."""
    made = setup(reg="camdrop", backbone=backbone, regime=f"supervised:batch=32,mixup={mixup}")
    guides = []
    with_guide = made.model.backbone.guided_by
    made.model.backbone.guided_by = lambda guide: (guides.append(guide), with_guide(guide))[1]
    batch = made.regime.batch(step)
    made.regime.loss(made.model.train(), batch)
    (guide,) = guides
    weights = made.model.classifier.weight
    sites = made.model.backbone.sites[-1]
    assert torch.allclose(guide.weights, weights.view(len(weights), sites.channels, -1).mean(2))
    if backbone == "resnet8":  # which averages over positions: a weight a channel
        assert torch.allclose(guide.weights, weights)
    assert torch.equal(guide.labels, batch.labels if batch.share > 0.5 else batch.others)
    assert (batch.share < 0.5) == bool(mixup)  # as drawn for this step


@pytest.mark.parametrize("options", ["classifier=cosine", "rotation=true", "mixup=1.0"])
def test_camdrop_can_go_by_the_class_that_the_classifier_names(options):
    made = setup(reg="camdrop:label=named", regime=f"supervised:batch=32,{options}")
    assert not made.regime.warning(made.model)
    own = setup(reg="camdrop", regime=f"supervised:batch=32,{options}")
    assert "camdrop is given each image's true class" in own.regime.warning(own.model)
    guides = []
    with_guide = made.model.backbone.guided_by
    made.model.backbone.guided_by = lambda guide: (guides.append(guide), with_guide(guide))[1]
    batch = made.regime.batch(0)
    turned = [batch.images.rot90(turns, (2, 3)) for turns in range(4 if "rotation" in options else 1)]
    with torch.no_grad():
        named = made.model.classifier(made.model.eval()(torch.cat(turned))).argmax(1)
    guides.clear()
    made.regime.loss(made.model.train(), batch)
    assert made.model.training
    (guide,) = guides
    assert len(guide.labels) == len(named) and not torch.equal(guide.named, guide.labels)
    assert (guide.named == named).float().mean() > 0.95  # memory layouts round differently


def test_weight_decay_is_magnified_on_the_steps_that_participate_and_on_no_other(tmp_path):
    """FocusedDropout, section 3: the same weights as plain SGD that is told its weight decay step by step."""
    reg = "focuseddropout:participation=0.5,weight_decay_scale=3"
    data = {"dataset": "letters", "data_root": str(classes.make(tmp_path / "data"))}
    config = dataclasses.replace(CONFIG, regime="supervised:batch=10", reg=reg, weight_decay=0.1, **data)
    run = experiment.run(config, tmp_path / "run")
    made = experiment.prepare(config)
    model, steps = made.model.train(), made.regime.pace(config).steps
    sgd = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, nesterov=True)
    seeds = [torch.randint(2**63 - 1, (), generator=generator_for(0, step, "regularizers")) for step in range(steps)]
    drawn = [torch.rand((), generator=torch.Generator().manual_seed(int(seed))).item() < 0.5 for seed in seeds]
    assert steps == 6 and 0 < sum(drawn) < 6
    for step, participates in enumerate(drawn):
        for each in model.backbone.regularizers:
            each.participates.fill_(participates)
        torch.manual_seed(derive(0, step, "masks"))
        loss, _ = made.regime.loss(model, made.regime.batch(step))
        sgd.zero_grad()
        loss.backward()
        sgd.param_groups[0]["weight_decay"] = 0.3 if participates else 0.1
        sgd.step()
    trained = torch.load(run.checkpoint_path, weights_only=True)["model"]
    assert all(torch.allclose(weight, trained[name], atol=1e-5) for name, weight in model.named_parameters())
    dropped = [row["dropped"] > 0 for row in run.metrics() if "dropped" in row]
    assert dropped == drawn


class Stop(Reporter):
    """Asks the training to stop once it has come to step 20: twice, as a service manager may."""

    def step(self, step, *_):
        if step == 20:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_resumes_to_the_bit_and_learns(tmp_path):
    regime = "supervised:batch=64,mixup=0.2,randaugment=1"
    config = dataclasses.replace(CONFIG, regime=regime, reg="camdrop+focuseddropout")
    with pytest.warns(UserWarning, match="camdrop is given each image's true class in training"):
        whole = experiment.run(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt, match="interrupted at step 20"):
        experiment.run(config, tmp_path / "cut", Stop())
    cut = experiment.run(config, tmp_path / "cut", Reporter(), resume=True)
    one, other = (torch.load(run.checkpoint_path, weights_only=True)["model"] for run in (whole, cut))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert one["classifier.weight"].shape == (337, 64)
    losses = [row["loss"] for row in whole.metrics() if "loss" in row]
    assert len(losses) == whole.steps == whole.summary["steps"] == 37
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    assert whole.resolved["classifier"] == {"kind": "linear", "classes": 337, "rotations": 0}
    code = {"classifiers.py", "data/randaugment.py", "data/mixing.py", "core/pace.py"}
    code |= {f"evaluation/{name}.py" for name in ("embed", "score", "solve", "classification", "verdicts")}
    assert code <= whole.resolved["code"]["ours"].keys()
    of_data = {name for name in whole.resolved["code"]["ours"] if name.startswith("data/")}
    always = {f"data/{name}.py" for name in ("augment", "image_files", "images", "joined")}
    assert of_data == always | {"data/randaugment.py", "data/mixing.py"}, "what is done to images, and no importer"


def test_what_follows_on_it(tmp_path, capsys):
    """Any head evaluates it, fewshot.load loads it, and an episodic run begins with its backbone.

    Its own head and transform are fitted on the base classes, in each validation as in the test.
    """
    changes = {"regime": "supervised:batch=600,classifier=cosine", "head": "simpleshot", "transform": "power+whiten"}
    run = experiment.run(dataclasses.replace(CONFIG, **changes, ema=0.5), tmp_path / "run")
    made = setup(**changes)
    scored = score(fewshot.load(run.folder), made.validation, made.compute, made.dataset["train"])
    queries = made.validation[0].protocol.queries
    means = [accuracies(right, queries).mean() for right in scored]
    assert [list(row["validation"].values()) for row in run.metrics() if "validation" in row] == [means]
    trained = torch.load(run.checkpoint_path, weights_only=True)["model"]
    assert trained.keys() == made.model.state_dict().keys(), "what they learned is in no checkpoint"
    assert [row["shots"] for row in run.rows] == [1, 5] and "classification" not in run.result
    assert {name for row in run.metrics() for name in row.get("validation", {})} == {"1shot", "5shot"}
    few = ["--episodes", "40", "--device", "cpu", "--threads", "1"]
    assert console.run(evaluate.main, [str(run.folder), "--head", "r2d2", *few]) == 0
    model = fewshot.load(run.folder)
    assert model.classifier is not None and model.classifier.kind == "cosine"
    flags = ["--init", str(run.folder), "--epochs", "0", "--out", str(tmp_path / "on")]
    assert console.run(train.main, [*SMALL, *flags]) == 0
    begun = fewshot.load(tmp_path / "on")
    assert begun.classifier is None
    layers = {name: tensor for name, tensor in model.backbone.state_dict().items() if not name.startswith("regs.")}
    assert layers and all(torch.equal(begun.backbone.state_dict()[name], tensor) for name, tensor in layers.items())


@pytest.mark.parametrize(
    ("regime", "message"),
    [
        ("supervised:batch=1", "supervised:batch=1: give at least 2 images"),
        ("supervised:smoothing=1.5", "supervised:smoothing=1.5: give 0 or more"),
        ("supervised:mixup=-1", "supervised:mixup=-1.0: give 0 for none"),
        ("supervised:randaugment=-1", "supervised:randaugment=-1: give 0 for none"),
        ("supervised:randaugment=2,magnitude=31", "supervised:magnitude=31: give 0 to 30"),
        ("supervised:clasifier=cosine", "unknown option of regime 'supervised': 'clasifier'"),
        ("supervised:classifier=svm", "unknown value of supervised:classifier"),
        ("supervised@3", "--regime supervised@3: give one, without sites"),
        ("supervized", "unknown regime 'supervized'"),
    ],
)
def test_mistakes_are_one_line(regime, message, tmp_path, capsys):
    assert console.run(train.main, [*SMALL, "--regime", regime, "--out", str(tmp_path / "run")]) == 2
    assert message in one_line_error(capsys)
    assert not (tmp_path / "run").exists()


def test_a_damaged_classifier_in_a_run_is_named(tmp_path, capsys):
    run = experiment.run(dataclasses.replace(CONFIG, epochs=0), tmp_path / "run")
    path = run.folder / "config.json"
    text = path.read_text()
    assert text.count('"classes": 337') == 1
    path.write_text(text.replace('"classes": 337', '"classes": "many"'))
    with pytest.raises(UserError, match="config.json is damaged"):
        fewshot.load(run.folder)


def test_options_of_episodes_are_named_where_there_are_none(tmp_path, capsys):
    flags = ["--regime", "supervised:batch=64", "--epochs", "0", "--recipe", "none", "--embed", "separate"]
    assert console.run(train.main, [*SMALL, *flags, "--out", str(tmp_path / "run")]) == 0
    said = " ".join("".join(capsys.readouterr()).split())
    idle = "--episodes-per-epoch, --episodes-per-batch, --embed: no effect with --regime supervised:batch=64."
    assert f"Warning: {idle}" in said


def test_options_of_episodes_that_only_the_recipe_has_are_not_named(tmp_path):
    few = {"epochs": 0, "val_episodes": 5, "test_episodes": 5, "threads": 1, "device": "cpu"}
    config = fewshot.configure(dataset="glyphs", regime="supervised:batch=64", **few)
    assert config.recipe == "glyphs" and config.episodes_per_epoch == 400
    for each, said in ((config, 0), (dataclasses.replace(config, episodes_per_epoch=500), 1)):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            experiment.run(each, tmp_path / str(said))
        assert sum("--episodes-per-epoch: no effect" in str(warning.message) for warning in told) == said


def test_it_validates_every_so_many_epochs():
    config = dataclasses.replace(CONFIG, epochs=6, val_every=3)
    pace = experiment.prepare(config).regime.pace(config)
    done = [pace.epochs_done(step) for step in range(1, pace.steps + 1) if pace.validates_after(step)]
    assert done == [3, 6]


def test_smoothing_mixing_and_turns_together_are_their_sum_written_out():
    """Both classes of a mixed image are smoothed, in all four turns, and the turns are not.

    The right class is the one that an image shows most of.
    """
    changes = {"regime": "supervised:batch=8,smoothing=0.5,mixup=1.0,rotation=true"}
    made = setup(**changes)
    batch, model = made.regime.batch(1), made.model.train()
    assert batch.share < 0.5 and not torch.equal(batch.labels, batch.others)
    loss, _ = made.regime.loss(model, batch)
    again = setup(**changes).model.train()
    z = again.backbone(again.normalise(torch.cat([torch.rot90(batch.images, turn, (2, 3)) for turn in range(4)])))
    log_p, log_turn = again.classifier(z).log_softmax(1), again.classifier.rotated(z).log_softmax(1)
    rows = torch.arange(32)

    def smoothed(labels):
        return -(0.5 * log_p[rows, labels.repeat(4)] + 0.5 * log_p.mean(1)).mean()

    expected = batch.share * smoothed(batch.labels) + (1 - batch.share) * smoothed(batch.others)
    expected = expected - log_turn[rows, rows // 8].mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    classes = len(model.classifier.weight)
    model.classifier.forward = lambda z: F.one_hot(batch.others.repeat(4), classes).float()
    assert made.regime.loss(model, batch)[1] == 1


def test_images_are_changed_by_randaugment_before_they_are_mixed():
    changed = setup(regime="supervised:batch=16,randaugment=2").regime.batch(2).images
    mixed = setup(regime="supervised:batch=16,randaugment=2,mixup=1.0").regime.batch(2)
    draw = np.random.default_rng(derive(0, 2, "mixing"))
    draw.integers(1)
    draw.beta(1.0, 1.0)
    expected = mixed.share * changed + (1 - mixed.share) * changed[draw.permutation(16)]
    assert torch.allclose(mixed.images, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_scores_of_classes_are_float32_whatever_the_autocast(kind):
    classifier, z = Classifier(Form(kind, 7, 4), 16), torch.randn(5, 16).bfloat16()
    expected = classifier(z.float()), classifier.rotated(z.float())
    with torch.autocast("cpu", torch.bfloat16):
        found = classifier(z), classifier.rotated(z)
    for ours, plain in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32 and torch.equal(ours, plain)
