"""One `prepare` of a data set at a time, with nothing left of those that were killed.

While the store DATA_ROOT/NAME is made, two things are beside it: the folder .preparing-NAME-????????, which becomes the
store, and the file .preparing-NAME.lock, which the process holds. A process that gets the lock of an abandoned folder
deletes the folder.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from fewshot.core.errors import UserError
from fewshot.core.files import locked, new_folder, writable_parent

_ABANDONED = re.compile(r"\.preparing-(.+)-[a-z0-9_]{8}")


@contextmanager
def turn(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Be the only process that makes the store `folder`. If another one is at it, `say` so and wait for it.

    Raises UserError if nothing can be written there.
    """
    writable_parent(folder)
    lock = _lock(folder.parent, folder.name)
    with ExitStack() as held:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            _sweep(folder.parent)
            try:
                held.enter_context(locked(lock))
            except BlockingIOError:
                say(f"another process is preparing {folder}: waiting for it")
                held.enter_context(locked(lock, wait=True))
        except OSError as error:
            raise UserError(f"cannot write {folder} ({error.strerror}): choose another place") from None
        yield


@contextmanager
def new_store(folder: Path) -> Iterator[Path]:
    """A folder in which to make the store `folder`; it becomes the store. UserError if one came meanwhile."""
    try:
        with new_folder(folder, f".preparing-{folder.name}-") as work:
            yield work
    except FileExistsError:  # on a file system without locks
        raise UserError(f"another process made {folder} meanwhile: run again to verify it") from None


def _sweep(root: Path) -> None:
    """Delete what killed processes left, of any data set."""
    for left in sorted(root.glob(".preparing-*")):
        if (name := _ABANDONED.fullmatch(left.name)) and left.is_dir() and not left.is_symlink():
            with suppress(OSError), locked(_lock(root, name[1])) as alone:
                if alone:  # without locks nobody knows whether its process lives
                    shutil.rmtree(left)


def _lock(root: Path, name: str) -> Path:
    return root / f".preparing-{name}.lock"
