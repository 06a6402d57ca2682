"""The data sets that the project knows: one file each, in which `SPEC` is its DatasetSpec.

The file's name is the data set's name, with `_` for `-`. To add a data set, add a file.
"""

from __future__ import annotations

import importlib
import pkgutil

from fewshot.core.errors import UserError, unknown
from fewshot.data.spec import DatasetSpec

DEFAULTS = ("mini-imagenet", "glyphs")
"""What the commands use if no data set is named: the first of these that is there."""


def names() -> list[str]:
    """Every data set's name, without importing any."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def get(name: str) -> DatasetSpec:
    """A specification by the data set's name, or a user's own by its dotted name, `my_sets.FLOWERS`.

    Raises UserError if there is none.
    """
    if (spec := find(name)) is None:
        raise unknown("data set", name, names())
    return spec


def find(name: str) -> DatasetSpec | None:
    """As `get`, but None for a name without a specification: a user's own data set may have none.

    Raises UserError if the module of a dotted name is there, but has no such specification.
    """
    if name in names():
        return importlib.import_module(f"{__name__}.{name.replace('-', '_')}").SPEC
    if not is_dotted(name):
        return None
    module_name, _, attribute = name.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if f"{module_name}.".startswith(f"{error.name}."):
            return None
        raise  # the user's module is there, and what it imports is not
    spec = getattr(module, attribute, None)
    if not isinstance(spec, DatasetSpec):
        raise UserError(f"{name!r} is no data set: {module_name} has no fewshot.data.DatasetSpec named {attribute!r}")
    return spec


def is_dotted(name: str) -> bool:
    """Whether a name is written like that of an object in a module, `my_sets.FLOWERS`."""
    return "." in name and all(part.isidentifier() for part in name.split("."))


def lookalike(name: str) -> str | None:
    """The known data set with this name, apart from `-`, `_` and case; None if there is none."""
    return next((known for known in names() if _bare(known) == _bare(name)), None)


def _bare(name: str) -> str:
    return name.replace("-", "").replace("_", "").lower()
