"""Runs that were never trained, with classification results: they are right on the easy images, give or take noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fewshot.config import TrainConfig
from fewshot.evaluation.verdicts import Verdicts, guessed, keep
from fewshot.runs import CLASSIFICATION, Run

IMAGES, CLASSES = 1000, 10
TRUTH = np.arange(IMAGES) // (IMAGES // CLASSES)
HARDNESS = np.random.default_rng(0).random(IMAGES)


def fabricate(folder: Path, skill=0.9, seed=0, pixels="f" * 64, membership="m", truth=TRUTH, **changes) -> Path:
    """A finished run. Its regularizer is named after its folder, or after the parent if the folder is that of a seed.

    `changes` override fields of its row.
    """
    config = TrainConfig(seed=seed, reg=folder.parent.name if folder.name.startswith("seed") else folder.name)
    made = Run.create(config, str(folder), {"fingerprint": "f" * 64, "parameters": 1234, "steps": 50})
    made.note_sitting("a processor", "fp32", 1)
    noise = np.random.default_rng([seed, *str(config.reg).encode()]).normal(0, 0.05, IMAGES)
    right = HARDNESS + noise < skill
    found = Verdicts(truth, np.where(right, truth, (truth + 1) % CLASSES), np.ones(IMAGES, bool))
    row = {"dataset": "birds", "split": "test", "classes": CLASSES, "classifier": "linear", "membership": membership,
           "fingerprint": pixels} | found.figures(CLASSES)  # fmt: skip
    row |= {"at_chance": True} if guessed(row) else {}
    made.note_trained(60.0 + seed, 50, "")
    made.write_result([row | keep(made, "birds-test", found) | changes], tested=True, kind=CLASSIFICATION)
    return folder


def right(folder: Path) -> np.ndarray:
    """(n,) bool: which images its network classifies correctly."""
    record = np.load(folder / "images-birds-test.npz")
    return record["truth"] == record["predicted"]
