"""The one exception that means "the user can mend this"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MOST_NAMED = 60


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
