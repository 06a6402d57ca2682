"""Files and folders that are written completely or not at all."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from fewshot.core.errors import UserError

try:
    import fcntl
except ImportError:  # on Windows, where two processes are not kept from each other
    fcntl = None  # type: ignore[assignment]

_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)  # 0: on Windows
_FLUSHING = os.O_RDWR if os.name == "nt" else os.O_RDONLY  # elsewhere a file that may only be read is flushed, too
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NO_FILE = (errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.ENXIO, errno.ENODEV)  # what opening a link or device says
_MOMENT, _LOOKS = 0.01, 100  # seconds that another's look at a lock may last, and how many of them are waited for
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # a network file system without them


def open_own(path: Path, flags: int) -> int:
    """A descriptor of a regular file that we read and write in a folder that somebody else may have made.

    `flags` are os.open's. No link is followed, nothing is truncated, and no pipe or device is waited for. Raises
    UserError if `path` is not a regular file; FileNotFoundError if there is none and `flags` do not create it.
    """
    return _open_regular(path, flags | _NO_FOLLOW)


def read_bounded(path: Path, most: int) -> bytes:
    """All of a regular file, or of what a link leads to. Raises UserError if it is none, or exceeds `most` bytes."""
    handle = _open_regular(path, os.O_RDONLY)
    with os.fdopen(handle, "rb") as file:
        size = os.fstat(handle).st_size
        if size > most:
            raise UserError(f"{path} has {size:,} bytes, and such a file at most {most:,}: is it the right one?")
        return file.read(size)  # not `most`: so much memory would be set aside


def _open_regular(path: Path, flags: int) -> int:
    try:
        handle = os.open(path, flags | _NO_WAIT, 0o666)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise _no_file(path) from None
        if error.errno == errno.EACCES and not flags & (os.O_WRONLY | os.O_RDWR):
            raise UserError(f"{path} cannot be read: permission denied (chmod u+r?)") from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _no_file(path)
    return handle


def _no_file(path: Path) -> UserError:
    return UserError(f"{path} is no regular file (a link, a folder or a device?): move it away")


@contextmanager
def locked(path: Path, wait: bool = False) -> Iterator[bool]:
    """Hold the file `path`, made for this alone, against other processes; it is deleted afterwards.

    Gives whether others are really kept out: some systems have no locks. Raises BlockingIOError if another process has
    it, unless `wait` says to wait for it, and UserError if it is not a regular file.
    """
    if fcntl is None:
        yield False
        return
    for attempt in itertools.count():
        with os.fdopen(open_own(path, os.O_RDWR | os.O_CREAT), "rb+") as file:
            alone = True
            try:
                fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    if attempt < _LOOKS and _free(file):  # somebody only looked, in `held`
                        time.sleep(_MOMENT)
                        continue
                    raise
                alone = False
            if not _is_at(file.fileno(), path):  # who held it before us deleted it: the lock is on nothing
                continue
            try:
                yield alone
            finally:
                path.unlink(missing_ok=True)
            return


def held(path: Path) -> bool:
    """Whether a process holds `path` by `locked`. On a system without locks: whether the file is there."""
    try:
        handle = open_own(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    with os.fdopen(handle, "rb") as file:
        if fcntl is None:
            return True
        return not _free(file)


def _free(file: BinaryIO) -> bool:
    """Whether nobody holds an open file by `locked`. It is locked for a moment, beside others who only look."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(file, fcntl.LOCK_UN)
    except OSError:
        return False
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def write_atomic(path: Path, *parts: bytes | memoryview, most: int | None = None) -> None:
    """Write beside `path`, flush to disk, rename over it; on failure `path` keeps what it had.

    All `parts` are written, one after the other. A process that is killed may leave `.NAME-????????` (`sweep`). A link
    is replaced, never written through: somebody else may have made the folder (`write_output` is for files that the
    user names). Raises UserError, before anything is written, if a folder, a pipe, a socket or a device is there, and
    for more than `most` bytes, which `read_bounded` would not read again.
    """
    if not _replaceable(path):
        raise _no_file(path)
    if most is not None and (size := sum(map(len, parts))) > most:
        raise UserError(
            f"{path} would have {size:,} bytes, and at most {most:,} are read: take a smaller network"
        )
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):  # an interrupt may come when it is renamed already
            os.unlink(name)
        raise


def _replaceable(path: Path) -> bool:
    """Whether nothing is there, a regular file, or a link."""
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return True
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def write_output(path: Path, data: bytes) -> None:
    """Write a file that the user names, atomically and through links. Its folder is made if there is none.

    Raises UserError as `destination` does.
    """
    real = destination(path)
    real.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(real, data)


def destination(path: Path) -> Path:
    """Where a file that the user names will be: what its links lead to, whether or not it is there.

    Raises UserError if it cannot: something that is not a regular file is there, or a file is where a folder should be.
    """
    real = Path(os.path.realpath(path))
    if real.is_dir():
        raise UserError(f"{path} is a folder; give a file")
    if real.is_symlink() or not _replaceable(real):  # what is then still a link leads to itself
        raise UserError(f"{path} is no regular file (a pipe, a device, or a link to itself?); give another")
    writable_parent(real)
    return real


def sweep(folder: Path, pattern: re.Pattern[str]) -> None:
    """Delete the files in `folder` whose whole names match: those that `write_atomic` would have renamed."""
    for entry in list(os.scandir(folder)):
        if pattern.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
            with suppress(FileNotFoundError):
                os.unlink(entry.path)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON, atomically."""
    write_atomic(path, (json.dumps(value, indent=2) + "\n").encode())


@contextmanager
def new_folder(folder: Path, prefix: str = ".new-") -> Iterator[Path]:
    """A temporary sibling of `folder`, with a name that begins with `prefix`: renamed to it if the block succeeds.

    Its files are on the disk by then. On any failure, interruption included, nothing is left behind. Raises
    FileExistsError if a folder that is not empty is there by then, and UserError if none can be made.
    """
    writable_parent(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    except OSError as error:
        raise UserError(f"cannot write {folder} ({error.strerror}): choose another place") from None
    try:
        yield work
        _flush(work)
        work.chmod(0o755)
        try:
            os.replace(work, folder)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder)) from None
            if error.errno in (errno.EBUSY, errno.EINVAL):  # the current folder, or one on which a disk is mounted
                raise UserError(f"cannot make {folder} anew ({error.strerror}): give a folder in it") from None
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Have the files below `folder` written to disk: a rename may get there before them."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            handle = os.open(path, _FLUSHING)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def vacant(folder: Path) -> bool:
    """Whether `new_folder` can make `folder`: nothing is there, or an empty folder, whose place it takes."""
    try:
        return not os.path.lexists(folder) or (not folder.is_symlink() and next(folder.iterdir(), None) is None)
    except FileNotFoundError:  # it has gone since we looked
        return True
    except NotADirectoryError:
        return False


def clear_abandoned(root: Path, mark: str) -> None:
    """Delete what killed processes left of `new_folder` in `root`. One at work holds the lock `mark` in its folder."""
    if fcntl is None:
        return
    for path in root.glob(f".new-*/{mark}"):
        with suppress(OSError, UserError), os.fdopen(open_own(path, os.O_RDWR), "rb+") as file:  # never a new lock
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(file.fileno(), path):
                shutil.rmtree(path.parent)


def writable_parent(path: Path) -> None:
    """Raises UserError if `path` could not be created because a file is in the way."""
    for ancestor in path.parents:
        if ancestor.exists():
            if not ancestor.is_dir():
                raise UserError(f"cannot write {path}: {ancestor} is a file, not a folder")
            return
