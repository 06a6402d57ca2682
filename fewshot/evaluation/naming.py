"""What results call a solver given as an object: different ones have different names, the same in every process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from fewshot.evaluation import classify, foreign
from fewshot.identity import digest

_DEEPEST = 20  # levels of objects that hold one another; some hold themselves


def name(classifier: object) -> str:
    """As `classify.called`, with a digest of what the classifier holds if that name is cut or does not say it all."""
    text, estimator = classify.called(classifier), hasattr(classifier, "get_params")
    if estimator and not text.endswith("..."):
        return text
    held = _held(classifier)
    return f"{text[:-12] + '...' if estimator else text}-{digest(_told(held), 8)}" if held else text


def module_name(part: nn.Module) -> str:
    """The name of a head or transform: its class, and a digest of its options and weights.

    The options of a class are what it tells in `extra_repr`; of one that does not write this method, all attributes.
    """
    silent = [
        [name, type(each).__qualname__, _told(options)]
        for name, each in part.named_modules()
        if type(each).extra_repr is nn.Module.extra_repr and (options := _public(each))
    ]
    known = foreign.digest(part)
    return f"{type(part).__name__}-{digest([known, silent], 8) if silent else known[:8]}"


def _public(module: nn.Module) -> dict[str, Any]:
    """A module's own attributes, without torch's: in which mode it is makes it no other method."""
    return {name: value for name, value in vars(module).items() if name[:1] != "_" and name != "training"}


def _held(value: Any) -> dict[str, Any]:
    """The options of an estimator like scikit-learn's; the attributes of any other object."""
    return value.get_params() if hasattr(value, "get_params") else dict(getattr(value, "__dict__", {}))


def _told(value: Any, depth: int = 0) -> Any:
    """A value as lists and texts, the same in every process: without addresses, and without the order of sets."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.generic)):
        return repr(value)
    if depth == _DEEPEST:
        return type(value).__qualname__
    if isinstance(value, (Tensor, np.ndarray, nn.Module)):
        return foreign.digest(value)
    if isinstance(value, Mapping):
        return sorted([repr(_told(key, depth + 1)), _told(each, depth + 1)] for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return [_told(each, depth + 1) for each in value]
    if isinstance(value, (set, frozenset)):
        return sorted(repr(_told(each, depth + 1)) for each in value)
    if callable(value) and hasattr(value, "__qualname__"):  # a function or a class
        return f"{value.__module__}.{value.__qualname__}"
    return [type(value).__qualname__, _told(_held(value), depth + 1)]
