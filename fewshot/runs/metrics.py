"""metrics.jsonl: training appends to it, a checkpoint remembers how far it counts, readers get whole lines."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from fewshot.core import typed
from fewshot.core.errors import UserError
from fewshot.core.files import open_own, read_bounded
from fewshot.core.sealed import sha256

_METRICS = {
    "step": int, "loss": float, "accuracy": float, "dropped": float, "lr": float, "images_per_second": float,
    "validation": dict[str, float], "best": bool, "seconds": float,
}  # fmt: skip
_LARGEST = 256 * 2**20


class Log:
    """metrics.jsonl, to be written after its first `length` bytes; what is there already is cut off, and comes again.

    `digest`: the SHA-256 of these bytes, if it is known. Raises UserError if the file has fewer, or others.
    """

    def __init__(self, path: Path, length: int = 0, digest: str = "") -> None:
        self.path, self.length, self._sha256 = path, length, hashlib.sha256()
        try:
            handle = open_own(path, os.O_RDWR)
        except FileNotFoundError:
            if length:
                raise UserError(f"{path} is missing: bring it back, or {AGAIN}") from None
            return
        with os.fdopen(handle, "r+b") as file:
            while left := length - file.tell():
                if not (piece := file.read(min(left, 1 << 20))):
                    raise UserError(f"{path} is cut: it lacks {left:,} bytes; bring it back, or {AGAIN}")
                self._sha256.update(piece)
            if digest and digest != self.digest:
                raise UserError(f"{path} is damaged: it is not what the checkpoint counts on; {AGAIN}")
            file.truncate(length)

    @property
    def digest(self) -> str:
        """SHA-256 of all that was written."""
        return self._sha256.hexdigest()

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """One line each."""
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        with os.fdopen(open_own(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab", buffering=0) as file:
            written = 0
            while written < len(data):
                written += file.write(data[written:])
        self._sha256.update(data)
        self.length += len(data)

    def sync(self) -> None:
        """Wait until the file is on the disk, as the checkpoint that counts on it will be."""
        if self.length:
            with os.fdopen(open_own(self.path, os.O_RDONLY), "rb") as file:
                os.fsync(file.fileno())


AGAIN = "delete checkpoint.pt to start again from step 0"


def read(path: Path, digest: str = "", length: int | None = None) -> Iterator[dict[str, Any]]:
    """The logged lines, whole ones only: a log that is being written may end in half of one.

    `digest`: SHA-256 of the file, or of its first `length` bytes, if it is known. Raises UserError if they are others,
    or if a line is not as training writes it; FileNotFoundError if nothing is logged.
    """
    data = read_bounded(path, _LARGEST)
    if digest and sha256(memoryview(data)[:length]) != digest:
        raise UserError(f"{path} is damaged: it is not what environment.json says by its sha256")
    yield from map(partial(_parse, path), _whole(data).splitlines())


class Follower:
    """metrics.jsonl as it grows: each `read` gives the whole lines that have come since the last one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._length, self._last = 0, b""  # what was read: how many bytes, and their last line

    def read(self) -> tuple[bool, list[dict[str, Any]]]:
        """Whether the log was restarted or cut back since the last call, as by a run that goes on; and the new lines.

        If it was, they begin with the log's first one. Raises UserError if one is not as training writes it.
        """
        try:
            handle = open_own(self.path, os.O_RDONLY)
        except FileNotFoundError:
            data, anew = b"", self._length > 0
        else:
            with os.fdopen(handle, "rb") as file:
                file.seek(self._length - len(self._last))
                if anew := file.read(len(self._last)) != self._last:
                    file.seek(0)
                data = _whole(file.read(_LARGEST))
        if anew:
            self._length, self._last = 0, b""
        lines = data.splitlines(keepends=True)
        rows = [_parse(self.path, line) for line in lines]
        self._length, self._last = self._length + len(data), lines[-1] if lines else self._last
        return anew, rows


def _whole(data: bytes) -> bytes:
    """Without what follows the last line's end: a log that is being written may end in half a line."""
    return data[: data.rfind(b"\n") + 1]


def _parse(path: Path, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise UserError(f"{path} is damaged: a line of it is not JSON") from None
    if mistake := typed.wrong(row, _METRICS, ("step",)):
        raise UserError(f"{path} is damaged: {mistake}")
    return row
