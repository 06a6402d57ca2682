"""Arrays of numbers in a MATLAB 5 file, as the format's description defines them ("MAT-File Format", MathWorks).

    128 bytes of header, the last two b"IM": little-endian; then elements, one after another:
    type uint32, size uint32, that many bytes; or, if they are at most 4, type uint16, size uint16, 4 bytes
    15 (compressed): a zlib stream of one element
    14 (matrix): elements for its class, its dimensions, its name, and its values, column-major

Anything but a real array of numbers is ignored. Each element begins at a multiple of 8 bytes.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection, Iterator

import numpy as np

from fewshot.core.errors import UserError, shown
from fewshot.data.importers.items import Item
from fewshot.data.importers.limits import Budget

_HEAD = 128
_COMPRESSED, _MATRIX = 15, 14
_INT8, _INT32, _UINT32 = 1, 5, 6
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMBERS = range(6, 16)  # classes of arrays: double, single, and integers of 8 to 64 bits
_COMPLEX = 0x0800
_CHUNK = 1 << 20


def read_arrays(item: Item, names: Collection[str]) -> dict[str, np.ndarray]:
    """The file's arrays of these names, as it stores them: a double may come as the uint8 that it fits into.

    Raises UserError if it is not a MATLAB 5 file, is truncated or corrupt, or unpacks to more than the limits allow.
    """
    data = memoryview(item.read())
    if len(data) < _HEAD or bytes(data[126:128]) != b"IM":
        raise UserError(f"{item.origin} is no MATLAB 5 file of little-endian numbers: save it with -v6 or -v7")
    budget, found = Budget(item.origin, len(data), item.limits), {}
    try:
        for kind, content in _elements(data[_HEAD:]):
            if kind == _COMPRESSED:
                kind, content = next(_elements(_inflated(content, budget)))
            if kind == _MATRIX and (named := _array(content, names)):
                found[named[0]] = named[1]
    except UserError:
        raise
    except (ValueError, TypeError, struct.error, zlib.error, StopIteration) as error:
        raise UserError(f"{item.origin} is truncated or corrupt ({shown(error)}): fetch it again") from None
    return found


def _elements(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(type, bytes) of each element. ValueError if one is longer than what is left."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        short = kind >> 16
        start, size, kind = (at + 4, short, kind & 0xFFFF) if short else (at + 8, size, kind)
        if start + size > len(data) or short > 4:
            raise ValueError("an element that ends too early")
        yield kind, data[start : start + size]
        at = at + 8 if short else start + size + (-size % 8 if kind != _COMPRESSED else 0)


def _inflated(packed: memoryview, budget: Budget) -> memoryview:
    """What a zlib stream unpacks to. UserError if the budget does not allow it."""
    stream, data = zlib.decompressobj(), bytearray()
    chunk = stream.decompress(packed, _CHUNK)
    while chunk:
        budget.charge(len(chunk))
        data += chunk
        chunk = stream.decompress(stream.unconsumed_tail, _CHUNK)
    if not stream.eof:
        raise ValueError("a stream that ends too early")
    return memoryview(data)


def _array(content: memoryview, names: Collection[str]) -> tuple[str, np.ndarray] | None:
    """A matrix's name and values, if it is a real array of numbers and one of `names`."""
    parts = _elements(content)
    (flags_kind, flags), (sizes_kind, sizes), (name_kind, name) = next(parts), next(parts), next(parts)
    if (flags_kind, sizes_kind, name_kind) != (_UINT32, _INT32, _INT8):
        raise ValueError("a matrix without class, dimensions or name")
    (flag,) = struct.unpack_from("<I", flags)
    title = bytes(name).decode("latin1")
    if title not in names or flag & 0xFF not in _NUMBERS or flag & _COMPLEX:
        return None
    kind, values = next(parts)
    shape = tuple(np.frombuffer(sizes, "<i4").tolist())
    array = np.frombuffer(values, f"<{_TYPES[kind]}") if kind in _TYPES else None
    if array is None or min(shape, default=-1) < 0 or math.prod(shape) != array.size:
        raise ValueError("a matrix whose size is not that of its dimensions")
    return title, array.reshape(shape, order="F")
