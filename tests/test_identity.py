"""What identifies an experiment is written down, so that new fields, recipes and machines do not change it."""

from __future__ import annotations

import dataclasses

import pytest

from fewshot import identity, recipes
from fewshot.config import FIELDS, TrainConfig
from fewshot.recipes import resolve

# Digests of two configurations from when the table was frozen: changing them unpools every leaderboard.
PINNED = {"mini-imagenet": "7f2b8bb0", "glyphs": "f0ba64b0"}


def test_every_field_is_the_experiment_or_its_provenance():
    assert set(identity.FROZEN) | set(identity.PROVENANCE) == set(FIELDS)
    assert not set(identity.FROZEN) & set(identity.PROVENANCE)


@pytest.mark.parametrize("dataset", PINNED)
def test_the_identity_of_a_recipe_is_pinned(dataset):
    assert identity.digest(identity.experiment(resolve(dataset, {}))) == PINNED[dataset]


def test_a_field_that_is_added_later_moves_no_identity(monkeypatch):
    before = identity.experiment(resolve("glyphs", {}))
    monkeypatch.setitem(identity.FROZEN, "sharpness", 0)
    grown = dataclasses.make_dataclass("Grown", [("sharpness", int, 0)], bases=(TrainConfig,), frozen=True)
    values = dataclasses.asdict(resolve("glyphs", {}))
    assert identity.experiment(grown(**values)) == before
    assert identity.experiment(grown(**values, sharpness=1)) == before | {"sharpness": 1}


def test_the_same_values_by_flags_are_the_same_experiment():
    by_recipe = resolve("glyphs", {"recipe": "glyphs-quick"})
    by_flags = resolve("glyphs", {"recipe": "none", **recipes.values("glyphs-quick")})
    assert by_recipe.recipe != by_flags.recipe
    assert identity.experiment(by_recipe) == identity.experiment(by_flags)


def test_what_has_no_effect_is_no_part_of_it():
    plain = TrainConfig(shots=5, schedule="cosine")
    assert identity.experiment(dataclasses.replace(plain, val_shots=5)) == identity.experiment(plain)
    unused = dataclasses.replace(plain, lr_epochs=(3,), lr_values=(0.1,))
    assert identity.experiment(unused) == identity.experiment(plain)
    adamw = dataclasses.replace(plain, optimizer="adamw")
    assert identity.experiment(dataclasses.replace(adamw, momentum=0.5)) == identity.experiment(adamw)
    assert identity.experiment(dataclasses.replace(plain, momentum=0.5)) != identity.experiment(plain)


@pytest.mark.parametrize("change", [{"lr": 0.2}, {"reg": "dropout"}, {"ema": 0.9}, {"val_shots": 3}, {"queries": 7}])
def test_what_has_an_effect_is(change):
    plain = TrainConfig()
    assert identity.experiment(dataclasses.replace(plain, **change)) != identity.experiment(plain)


@pytest.mark.parametrize(
    "change", [{"seed": 3}, {"device": "cuda"}, {"threads": 2}, {"recipe": "x"}, {"test_shots": (1,)}]
)
def test_where_and_how_it_was_done_is_not(change):
    assert identity.experiment(dataclasses.replace(TrainConfig(), **change)) == identity.experiment(TrainConfig())


def test_an_integer_is_the_number_that_it_stands_for():
    written = TrainConfig(lr=1, jitter=0, schedule="steps", lr_epochs=(1,), lr_values=(1,))
    meant = TrainConfig(lr=1.0, jitter=0.0, schedule="steps", lr_epochs=(1,), lr_values=(1.0,))
    assert identity.digest(identity.experiment(written)) == identity.digest(identity.experiment(meant))
