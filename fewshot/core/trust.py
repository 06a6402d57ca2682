"""Whose code may run: a run folder is data, and names components that somebody else may have chosen.

What the user writes on a command line or in Python is imported as it is. What a run folder names is imported only if

- the user allows the module, or a package that it is in, by name: `--trust my_pkg`, `trust=("my_pkg",)`; or
- it is exactly the code that this user has trained with on this machine. Each training leaves the digests of the user's
  modules, as names of empty files, in the user's state folder: $XDG_STATE_HOME/fewshot/trained-with, by default below
  ~/.local/state. A run folder cannot write there, and no digest that it states is believed: files are digested where
  they would be imported from.

Nothing is ever imported from inside a run folder. All of this is found out without importing anything.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from fewshot.core import sources
from fewshot.core.errors import UserError

_OURS = "fewshot"
_RUNNING = "__main__"  # importing it executes nothing


def check(modules: Iterable[str], folder: Path, trust: Sequence[str] = ()) -> None:
    """Raises UserError if the run `folder` names a module that may not be imported. `trust`: modules and packages."""
    for module in modules:
        top = module.partition(".")[0]
        if top in (_OURS, _RUNNING) or not sources.exists(top):
            continue  # if there is none, nothing can be executed: the import says so
        origin = sources.locate(module)
        if origin and (own := _run_folder(origin, folder)):
            raise UserError(
                f"{folder} names the module {module!r}, and {origin} lies inside the run folder {own}, which is data:"
                " copy the file to a folder of your own to use it"
            )
        allowed = any(f"{module}.".startswith(f"{name}.") for name in trust)
        if not allowed and not _trained_with(module):
            raise UserError(
                f"{folder} names the module {module!r} ({origin or 'not found'}), which you have not trained with on"
                f" this machine as it is now: to run its code, give --trust {top} (in Python trust=({top!r},))"
            )


def remember(modules: Iterable[str]) -> None:
    """Keep the digests of modules that the user trains with. If nothing can be written, nothing is remembered."""
    for module in modules:
        digest = _digest(module)
        try:
            if digest is not None:
                _folder().mkdir(parents=True, exist_ok=True)
                (_folder() / digest).touch()
        except (OSError, RuntimeError):
            return


def _trained_with(module: str) -> bool:
    digest = _digest(module)
    try:
        return digest is not None and (_folder() / digest).is_file()
    except (OSError, RuntimeError):
        return False


def _folder() -> Path:
    """RuntimeError if the user has no home."""
    state = os.environ.get("XDG_STATE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(state) if state else Path.home() / ".local" / "state") / "fewshot" / "trained-with"


def _digest(module: str) -> str | None:
    """Of a module's name and of every file that importing it would execute; None if they cannot be read."""
    try:
        files = {name: sources.digest(path) for name, path in sources.would_run(module).items()}
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None
    return hashlib.sha256(json.dumps([module, sorted(files.items())]).encode()).hexdigest() if files else None


def _run_folder(origin: Path, opened: Path) -> Path | None:
    """The run folder that a file lies in, if it does: `opened`, or any."""
    for folder in origin.parents:
        if folder == opened.resolve() or all((folder / name).exists() for name in ("config.json", "environment.json")):
            return folder
    return None
