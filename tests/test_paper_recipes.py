"""Recipes of the papers' classification tables: complete, as the tables have them, and each takes a true step."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import numpy as np
import paper_rows
import pytest
import torch
from PIL import Image

from fewshot import experiment, recipes
from fewshot.config import FIELDS
from fewshot.core import sealed
from fewshot.core.components import parse
from fewshot.data import dataset_json, specs, store
from fewshot.data.image_files import ImageFiles
from fewshot.identity import FROZEN
from fewshot.learning import optimizer

ROWS = paper_rows.every_row()
CLASSES = {"tiny-imagenet": 200, "imagenet": 1000}  # if the specification does not say it
NO_KNOBS = {
    "head", "transform", "ways", "shots", "queries", "embed", "episodes_per_epoch", "episodes_per_batch", "test_ways",
    "test_queries", "val_episodes", "val_shots", "clip_norm", "ema", "warmup_epochs", "sync_bn",
}  # fmt: skip


def test_every_row_says_what_it_is_and_every_part_is_in_one():
    parts = {name for name in recipes.names() if name.partition("/")[0] in recipes.papers()}
    used = set()
    for row in ROWS:
        paper = row.recipe.partition("/")[0]
        names = row.recipe.removeprefix(f"{paper}/").split("+")
        used |= {f"{paper}/{name}" for name in names}
        assert set(recipes.values(row.recipe)) >= FROZEN.keys() - NO_KNOBS - {"lr_epochs", "lr_values"}, row.recipe
        assert set(recipes.values(row.recipe)) <= FIELDS.keys() - NO_KNOBS
    assert parts - used == {"camdrop/mnist"}, "figure 4's"


def test_numbers_of_the_papers():
    """As far as our notes have them; some that would show a slip."""
    tables = {table.name: table for table in paper_rows.tables()}
    papers = {row.recipe: row.paper for table in tables.values() for row in table.rows}
    assert papers["targetdrop/cifar-10+wrn28_10+targetdrop"] == 3.68
    assert papers["focuseddropout/cifar-100+resnet110+focuseddropout"] == 76.43
    assert papers["camdrop/cifar-10+camdrop"] == 4.19
    for table in tables.values():
        known = [row.paper for row in table.rows if row.paper is not None]
        right = [100 - number if table.measure == "error" else number for number in known]
        assert all(60 < number < 100 for number in right), table.name
    # The TargetDrop paper quotes AttentionDrop's table.
    for ours, theirs in (("cifar-100", "cifar-100"), ("cifar-100+dropblock",) * 2, ("cifar-10",) * 2):
        assert papers[f"targetdrop/{ours}"] == pytest.approx(100 - papers[f"attentiondrop/{theirs}"])


def test_a_row_is_compared_with_what_it_adds_to():
    baselines = {row.recipe: row.baseline for row in ROWS}
    assert baselines["targetdrop/cifar-10+vgg16+targetdrop"] == "targetdrop/cifar-10+vgg16"
    assert baselines["camdrop/cifar-10+lr-2+camdrop"] == "camdrop/cifar-10+lr-2"
    assert baselines["focuseddropout/cifar-10"] is None


def rows_to_try() -> list[paper_rows.Row]:
    """A few rows that cover every data set, network and regularizer; all rows if FEWSHOT_EVERY_RECIPE is 1.

    Each network whose step takes a second has one row: with CamDrop if there is such a row, else any.
    """
    found, seen = [], set()
    for row in sorted(ROWS, key=lambda row: ("camdrop" not in row.config.reg, row.recipe)):
        config = row.config
        parts = {("dataset", config.dataset), ("backbone", config.backbone), ("reg", config.reg)}
        if config.backbone in ("wrn28_10", "torchvision:resnet50"):
            parts = {("backbone", config.backbone)}
        if parts - seen or os.environ.get("FEWSHOT_EVERY_RECIPE") == "1":
            found.append(row)
            seen |= parts
    return found


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each data set with its own classes and image size, but few images a class; ImageNet's are all one file."""
    root = tmp_path_factory.mktemp("data")
    for name in {row.config.dataset for row in ROWS}:
        spec, entries = specs.get(name), {}
        classes = sorted(spec.splits["train"]) if spec.splits else [f"n{number:08d}" for number in range(CLASSES[name])]
        (root / name).mkdir()
        Image.fromarray(np.full((60, 50, 3), 90, np.uint8)).save(root / name / "one.JPEG")
        bytes_ = (root / name / "one.JPEG").stat().st_size
        for seed, (split, count) in enumerate((("train", 2), ("val", 1), ("test", 1))):
            shape = (count * len(classes), spec.image_size, spec.image_size, 3)
            counts = [count] * len(classes)
            entry = {"classes": classes, "counts": counts, "shape": list(shape)}
            if spec.in_files:
                listed = store.list_of(ImageFiles(root / name, ["one.JPEG"] * shape[0], [bytes_] * shape[0], shape[1]))
                (root / name / f"{split}.txt").write_bytes(listed)
                entries[split] = entry | {"sha256": sealed.sha256(listed), "files": str(root / name)}
                continue
            pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
            digest = store.write_array(root / name / f"{split}.npy", shape, [pixels])
            entries[split] = entry | {"sha256": digest}
        dataset_json.write(root / name, name, entries, "noise", [], {}, spec.normalisation)
    return root


@pytest.mark.parametrize("row", rows_to_try(), ids=lambda row: row.recipe)
def test_a_recipe_takes_one_true_step(row, data_root):
    """Network, regularizers, classes and image size are the recipe's; the batch is 2."""
    config = dataclasses.replace(row.config, data_root=str(data_root), device="cpu", precision="fp32", threads=1)
    config = dataclasses.replace(config, regime=re.sub(r"batch=\d+", "batch=2", config.regime))
    made = experiment.prepare(config)
    model, classes = made.model, len(made.dataset["train"].classes)
    assert made.regime.pace(config).per_epoch == 3 * classes, "validation images are trained on, too"
    named = [spec.name for spec in parse(config.reg) if spec.name != "none" and "drops" not in spec.options]
    assert {type(reg).__name__.lower() for reg in model.backbone.regularizers if reg.active} == set(named)
    steps = optimizer.build(config.optimizer, model.parameters(), config.lr, config.momentum, config.weight_decay)
    before = model.classifier.weight.detach().clone()
    torch.manual_seed(0)
    model.train()
    model.backbone.begin_step(0.5, torch.Generator().manual_seed(0))
    loss, _ = made.regime.loss(model, made.regime.batch(0))
    loss.backward()
    steps.step()
    assert loss.isfinite() and before.shape == (classes, model.backbone.features)
    assert not torch.equal(model.classifier.weight, before) and model.classifier.weight.isfinite().all()
