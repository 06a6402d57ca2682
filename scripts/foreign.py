"""Foreign files made in memory, good ones and damaged ones: for tests, and for scripts/fuzz.py."""

from __future__ import annotations

import copy
import io
import json
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from fewshot.core import sealed

Damage = Callable[[random.Random, bytes, Sequence[bytes]], bytes]
"""(random, a good file, the other good files) -> a damaged file."""


def picture(kind: str, mode: str = "RGB") -> bytes:
    """A file of 17 x 24 pixels of noise."""
    file = io.BytesIO()
    noise = np.random.default_rng(len(kind)).integers(0, 256, (24, 17, 4), np.uint8)
    Image.fromarray(noise).convert(mode).save(file, kind)
    return file.getvalue()


def zip_of(members: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def tar_of(members: Mapping[str, bytes], mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


# ---- damage

_TOKENS = (
    b"\0", b"\xff" * 4, b"\xff\xff\xff\x7f", b"(", b"2\x86", b"../", b"-1", b"null", b"[[", b"1e999", b"\n", b'"', b",",
    b"cfuzz_trap\nSprung\n)R", b"cos\nsystem\n(S'true'\ntR", b"\x8c\tfuzz_trap\x8c\x06Sprung\x93)R",
    b"r\xff\xff\xff\x0f",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 10**400, 2**31, 2**62, -(2**63), 0.5, -0.0, 1e308, float("nan"), float("inf"), "",
    "proto", "none", "conv4", "../../x", "a.b", "a..b", "fuzz_trap.Sprung", "targetdrop@9", "targetdrop:gamma=9",
    "resnet12", "1" * 5000, "\x1b[2J", "\ud800", "cpu", "=1+1", [], {}, [[]], [None], [0.5] * 3, {"": 0}, [1, 5],
)  # fmt: skip


def spoil_bytes(rng: random.Random, good: bytes, others: Sequence[bytes]) -> bytes:
    """Damaged in one to eight places: bytes replaced, cut, doubled, taken from another file."""
    data = bytearray(good)
    for _ in range(1 << rng.randrange(4)):
        place = rng.randrange(len(data) + 1)
        # Headers and directories are at the ends of a file: half of the damage is done there.
        if len(data) > 128 and rng.random() < 0.5:
            place = rng.choice((rng.randrange(64), len(data) - rng.randrange(64)))
        match rng.randrange(6):
            case 0:
                data[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                data[place : place + 1] = rng.choice(_TOKENS)
            case 2:
                del data[place : place + rng.choice((1, 4, 64, 1 << 20))]
            case 3:
                data[place:place] = data[place : place + rng.choice((1, 8, 256))]
            case 4:
                other = rng.choice(others)
                start = rng.randrange(len(other))
                data[place:place] = other[start : start + rng.choice((2, 16, 128))]
            case _:
                if place < len(data):
                    data[place] ^= 1 << rng.randrange(8)
    return bytes(data)


def spoil_json(rng: random.Random, good: bytes, others: Sequence[bytes]) -> bytes:
    """Still JSON, or lines of it, with values changed, missing or added at one to four places."""
    texts = good.splitlines() if good.count(b"\n{") else [good]
    number = rng.randrange(len(texts))
    texts[number] = json.dumps(_spoilt(rng, json.loads(texts[number]))).encode()
    return b"\n".join(texts) + b"\n"


def spoil_sealed_json(rng: random.Random, good: bytes, others: Sequence[bytes]) -> bytes:
    """A sealed JSON file with other content, sealed again."""
    value = _spoilt(rng, {key: each for key, each in json.loads(good).items() if key != "sha256"})
    if not isinstance(value, dict) or not value:
        return json.dumps(value).encode()
    value.pop("sha256", None)
    return sealed.dump_json(value)


def spoil_zip(rng: random.Random, good: bytes, others: Sequence[bytes]) -> bytes:
    """A zip with correct directory and checksums, but with a member that is damaged, renamed or missing."""
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(list(members))
    match rng.randrange(8):
        case 0:
            del members[name]
        case 1:
            members[rng.choice(("../out", "/out", "a/b", name.upper(), " ", "x" * 300))] = members.pop(name)
        case _:
            members[name] = spoil_bytes(rng, members[name] or b"\0", list(filter(None, members.values())))
    return zip_of(members)


def spoil_safetensors(rng: random.Random, good: bytes, others: Sequence[bytes]) -> bytes:
    """A safetensors file with the right header length, but with other content in the header."""
    (length,) = struct.unpack("<Q", good[:8])
    header = json.dumps(_spoilt(rng, json.loads(good[8 : 8 + length]))).encode()
    return struct.pack("<Q", len(header)) + header + good[8 + length :]


def _spoilt(rng: random.Random, value: Any) -> Any:
    root = [copy.deepcopy(value)]
    for _ in range(1 << rng.randrange(3)):
        *path, last = rng.choice(places(root)[1:] or [(0,)])
        holder: Any = root
        for key in path:
            holder = holder[key]
        if path and rng.random() < 0.15:
            del holder[last]
        elif isinstance(holder, dict) and rng.random() < 0.1:
            holder[rng.choice(("", "format", "code", "x", "__proto__"))] = holder[last]
        else:
            holder[last] = copy.deepcopy(rng.choice(_VALUES))
    return root[0]


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Every place in a JSON value: the keys that lead there."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in items for place in places(each, (*path, key)))]
