"""A file of a source, wherever it is: in a folder, in an archive, in an archive in an archive."""

from __future__ import annotations

import errno
import lzma
import os
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO

from fewshot.core.errors import UserError
from fewshot.data.importers.limits import Budget, Limits, above, in_bytes

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
)


@dataclass(frozen=True)
class Item:
    """One file. `origin` names it in messages; `parts` are the names from the source down to its own, in NFC.

    size:    bytes, if its archive says
    budget:  what the archive that it is in may still unpack to
    nesting: how many archives it is in
    shells:  which of `parts` are archives, by position
    """

    origin: str
    parts: tuple[str, ...]
    open: Callable[[], BinaryIO]
    limits: Limits = Limits()
    size: int | None = None
    budget: Budget | None = None
    nesting: int = 0
    shells: tuple[int, ...] = ()

    @property
    def packed(self) -> bool:
        """Whether it is in an archive."""
        return self.nesting > 0

    @property
    def name(self) -> str:
        return self.parts[-1]

    def is_at(self, path: tuple[str, ...]) -> bool:
        """Whether `path` is its name, after the names of any number of the folders above it."""
        return self.parts[-len(path) :] == path or (not self.packed and self.origin.endswith("/" + "/".join(path)))

    def read(self) -> bytes:
        """Its bytes. Raises UserError if its container is damaged, or if they are more than an image may have."""
        most = self.limits.file
        with naming_damage(self.origin), self.open() as file:
            size = self.length(file)
            if size > most:
                raise UserError(above(f"{self.origin} has {in_bytes(size)}", in_bytes(most), size / most))
            return file.read(size + 1)  # one more, so that a zip's checksum is verified

    def head(self, size: int) -> bytes:
        """Its first bytes, at most `size`. Raises UserError if its container is damaged."""
        with naming_damage(self.origin), self.open() as file:
            return file.read(size)

    def length(self, file: BinaryIO) -> int:
        """How many bytes `file` (this one, opened) has at most."""
        return os.fstat(file.fileno()).st_size if self.size is None else self.size


@contextmanager
def naming_damage(origin: str) -> Iterator[None]:
    """Turn what the standard library raises on a damaged container into a UserError that names it."""
    try:
        yield
    except UserError:
        raise
    except NotImplementedError as error:  # a RuntimeError, too
        why = f"is packed in a way that is not read ({error})"
        raise UserError(f"{origin} {why}: unpack it, and give the folder") from None
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


def files_below(path: str, limits: Limits) -> Iterator[Item]:
    """Every file of a folder in the order of names, or the one file that `path` is.

    Links are followed (large sets are often linked together), but each folder is read once only. Links to folders come
    last, so that a folder keeps its own name if a link leads to it, too.
    """
    root = os.path.abspath(path)
    if not os.path.isdir(root):
        yield _file(root, (_name(root),), limits)
        return
    seen: set[tuple[int, int]] = set()
    waiting: list[tuple[str, tuple[str, ...]]] = [(root, (_name(root),))]
    links: list[tuple[str, tuple[str, ...]]] = []
    while waiting or links:
        folder, parts = waiting.pop() if waiting else links.pop(0)
        with naming(folder), os.scandir(folder) as scanned:
            facts = os.stat(folder)
            entries = sorted(scanned, key=lambda entry: entry.name)
        if (place := (facts.st_dev, facts.st_ino)) in seen:
            continue
        seen.add(place)
        below = [entry for entry in entries if _leads_to_folder(entry)]
        inner = {entry.name for entry in below}
        for each in entries:
            if each.name not in inner:
                yield _file(each.path, (*parts, _name(each.name)), limits)
        shown = [entry for entry in below if not entry.name.startswith((".", "__MACOSX"))]
        for entry in reversed(shown):
            if not entry.is_symlink():
                waiting.append((entry.path, (*parts, _name(entry.name))))
        links += [(entry.path, (*parts, _name(entry.name))) for entry in shown if entry.is_symlink()]


def _name(path: str) -> str:
    return unicodedata.normalize("NFC", os.path.basename(path))


def _leads_to_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circle of links: opening it will say so
        return False


def _file(path: str, parts: tuple[str, ...], limits: Limits) -> Item:
    return Item(path, parts, lambda: open_regular(path), limits)


def open_regular(path: str) -> BinaryIO:
    """A file, for reading. Raises UserError if it cannot be read, or is something else, which might never answer."""
    with naming(path):
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        mode = os.fstat(handle).st_mode
        if stat.S_ISREG(mode):
            return os.fdopen(handle, "rb")
        os.close(handle)
    raise UserError(f"{path} is {_called(mode)}, not a file: remove it")


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Turn what the system says about a path into a UserError that names it."""
    try:
        yield
    except OSError as error:
        with suppress(OSError):
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode) and error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
                raise UserError(f"{path} is a broken link: repair it or remove it") from None
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode) and not stat.S_ISLNK(mode):
                raise UserError(f"{path} is {_called(mode)}, not a file: remove it") from None
        raise UserError(f"{path} cannot be read ({error.strerror})") from None


def _called(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
    return kinds.get(stat.S_IFMT(mode), "a device")
