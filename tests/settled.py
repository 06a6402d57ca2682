"""The training of `commands.SMALL` as a configuration, for tests that call Python."""

from __future__ import annotations

from commands import NETWORK

from fewshot.recipes import resolve

CONFIG = resolve(
    "glyphs",
    {
        "backbone": NETWORK, "epochs": 2, "episodes_per_epoch": 6, "episodes_per_batch": 2, "val_episodes": 20,
        "test_episodes": 50, "threads": 1, "device": "cpu", "precision": "fp32",
    },
)  # fmt: skip
