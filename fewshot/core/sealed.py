"""Files that carry their own digest, so that any change to them is noticed when they are read.

A sealed JSON file is an object whose last key is `sha256`: the digest of all bytes before the comma in front of it. Any
other sealed file ends with a line `sha256 DIGEST`: the digest of all bytes before that line.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

_JSON_SEAL = re.compile(rb',\n  "sha256": "([0-9a-f]{64})"\n\}\n\Z')
_LINE_SEAL = re.compile(rb"\nsha256 ([0-9a-f]{64})\n\Z")
_LINE = 73  # bytes of it
_CHANGED = "it is not what was written, by its sha256"


def sha256(data: bytes | memoryview) -> str:
    """Hex digest of `data`."""
    return hashlib.sha256(data).hexdigest()


def dump_json(value: dict[str, Any]) -> bytes:
    """`value` as a sealed JSON file. It has keys, and none of them is `sha256`."""
    assert value and "sha256" not in value
    body = json.dumps(value, indent=2).removesuffix("\n}").encode()
    return body + b',\n  "sha256": "' + sha256(body).encode() + b'"\n}\n'


def parse_json(data: bytes) -> tuple[dict[str, Any], bool]:
    """The object of a JSON file without its seal, and whether it had one.

    Raises ValueError if it is not a JSON object, or not what was sealed.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    seal = _JSON_SEAL.search(data, max(0, len(data) - 100))
    if "sha256" not in value and seal is None:
        return value, False
    if seal is None or sha256(data[: seal.start()]) != seal[1].decode():
        raise ValueError(_CHANGED)
    del value["sha256"]
    return value, True


def seal_line(data: bytes | memoryview) -> bytes:
    """What is to be written after `data`."""
    return b"\nsha256 " + sha256(data).encode() + b"\n"


def check_line(data: bytes) -> bool:
    """Whether a file ends with its seal. Raises ValueError if the seal is not that of the bytes before it."""
    seal = _LINE_SEAL.search(data, max(0, len(data) - _LINE))
    if seal is None:
        return False
    if sha256(memoryview(data)[: seal.start()]) != seal[1].decode():
        raise ValueError(_CHANGED)
    return True
