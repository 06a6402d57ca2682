"""What there is, by kind and name, with one line about each. Neither torch nor any component is imported."""

from __future__ import annotations

import ast
import json
import pkgutil
from pathlib import Path
from typing import NamedTuple

from fewshot import recipes
from fewshot.core.shipped import shipped

PACKAGE = Path(__file__).parent
FAMILIES = {  # kind -> the folder with one file for each component
    "backbones": "backbones", "heads": "heads", "regularizers": "regularizers", "transforms": "transforms",
    "regimes": "learning/regimes",
}  # fmt: skip
FIELDS = {  # field of a configuration -> the kind of component that it names
    "backbone": "backbones", "head": "heads", "reg": "regularizers", "transform": "transforms", "regime": "regimes",
}  # fmt: skip
KINDS = (*FAMILIES, "datasets", "recipes", "tasks")


class Entry(NamedTuple):
    """One thing that a command takes by name."""

    name: str
    about: str
    """One line."""


def entries(kind: str) -> list[Entry]:
    """All of a kind, by name."""
    if kind in FAMILIES:
        return _modules(PACKAGE / FAMILIES[kind])
    if kind == "datasets":
        return [Entry(name.replace("_", "-"), about) for name, about in _modules(PACKAGE / "data" / "specs")]
    if kind == "recipes":
        return [Entry(name, _first_sentence(recipes.about(name))) for name in recipes.names()]
    assert kind == "tasks"
    return [_tasks(path) for path in sorted(shipped("episodes").glob("*.json"))]


def names(kind: str) -> list[str]:
    """The names of a kind. For components no file is read: every `train` asks for their names."""
    if kind in FAMILIES:
        return _public(PACKAGE / FAMILIES[kind])
    return [entry.name for entry in entries(kind)]


def _first_sentence(text: str) -> str:
    first, stop, _ = " ".join(text.split()).partition(". ")
    return first + stop.strip()


def _modules(folder: Path) -> list[Entry]:
    return [Entry(name, _first_line(folder / f"{name}.py")) for name in _public(folder)]


def _public(folder: Path) -> list[str]:
    found = (module.name for module in pkgutil.iter_modules([str(folder)]))
    return sorted(name for name in found if not name.startswith("_"))


def _first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_bytes())) or ""
    return " ".join(text.partition("\n\n")[0].split())


def _tasks(path: Path) -> Entry:
    values = json.loads(path.read_text("utf-8"))
    form = f"{values['ways']}-way {values['shots']}-shot, {values['queries']} queries a class"
    form += f" on average (Dirichlet {values['query_alpha']:g})" if "query_alpha" in values else ""
    return Entry(path.stem, f"{values['episodes']:,} {values['split']} episodes of {values['dataset']}: {form}")
