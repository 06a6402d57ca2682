"""Recipes: the cells of table 3 differ only in what they must, and each length has its number of steps."""

from __future__ import annotations

import pytest

from fewshot import recipes
from fewshot.config import FIELDS
from fewshot.core.errors import UserError
from fewshot.recipes import resolve

CELLS = [name for name in recipes.names() if name.startswith("table3/") and name.endswith("shot")]
ASIDE = {"data_root", "recipe", "seed", "device", "precision", "threads", "compile", "deterministic",
         "checkpoint_seconds", "init", "sync_bn"}  # fmt: skip


def steps(name: str) -> int:
    return resolve("mini-imagenet", {"recipe": name}).episodic_pace.steps


def test_there_are_twelve_cells_with_every_knob_visible():
    assert len(CELLS) == 12
    for name in CELLS:
        assert set(recipes.values(name)) == set(FIELDS) - ASIDE, name


@pytest.mark.parametrize("name", CELLS)
def test_cells_differ_in_method_and_shots_alone(name):
    first, ours = recipes.values(CELLS[0]), recipes.values(name)
    differing = {field for field in ours if ours[field] != first[field]}
    assert differing <= {"backbone", "head", "reg", "shots", "val_shots"}
    assert ours["shots"] == ours["val_shots"] == int(name[-5])


def test_lengths():
    cell = "table3/proto-resnet12-dropblock-5shot"
    assert [steps(cell + length) for length in ("", "+long", "+quick", "+cpu")] == [10_000, 80_000, 1_000, 250]
    metaoptnet = resolve("mini-imagenet", {"recipe": cell + "+metaoptnet"})
    assert (metaoptnet.episodic_pace.steps, metaoptnet.shots, metaoptnet.val_shots) == (60_000, 15, 5)
    assert metaoptnet.embed == "separate"
    assert metaoptnet.reg == "original", "what the variant does not name stays the cell's"
    flawed = resolve("mini-imagenet", {"recipe": cell + "+metaoptnet+metaoptnet-dropblock"})
    assert "variant=metaopt,ramp=0.11" in flawed.reg and flawed.episodic_pace.steps == 60_000


def test_flags_override_every_recipe():
    assert resolve("mini-imagenet", {"recipe": CELLS[0] + "+cpu", "lr": 0.05}).lr == 0.05


def test_an_unknown_variant_is_named():
    with pytest.raises(UserError, match="unknown recipe 'table3/quik'"):
        recipes.values(CELLS[0] + "+quik")
