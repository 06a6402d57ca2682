"""Zip and tar archives, compressed or not, one for a class or one for everything.

Nothing is unpacked under the names an archive gives, so those names can do no harm.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from fewshot.data.importers.items import Item, naming_damage
from fewshot.data.importers.table import path_of

_DECOMPRESS: dict[str, Callable] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
COMPRESSED = frozenset(_DECOMPRESS)
_SUFFIXES = re.compile(r"(\.(zip|tar|tgz|tbz2|txz|gz|bz2|xz))+$", re.IGNORECASE)


def stem(name: str) -> str:
    """The name without what says how it is packed: n01532829.tar.gz -> n01532829."""
    return _SUFFIXES.sub("", name)


def members(item: Item, kind: str, files: ExitStack) -> Iterator[Item]:
    """The files in a `zip` or `tar`; it is read from later, so it is closed with `files`.

    Raises UserError where the archive is truncated or corrupt.
    """
    above = (*item.parts[:-1], stem(item.name))
    with naming_damage(item.origin):
        file = files.enter_context(item.open())
        found: list[tuple[str, Callable[[], Any]]]
        if kind == "zip":
            zipped = files.enter_context(zipfile.ZipFile(file))
            found = [(info.filename, partial(zipped.open, info)) for info in zipped.infolist() if not info.is_dir()]
        else:
            tarred = files.enter_context(tarfile.open(fileobj=file, mode="r:"))
            found = [(info.name, partial(tarred.extractfile, info)) for info in tarred if info.isfile()]
    for name, opener in found:
        parts = path_of(name)
        yield Item(f"{item.origin}::{name}", above + parts, opener, packed=True)


def decompressed(item: Item, kind: str, files: ExitStack) -> Item:
    """What a gzip, bzip2 or xz file holds, once, in a nameless temporary file.

    A compressed stream can only be read forwards, and images are wanted in the order of their names.
    """
    spool = files.enter_context(tempfile.TemporaryFile())
    with naming_damage(item.origin), item.open() as file, _DECOMPRESS[kind](file) as stream:
        shutil.copyfileobj(stream, spool, 1 << 20)
    spool.flush()

    def reopen():
        spool.seek(0)
        return os.fdopen(os.dup(spool.fileno()), "rb")

    return Item(item.origin, (*item.parts[:-1], stem(item.name)), reopen, packed=True)
