"""Read a pickle of plain data without executing anything it carries.

A pickle is a program: it names callables and has them called. Here every name that it may utter
maps to one of the inert stand-ins below, never to the real object; any other name is refused.
Arrays are rebuilt from their bytes by `np.frombuffer`, so numpy's own constructors, which trust
their arguments, are not reachable either.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from fewshot.core.errors import UserError

_PLAIN = re.compile(r"[|<>=]?([biuf][1248]|b|\?)")  # booleans, integers, floats: no objects, no records


class _Refused(UserError):
    """The pickle asks for something that is not plain data."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the pickle {what}, which is not plain data; it was not read")


def load(file: BinaryIO, origin: str) -> dict[str, Any]:
    """The dict in a pickle of Python 2 or 3: numbers, strings, bytes, lists, tuples, dicts and arrays.

    Keys that Python 2 wrote as bytes become strings; so do those of dicts directly inside.
    Raises UserError naming what was refused, or that the file is truncated or corrupt.
    """
    try:
        # bytes, not latin1: an array's 800 MB would otherwise pass through a string and back
        content = _Unpickler(file, encoding="bytes").load()
    except _Refused as refusal:
        raise UserError(f"{origin}: {refusal}") from None
    except (OSError, KeyboardInterrupt):
        raise
    except Exception as error:  # a damaged pickle raises nearly anything: it runs as a program does
        raise UserError(f"{origin} is truncated or corrupt ({error}): fetch it again") from None
    if not isinstance(content, dict):
        raise UserError(f"{origin}: a dict was expected, the pickle holds a {type(content).__name__}")
    return {_text(key): _finish(value) for key, value in content.items()}


def _text(value: Any) -> Any:
    """A string that Python 2 pickled comes as bytes; anything else is returned as it is."""
    return value.decode("latin1") if isinstance(value, bytes) else value


def _finish(value: Any, inner: bool = False) -> Any:
    """Arrays for their stand-ins, strings for bytes as keys; no deeper, for a pickle may contain itself."""
    if isinstance(value, dict) and not inner:
        return {_text(key): _finish(item, inner=True) for key, item in value.items()}
    return value.array if isinstance(value, _Array) else value


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module.replace("numpy._core", "numpy.core"), name]
        except KeyError:
            raise _Refused(f"asks for {module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("refers to an object outside of it")


class _Call:
    """A stand-in that can be called and nothing else: it has no attributes for a pickle to set."""

    __slots__ = ("_function",)
    _function: Callable

    def __init__(self, function: Callable) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise _Refused(f"sets {name} of a function")


class _DType:
    """Stands for numpy.dtype: its code, then its byte order, which comes as state."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = _text(code)
        if not (isinstance(self.code, str) and _PLAIN.fullmatch(self.code)):
            raise _Refused(f"holds an array of type {self.code!r}")

    def __setstate__(self, state: tuple) -> None:
        order = _text(state[1])
        self.code = (order if order in "<>" else "") + self.code.lstrip("|<>=")

    def frombuffer(self, data: Any) -> np.ndarray:
        return np.frombuffer(data, np.dtype(self.code)) if data else np.empty(0, np.dtype(self.code))


class _Array:
    """Stands for numpy.ndarray: `array`, from the shape, type, order and bytes that come as state."""

    array: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _version, shape, dtype, column_major, data = state
        self.array = _shaped(data, dtype, shape, "F" if column_major else "C")


def _shaped(data: Any, dtype: Any, shape: tuple, order: Any) -> np.ndarray:
    if not isinstance(dtype, _DType) or not isinstance(data, (bytes, bytearray)):
        raise _Refused("holds an array of objects")
    return dtype.frombuffer(data).reshape(shape, order=_text(order))


def _contiguous(data: Any, dtype: Any, shape: tuple, order: Any) -> _Array:
    """numpy's _frombuffer: how protocol 5 writes a contiguous array."""
    result = _Array()
    result.array = _shaped(data, dtype, shape, order)
    return result


def _encode(string: str, encoding: str) -> bytes:
    """_codecs.encode: how Python 3 writes bytes in the old protocols."""
    if _text(encoding) != "latin1":
        raise _Refused(f"encodes text as {encoding!r}")
    return string.encode("latin1")


_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _Call(lambda *_: _Array()),
    ("numpy.core.multiarray", "scalar"): _Call(lambda dtype, data: dtype.frombuffer(data)[0].item()),
    ("numpy.core.numeric", "_frombuffer"): _Call(_contiguous),
    ("numpy", "ndarray"): "numpy.ndarray",  # only ever an argument of _reconstruct
    ("numpy", "dtype"): _Call(_DType),
    ("_codecs", "encode"): _Call(_encode),
    ("__builtin__", "bytes"): _Call(lambda: b""),  # how Python 3 writes that in the old protocols
}
