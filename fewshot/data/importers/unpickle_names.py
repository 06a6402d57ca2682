"""The only names that a pickle may use, each an inert stand-in: see unpickle.py.

Arrays are rebuilt from their bytes by `np.frombuffer`: numpy's own constructors, which trust their arguments, are not
reachable.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewshot.core.errors import UserError, shown

_PLAIN = re.compile(r"[|<>=]?([biuf][1248]|b|\?)")  # booleans, integers, floats: no objects, no records


class Refused(UserError):
    """The pickle asks for something that is not plain data."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the pickle {what}, which is not plain data; it was not read")


def text(value: Any) -> Any:
    """Bytes, which is how Python 2 pickled strings, become text; anything else is returned unchanged."""
    return value.decode("latin1") if isinstance(value, bytes) else value


@dataclass(frozen=True)
class Call:
    """A stand-in that can be called."""

    function: Callable[..., Any]


class DType:
    """Stands for numpy.dtype: its code, then its byte order, which comes as state."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = text(code)
        if not isinstance(self.code, str) or not _PLAIN.fullmatch(self.code):
            named = shown(self.code) if isinstance(self.code, str) else type(self.code).__name__
            raise Refused(f"holds an array of type {named!r}")

    def set_state(self, state: tuple) -> None:
        order = text(state[1])
        self.code = (order if order in ("<", ">") else "") + self.code.lstrip("|<>=")

    def frombuffer(self, data: Any) -> np.ndarray:
        return np.frombuffer(data, np.dtype(self.code)) if data else np.empty(0, np.dtype(self.code))


class Array:
    """Stands for numpy.ndarray: `array`, from the shape, type, order and bytes that come as state."""

    array: np.ndarray | None = None

    def set_state(self, state: tuple) -> None:
        _version, shape, dtype, column_major, data = state
        self.array = _shaped(data, dtype, shape, "F" if column_major else "C")


def _shaped(data: Any, dtype: Any, shape: tuple, order: Any) -> np.ndarray:
    if not isinstance(dtype, DType) or not isinstance(data, (bytes, bytearray)):
        raise Refused("holds an array of objects")
    return dtype.frombuffer(data).reshape(shape, order=text(order))


def _contiguous(data: Any, dtype: Any, shape: tuple, order: Any) -> Array:
    """numpy's _frombuffer: how protocol 5 writes a contiguous array."""
    result = Array()
    result.array = _shaped(data, dtype, shape, order)
    return result


def _scalar(dtype: Any, data: Any) -> Any:
    """A NumPy number as a Python number."""
    if not isinstance(dtype, DType) or not isinstance(data, bytes):
        raise Refused("holds a number of objects")
    return dtype.frombuffer(data)[0].item()


def _encode(string: str, encoding: str) -> bytes:
    """_codecs.encode: how Python 3 writes bytes in the old protocols."""
    if text(encoding) != "latin1":
        raise Refused("encodes text in another way than latin1")
    return string.encode("latin1")


_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): Call(lambda *_: Array()),
    ("numpy.core.multiarray", "scalar"): Call(_scalar),
    ("numpy.core.numeric", "_frombuffer"): Call(_contiguous),
    ("numpy", "ndarray"): "numpy.ndarray",  # only ever an argument of _reconstruct
    ("numpy", "dtype"): Call(DType),
    ("_codecs", "encode"): Call(_encode),
    ("__builtin__", "bytes"): Call(lambda: b""),  # how Python 3 writes that in the old protocols
}


def stand_in(module: str, name: str) -> Any:
    known = _STAND_INS.get((module.replace("numpy._core", "numpy.core"), name))
    if known is None:
        raise Refused(f"asks for {shown(module)}.{shown(name)}")
    return known
