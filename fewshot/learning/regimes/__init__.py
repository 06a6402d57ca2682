"""Regimes: what a training step's batch is, what its loss is, and how the model is validated. One file per regime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fewshot.config import TrainConfig
from fewshot.core.components import Family, parse
from fewshot.core.compute import Compute
from fewshot.core.errors import UserError
from fewshot.data import Dataset
from fewshot.episodes import Tasks
from fewshot.learning.regimes._base import Regime, Validation, validate_on_images, validate_on_tasks

__all__ = ["FAMILY", "Regime", "Validation", "build", "classifies", "validate_on_images", "validate_on_tasks"]

FAMILY: Family[Regime] = Family("fewshot.learning.regimes", "regime", "Regime", constructor="build")


def build(spec: str, config: TrainConfig, dataset: Dataset, validation: Sequence[Tasks], compute: Compute) -> Regime:
    """Build a regime from its name or dotted path, and options: `supervised:batch=128`. See Regime.build.

    Raises UserError for an unknown name or option, and for what the regime refuses.
    """
    component, options = _check(spec)
    return component.build(config, dataset, validation, compute, **options)


def classifies(spec: str, dataset: Dataset) -> bool:
    """Whether a run of this regime is validated and tested on images: see Regime. Raises UserError as `build` does."""
    component, _ = _check(spec)
    return component.classifies and dataset.shared_classes


def _check(spec: str) -> tuple[type[Regime], dict[str, Any]]:
    (parsed, *more) = parse(spec)
    if more or parsed.sites:
        raise UserError(f"--regime {spec}: give one, without sites (they belong to --reg)")
    return FAMILY.check(parsed)
