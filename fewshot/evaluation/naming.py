"""What results call a classifier: different ones differently, and one alike in every process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from fewshot.evaluation import classify, foreign
from fewshot.identity import digest

_DEEPEST = 20  # of what objects hold within one another; some hold themselves


def name(classifier: object) -> str:
    """As `classify.called`; and a digest of what it holds, where that is cut, or is not all that it says."""
    text, estimator = classify.called(classifier), hasattr(classifier, "get_params")
    if estimator and not text.endswith("..."):
        return text
    held = _held(classifier)
    return f"{text[:-12] + '...' if estimator else text}-{digest(_told(held), 8)}" if held else text


def _held(value: Any) -> dict[str, Any]:
    """An estimator's options, of scikit-learn's kind; any other object's attributes."""
    return value.get_params() if hasattr(value, "get_params") else dict(getattr(value, "__dict__", {}))


def _told(value: Any, depth: int = 0) -> Any:
    """A value in lists and texts, the same in every process: without addresses, and without the order of sets."""
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
