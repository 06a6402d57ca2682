"""python -m fewshot.describe: what a component, data set, recipe or task list is, its options and their defaults."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from fewshot import catalogue, recipes
from fewshot.core.components import Family
from fewshot.core.console import Parser, run, summary, terminal
from fewshot.core.errors import UserError, unknown
from fewshot.core.shipped import shipped


def parser() -> Parser:
    parser = Parser(prog="fewshot.describe", description=summary(__doc__))
    about = "as fewshot list has it, also joined by +; or a class of your own: my_pkg.MyDrop"
    parser.add_argument("name", metavar="NAME", help=about)
    return parser


def main(argv: list[str] | None = None) -> None:
    given = parser().parse_args(argv).name
    first, *more = given.split("+")
    if more and first in catalogue.names("recipes"):
        descriptions = [recipe(given)]
    else:
        descriptions = [text for part in (first, *more) for text in _described(part)]
    terminal().print("\n\n".join(descriptions))


def _described(given: str) -> list[str]:
    name = re.split("[@:]", given)[0]  # a component as written on a command line
    descriptions = list(_dotted(name)) if "." in name and "/" not in name else list(_named(name)) or list(_alias(name))
    if not descriptions:
        raise unknown("name", name, {known for kind in catalogue.KINDS for known in catalogue.names(kind)})
    return descriptions


def _named(name: str) -> Iterator[str]:
    """A description for each kind that has the name."""
    for kind in catalogue.KINDS:
        if name not in catalogue.names(kind):
            continue
        if kind in catalogue.FAMILIES:
            yield component(kind, name)
        elif kind == "datasets":
            yield dataset(name)
        elif kind == "recipes":
            yield recipe(name)
        else:
            text = (shipped("episodes") / f"{name}.json").read_text("utf-8").strip()
            yield f"task list {name}: give it to fewshot evaluate --tasks\n\n{text}"


def _alias(name: str) -> Iterator[str]:
    """A line for each family that has the name as an alias."""
    for kind in catalogue.FAMILIES:
        family = _family(kind)
        if name in family.aliases:
            yield f"{family.kind} {name}: {family.aliases[name]}; fewshot describe BACKBONE says what that is"


def recipe(name: str) -> str:
    """What a recipe is for, or each of several joined by `+`, and the values that result."""
    about = "\n".join(map(recipes.about, recipes.parts(name)))
    values = "\n".join(f"  {key} = {json.dumps(value)}" for key, value in recipes.values(name).items())
    return f"recipe {name}\n\n{about}\n\n{values}"


def _dotted(name: str) -> Iterator[str]:
    """A description of a user's own class, in the family that it belongs to."""
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"{name!r} is no class: write it as my_package.my_module.MyClass")
    module_name, _, class_name = name.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if f"{module_name}.".startswith(f"{error.name}."):
            raise UserError(f"no module {error.name!r}: is its folder on PYTHONPATH?") from None
        raise  # the module is there, but something that it imports is not
    cls = getattr(module, class_name, None)
    if cls is None:
        raise unknown(f"name in module {module_name}:", class_name, [each for each in vars(module) if each[0] != "_"])
    for kind in catalogue.FAMILIES:
        if _family(kind).of(cls) is not None:
            yield component(kind, name)
            return
    raise UserError(f"{name!r} is no component: its class derives from none of fewshot's")


def _family(kind: str) -> Family:
    return importlib.import_module(f"fewshot.{catalogue.FAMILIES[kind].replace('/', '.')}").FAMILY


def component(kind: str, name: str) -> str:
    """Docstring, and options with types and defaults."""
    family = _family(kind)
    cls = family.find(name)
    module = inspect.getdoc(importlib.import_module(cls.__module__)) or ""
    own = inspect.getdoc(cls) if cls.__doc__ else ""
    about = "\n\n".join(text for text in (module, own) if text)
    rows = [
        (key, _type(hint), "required" if default is inspect.Parameter.empty else _value(default))
        for key, (hint, default) in family.options(cls).items()
    ]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(2)]
    options = "\n".join(f"  {key:<{widths[0]}}  {kind:<{widths[1]}}  {default}" for key, kind, default in rows)
    head = f"{family.kind} {name}"
    return f"{head}\n\n{about}\n\n" + (f"options (name, type, default):\n{options}" if rows else "no options")


def dataset(name: str) -> str:
    """What the specification of a data set says."""
    from fewshot.data import specs

    spec = specs.get(name)
    rows = {
        "image size": f"{spec.image_size} px", "images a class": _counts(spec.images_per_class) or "any number",
        "classes": "the same in every split" if spec.shared_classes else "each in one split",
        "normalisation": "the field's" if spec.normalisation else "mean and standard deviation of the training split",
        "comes": "with the package" if spec.load else f"from your copy: fewshot prepare {name} --from PATH",
        "licence": spec.licence,
    }  # fmt: skip
    if spec.images:
        rows["images"] = _counts(spec.images)
    module = inspect.getdoc(importlib.import_module(f"fewshot.data.specs.{name.replace('-', '_')}")) or ""
    return f"data set {name}\n\n{module}\n\n" + "\n".join(f"  {key:<14}  {value}" for key, value in rows.items())


def _counts(given: Mapping[str, int] | int | None) -> str:
    """`5,500 train, 500 val`, `600`, or nothing."""
    if isinstance(given, Mapping):
        return ", ".join(f"{count:,} {split}" for split, count in given.items())
    return f"{given:,}" if given else ""


def _type(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(str, typing.get_args(hint)))
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return " or ".join("none" if kind is type(None) else _type(kind) for kind in typing.get_args(hint))
    return {"int": "integer", "float": "number", "bool": "true or false", "str": "text"}.get(hint.__name__, str(hint))


def _value(default: Any) -> str:
    if default is None:
        return "none: see above"
    return str(default).lower() if isinstance(default, bool) else str(default)


if __name__ == "__main__":
    raise SystemExit(run(main))
