"""The one exception that means "the user can mend this", and the exit statuses of commands."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

_MOST_NAMED = 60

DONE, FAILED, USER_ERROR, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses."""

# Operating-system refusals that the user, not we, can mend.
USERS_TO_MEND = {
    errno.ENOSPC: "the disk is full; free some space and run the command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the command again",
    errno.EMFILE: "too many files are open at once; raise that limit (ulimit -n), or give fewer at a time",
    errno.ENFILE: "too many files are open on this machine; end some programs and run it again",
    errno.EACCES: "permission denied; choose a place that you may write",
    errno.EPERM: "not permitted; choose a place that you may write",
    errno.EFBIG: "the file is larger than this process may write (ulimit -f); raise that limit and run it again",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another place",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EISDIR: "it is a folder, not a file; choose another place",
}


class UserError(ValueError):
    """The user's input is wrong: one line that names the thing and the remedy.

    Commands print it on stderr and exit with status 2; from Python it is an ordinary ValueError.
    Anything else that escapes is a bug of ours and keeps its traceback.
    """


def unknown(kind: str, name: str, valid: Iterable[str]) -> UserError:
    """The error for a name that is not among `valid`: lists them or, if there are very many, those most like it."""
    valid = sorted(valid)
    near = nearest(name, valid)
    hint = f" Did you mean {near!r}?" if near else ""
    if len(valid) > _MOST_NAMED:
        alike = sorted(difflib.get_close_matches(name, valid, n=_MOST_NAMED // 4, cutoff=0))
        listed = f"The closest of {len(valid)} valid ones: {', '.join(alike)}"
    else:
        listed = f"Valid: {', '.join(valid) or '(none)'}"
    return UserError(f"unknown {kind} {name!r}.{hint} {listed}.")


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The one of `valid` that `name` is probably a misspelling of; None if none is like it."""
    near = difflib.get_close_matches(name, sorted(valid), n=1)
    return near[0] if near else None


def shown(value: object) -> str:
    """Something foreign, for a message: short, and without anything that a terminal obeys."""
    return "".join(c if c.isprintable() else "?" for c in str(value)[:80])
