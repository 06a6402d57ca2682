"""Learning rates by epoch, as the papers' tables have them."""

from __future__ import annotations

import pytest

from fewshot import recipes
from fewshot.config import TrainConfig
from fewshot.core.errors import UserError
from fewshot.core.pace import Pace
from fewshot.experiment.setup import schedule
from fewshot.recipes import resolve


def rates_of(config):
    return schedule(config, config.episodic_pace)


def test_the_papers_table():
    config = TrainConfig(**recipes.values("mini-imagenet"))
    rates, pace = rates_of(config), config.episodic_pace
    assert (pace.epochs_done(124), pace.epochs_done(125), pace.steps) == (0, 1, 10_000)
    by_epoch = [rates.rate(epoch * 125) for epoch in (0, 11, 12, 29, 30, 44, 45, 79)]
    assert by_epoch == [0.1, 0.1, 0.003, 0.003, 0.00032, 0.00032, 0.00014, 0.00014]
    assert rates.rate(12 * 125 - 1) == 0.1


def test_cosine_falls_from_the_initial_rate_towards_zero():
    config = TrainConfig(epochs=2, episodes_per_epoch=40, lr=0.2)
    rates = [rates_of(config).rate(step) for step in range(10)]
    assert rates[0] == 0.2 and rates[5] == pytest.approx(0.1)
    assert rates == sorted(rates, reverse=True) and 0 < rates[-1] < 0.01


def test_constant():
    config = TrainConfig(schedule="constant")
    rates = rates_of(config)
    assert rates.rate(0) == rates.rate(9_999) == 0.1


def test_warm_up_rises_to_where_the_schedule_is():
    plain, warmed = (rates_of(TrainConfig(epochs=4, episodes_per_epoch=40, lr=0.2, warmup_epochs=n)) for n in (0, 2))
    assert warmed.warmup == 10
    expected = [plain.rate(0) / 10, plain.rate(4) / 2, plain.rate(9)]
    assert [warmed.rate(step) for step in (0, 4, 9)] == pytest.approx(expected)
    assert [warmed.rate(step) for step in range(10, 20)] == [plain.rate(step) for step in range(10, 20)]


def test_a_recipes_steps_may_be_without_effect():
    assert resolve("mini-imagenet", {"epochs": 2}).lr_epochs == (12, 30, 45)
    assert resolve("mini-imagenet", {"schedule": "cosine"}).lr_epochs == (12, 30, 45)
    assert resolve("glyphs", {"schedule": "steps", "epochs": 2, "lr_epochs": (0, 1), "lr_values": (0.1, 0.2)})


def test_a_table_without_numbers_is_refused():
    with pytest.raises(UserError, match="--schedule steps needs"):
        TrainConfig(schedule="steps")
    with pytest.raises(UserError, match="has 1 numbers and --lr-values 2"):
        TrainConfig(schedule="steps", lr_epochs=(1,), lr_values=(0.1, 0.01))


def test_an_epoch_that_begins_within_a_step_counts_from_the_next_one():
    """Epochs of 5 tasks, 2 a step: 5 tasks are reached in the third step, 10 at the end of the fifth."""
    assert [Pace(3, 5, 2).first_step(epoch) for epoch in range(4)] == [0, 3, 5, 8]


def test_validations_are_as_far_apart_as_asked_and_one_follows_the_last_step():
    """Epochs of 6 tasks, 4 a step, end in steps 2, 3, 5, 6 and 8; every second one of them in 3 and 6."""

    def validated(pace: Pace) -> list[int]:
        return [step for step in range(1, pace.steps + 1) if pace.validates_after(step)]

    assert validated(Pace(5, 6, 4)) == [2, 3, 5, 6, 8]
    assert validated(Pace(5, 6, 4, val_every=2)) == [3, 6, 8]
    config = TrainConfig(epochs=5, episodes_per_epoch=6, episodes_per_batch=4, val_every=2)
    assert validated(config.episodic_pace) == [3, 6, 8]
