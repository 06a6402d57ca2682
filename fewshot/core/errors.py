"""The one exception that means "the user can mend this"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """The user's input is wrong: one line that names the thing and the remedy.

    Commands print it on stderr and exit with status 2; from Python it is an ordinary ValueError.
    Anything else that escapes is a bug of ours and keeps its traceback.
    """


def unknown(kind: str, name: str, valid: Iterable[str]) -> UserError:
    """The error for a name that is not among `valid`: lists them, nearest match first in line."""
    valid = sorted(valid)
    near = nearest(name, valid)
    hint = f" Did you mean {near!r}?" if near else ""
    return UserError(f"unknown {kind} {name!r}.{hint} Valid: {', '.join(valid) or '(none)'}.")


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The one of `valid` that `name` is probably a misspelling of; None where none is like it."""
    near = difflib.get_close_matches(name, sorted(valid), n=1)
    return near[0] if near else None
