"""Check values from JSON, TOML or a caller against type hints: what a file says may be anything.

    wrong({"lr": "fast"}, {"lr": float})  ->  "lr is 'fast', not a number"
"""

from __future__ import annotations

import math
import operator
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from fewshot.core.errors import UserError

_NAMES = {int: "an integer", float: "a number", str: "text", bool: "true or false", type(None): "none"}
_LARGEST = 2**63  # torch and NumPy hold no larger integer


def wrong(values: Any, hints: Mapping[str, Any], needed: Iterable[str] = ()) -> str | None:
    """What is wrong with `values`, an object whose known names are `hints`: the first one missing or of another type.

    None if nothing is. Names without a hint may have any value. Lists and tuples count as the same.
    """
    if not isinstance(values, Mapping):
        return "it is not a JSON object"
    for name in needed:
        if name not in values:
            return f"it lacks {name}"
    for name, value in values.items():
        if name in hints and not fits(value, hints[name]):
            shown = repr(value)
            return f"{name} is {shown if len(shown) < 60 else shown[:50] + '...'}, not {described(hints[name])}"
    return None


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type: one of JSON's, a Literal, or lists, tuples, objects and unions of them. 3 is a
    float; True is not a number."""
    if type(value) is hint and hint is not int:  # most values of most files: nothing needs to be taken apart
        return True
    kind, of = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if kind is Literal:
        return any(value == each and type(value) is type(each) for each in of)
    if kind in (typing.Union, types.UnionType):
        return any(fits(value, each) for each in of)
    if kind in (list, tuple):
        if not isinstance(value, (list, tuple)):
            return False
        several = kind is list or of[1:] == (...,)
        return all(fits(each, of[0]) for each in value) if several else _each_fits(value, of)
    if kind is dict:
        return isinstance(value, Mapping) and all(fits(k, of[0]) and fits(v, of[1]) for k, v in value.items())
    if hint in (int, float) and isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < _LARGEST
    return isinstance(value, hint)


def integer(value: Any, name: str, least: int = 0, most: int = 2**31) -> int:
    """An integer that a caller gave, NumPy's included. Raises UserError if it is not one, or not within least..most."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise UserError(f"{name}={value!r}: give an integer")
    if not least <= number <= most:
        raise UserError(f"{name}={value!r}: give an integer from {least} to {most:,}")
    return number


def positive(value: float, name: str) -> float:
    """A positive number that a caller gave. Raises UserError if it is zero, negative, infinite or NaN."""
    if not 0 < value < math.inf:
        raise UserError(f"{name}={value} is not a positive number")
    return value


def _each_fits(values: Any, hints: tuple[Any, ...]) -> bool:
    return len(values) == len(hints) and all(map(fits, values, hints))


def described(hint: Any) -> str:
    """A type in words."""
    kind, of = typing.get_origin(hint), typing.get_args(hint)
    if kind is Literal:
        return " or ".join(map(repr, of))
    if kind in (typing.Union, types.UnionType):
        return " or ".join(map(described, of))
    if kind in (list, tuple):
        several = kind is list or of[1:] == (...,)
        return f"a list, each item {described(of[0])}" + ("" if several else f", {len(of)} of them")
    if kind is dict:
        return f"an object, each value {described(of[1])}"
    return _NAMES.get(hint, str(hint))
