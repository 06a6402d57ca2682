"""A file of a source, wherever it lies: in a folder, in an archive, in an archive's archive."""

from __future__ import annotations

import errno
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from fewshot.core.errors import UserError

# What the standard library raises on damaged, truncated or encrypted containers.
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,  # an offset or a date that cannot be
    RuntimeError,  # encrypted
    NotImplementedError,
)


@dataclass(frozen=True)
class Item:
    """One file. `origin` names it in messages; `parts` are the names from the source down to its own.

    `packed`: it is in an archive.
    """

    origin: str
    parts: tuple[str, ...]
    open: Callable[[], BinaryIO]
    packed: bool = False

    @property
    def name(self) -> str:
        return self.parts[-1]

    def read(self, size: int = -1) -> bytes:
        """Its bytes, or the first `size` of them. Raises UserError where its container is damaged."""
        with naming_damage(self.origin), self.open() as file:
            return file.read(size)


@contextmanager
def naming_damage(origin: str) -> Iterator[None]:
    """Turn what the standard library raises on a damaged container into a UserError that names it."""
    try:
        yield
    except UserError:
        raise
    except (*_DAMAGE, OSError) as error:
        # A decompressor's own OSError has no number, a seek to a nonsense place has EINVAL; others are the disk's.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise UserError(f"{origin} is truncated or corrupt ({error}): fetch it again") from None


def some(names: Iterable[str], shown: int = 3) -> str:
    """'a, b, c and 7 more': enough to find them, short enough for one line."""
    names = list(names)
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def files_below(path: str) -> Iterator[Item]:
    """Every file of a folder in the order of names, or the one file that `path` is.

    Links are followed (large sets are often linked together), each folder once.
    """
    root = os.path.abspath(path)
    above = os.path.dirname(root)
    if os.path.isfile(root):
        yield _file(root, above)
        return
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=_raise):
        if os.path.realpath(folder) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(folder))
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        yield from (_file(os.path.join(folder, name), above) for name in sorted(files))


def _file(path: str, above: str) -> Item:
    return Item(path, tuple(os.path.relpath(path, above).split(os.sep)), lambda: open(path, "rb"))


def _raise(error: OSError) -> None:
    raise error
