"""Regimes: what a training step's batch is, what its loss is, and how the model is validated. One file a regime."""

from __future__ import annotations

from fewshot.core.components import Family
from fewshot.learning.regimes._base import Regime, Validation, validate_on_tasks

__all__ = ["FAMILY", "Regime", "Validation", "find", "validate_on_tasks"]

FAMILY: Family[Regime] = Family("fewshot.learning.regimes", "regime", "Regime")


def find(name: str) -> type[Regime]:
    """The class of a regime, by its name or its dotted path. UserError where there is none."""
    return FAMILY.find(name)
