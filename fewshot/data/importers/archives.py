"""Zip and tar archives, compressed or not, one for a class or one for everything.

Nothing is unpacked under the names an archive gives, so those names can do no harm.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import posixpath
import re
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, BinaryIO

from fewshot.core.errors import UserError
from fewshot.data.importers.items import Item, naming_damage
from fewshot.data.importers.limits import Budget
from fewshot.data.importers.table import path_of

_DECOMPRESS: dict[str, Callable] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
COMPRESSED = frozenset(_DECOMPRESS)
_SUFFIXES = re.compile(r"(\.(zip|tar|tgz|tbz2|txz|gz|bz2|xz))+$", re.IGNORECASE)


_MOST_LINKS = 40  # one to another, as on Linux
_ARCHIVE = re.compile(r"\.(zip|tar|tgz|tbz2|txz|tar\.(gz|bz2|xz))$", re.IGNORECASE)


def is_called_one(name: str) -> bool:
    """Whether a file's name says that it is an archive of files."""
    return _ARCHIVE.search(name) is not None


def stem(name: str) -> str:
    """The name without the endings that say how it is packed: n01532829.tar.gz -> n01532829."""
    return _SUFFIXES.sub("", name)


def members(item: Item, kind: str, files: ExitStack) -> Iterator[Item]:
    """The files in a `zip` or `tar`, which stays open for reading until `files` is closed.

    Raises UserError if the archive is truncated, corrupt, encrypted, or unpacks to more than the limits allow.
    """
    above = (*item.parts[:-1], stem(item.name))
    with naming_damage(item.origin):
        file = files.enter_context(item.open())
        budget = _budget(item, file)
        found = list((_zipped if kind == "zip" else _tarred)(item.origin, file, files, budget))
    for name, size, opener in found:
        parts = path_of(name)
        if not parts or ".." in parts:
            raise UserError(f"{item.origin} has a member called {name!r}, which is no name for a file: pack it again")
        origin = f"{item.origin}::{name}"
        shells = (*item.shells, len(above) - 1)
        yield Item(origin, above + parts, opener, item.limits, size, budget, item.nesting + 1, shells)


Member = tuple[str, int, Callable[[], Any]]  # name, size in bytes, what opens it


def _zipped(origin: str, file: BinaryIO, files: ExitStack, budget: Budget) -> Iterator[Member]:
    archive = files.enter_context(zipfile.ZipFile(file))
    for info in archive.infolist():
        if info.filename.endswith("/"):
            continue
        if info.flag_bits & 1:
            raise UserError(f"{origin} is encrypted: unpack it with its password, and give the folder")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise UserError(f"{origin} has a link {info.filename!r}: unpack it, and give the folder")
        budget.charge(info.file_size)
        yield info.filename, info.file_size, partial(archive.open, info)


def _tarred(origin: str, file: BinaryIO, files: ExitStack, budget: Budget) -> Iterator[Member]:
    archive = files.enter_context(tarfile.open(fileobj=file, mode="r:"))
    last = -1
    found: dict[str, tarfile.TarInfo] = {}
    links: dict[str, str] = {}
    for info in archive:
        if info.size < 0 or info.offset <= last:  # some versions of Python would read such a file for ever
            raise tarfile.ReadError("a member before the one that it follows")
        last = info.offset
        if info.issparse():
            budget.charge(info.size)
        name = info.name
        if info.issym():
            links[posixpath.normpath(name)] = posixpath.normpath(posixpath.join(posixpath.dirname(name), info.linkname))
        if info.islnk():  # one more name of a file that was there already
            if info.linkname not in found:
                raise tarfile.ReadError(f"{name} links to a file that is not there")
            info = found[info.linkname]
        if info.isfile():
            found[name] = info
            yield name, info.size, partial(archive.extractfile, info)
    for name, target in _followed(origin, links, {posixpath.normpath(name): info for name, info in found.items()}):
        yield name, target.size, partial(archive.extractfile, target)


def _followed(
    origin: str, links: dict[str, str], found: dict[str, tarfile.TarInfo]
) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """(name, file) of symbolic links. UserError for one that leads to no file of the archive."""
    for name, target in links.items():
        for _ in range(_MOST_LINKS):
            target = links.get(target, target)
        if target not in found:
            raise UserError(
                f"{origin} has a link {name!r} to {links[name]!r}, which is no file in it: unpack it, give the folder"
            )
        yield name, found[target]


def _budget(item: Item, file: BinaryIO) -> Budget:
    if item.nesting >= item.limits.nesting:
        raise UserError(f"{item.origin} is an archive in {item.nesting} archives: unpack some of them")
    return item.budget or Budget(item.origin, item.length(file), item.limits)


def decompressed(item: Item, kind: str, files: ExitStack) -> Item:
    """The content of a gzip, bzip2 or xz file, unpacked once into a nameless temporary file.

    A compressed stream can only be read forwards, but images are needed in the order of their names.
    """
    spool = files.enter_context(tempfile.TemporaryFile())
    with naming_damage(item.origin), item.open() as file:
        budget = _budget(item, file)
        with _DECOMPRESS[kind](file) as stream:
            while chunk := stream.read(1 << 20):
                budget.charge(len(chunk))
                spool.write(chunk)
    spool.flush()

    def reopen():
        spool.seek(0)
        return os.fdopen(os.dup(spool.fileno()), "rb")

    parts = (*item.parts[:-1], stem(item.name))
    return Item(item.origin, parts, reopen, item.limits, spool.tell(), budget, item.nesting + 1, item.shells)
