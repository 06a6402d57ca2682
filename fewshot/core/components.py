"""The component grammar: `name[@sites][:[value,]key=value,...]`, joined by `+`. Sites: block numbers, names of modules.

    targetdrop
    targetdrop@3,4:drop_prob=0.15,block_size=5
    targetdrop@layer3,blocks.2.conv
    dropout@1,2:drop_prob=0.1+dropblock@3,4
    my_pkg.my_module.MyDrop:rate=0.2
    timm:resnet18,size=128

A bare first value belongs to the option that the component's class declares as `positional`; most declare none.

A family (backbones, heads, regularizers, transforms, regimes) is a package with one file per component: the file's name
is the component's name, the file defines one public subclass of the family's base, and the keyword-only parameters of
its `__init__` (a regime's: of `build`) are its options, typed and with defaults. To add a component, add a file. If an
option does nothing beside certain values of another one, the class says so, and training warns of it:

    idle_beside = {"reduction": ("attention", "gap", "random")}  # reduction: if attention is one of these

Nothing here imports torch.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fewshot.core import sources
from fewshot.core.errors import UserError, unknown

_SITE = re.compile(r"\w+(\.\w+)*")
_SPEC = re.compile(r"(?P<name>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*)(@(?P<sites>[^:]*))?(:(?P<options>.*))?")


Component = TypeVar("Component")


@dataclass(frozen=True)
class Spec:
    """One component as the user wrote it: options are still text.

    `sites`: block numbers, rising, then module names in alphabetical order; None if the user gave none.
    """

    name: str
    sites: tuple[int | str, ...] | None
    options: dict[str, str]
    value: str = ""
    """The bare first value, "" if there is none."""

    def __str__(self) -> str:
        sites = "@" + ",".join(map(str, self.sites)) if self.sites else ""
        given = [*([self.value] if self.value else []), *(f"{key}={value}" for key, value in self.options.items())]
        return f"{self.name}{sites}" + (":" + ",".join(given) if given else "")


def parse(text: str) -> list[Spec]:
    """Read a `+`-joined list of components. Raises UserError if it does not follow the grammar."""
    return [_parse_one(part) for part in re.split(r"\+(?=[A-Za-z_])", text)]  # so that 1e+3 stays whole


def _parse_one(text: str) -> Spec:
    match = _SPEC.fullmatch(text.strip())
    if match is None:
        raise UserError(f"cannot read component {text!r}: write name[@sites][:key=value,...]")
    sites = None
    if match["sites"] is not None:
        labels = [label.strip() for label in match["sites"].split(",")]
        if not all(_SITE.fullmatch(label) for label in labels):
            name = match["name"]
            how = f"write block numbers or names of modules, such as {name}@3,4 or {name}@layer3"
            raise UserError(f"cannot read the sites of {text!r}: {how}")
        numbers = sorted({int(label) for label in labels if label.isdecimal()})
        sites = (*numbers, *sorted({label for label in labels if not label.isdecimal()}))
    if match["options"] == "":
        raise UserError(f"cannot read component {text!r}: write key=value after the colon, or leave it out")
    options: dict[str, str] = {}
    bare, *pairs = match["options"].split(",") if match["options"] else [""]
    if "=" in bare:
        bare, pairs = "", [bare, *pairs]
    for pair in pairs:
        key, equals, value = (piece.strip() for piece in pair.partition("="))
        if not (key and equals and value):
            raise UserError(f"cannot read option {pair!r} of {text!r}: write key=value")
        if key in options:
            raise UserError(f"option {key!r} is given twice in {text!r}")
        options[key] = value
    return Spec(match["name"], sites, options, bare.strip())


class Family(Generic[Component]):
    """The components of one package, subclasses of its class `base`: `Family("fewshot.heads", "head", "Head")`."""

    def __init__(
        self,
        package: str,
        kind: str,
        base: str,
        aliases: Mapping[str, str] | None = None,
        constructor: str = "__init__",
        adopt: Callable[[type], type | None] | None = None,
    ) -> None:
        self.package, self.kind, self._base, self._constructor = package, kind, base, constructor
        self.aliases = aliases or {}
        """What else may be written instead of a component, and what it stands for: the family's own code handles it."""
        self._adopt = adopt or (lambda stranger: None)  # makes a component of a user's class with other bases

    @property
    def base(self) -> type[Component]:
        """The class that every component of the family derives from."""
        return getattr(importlib.import_module(self.package), self._base)

    def names(self) -> list[str]:
        """Every component's name, without importing any."""
        found = pkgutil.iter_modules(importlib.import_module(self.package).__path__)
        return sorted(module.name for module in found if not module.name.startswith("_"))

    def find(self, name: str) -> type[Component]:
        """The class behind a name or a dotted path. Raises UserError if there is none."""
        if "." in name:
            return self._users_own(name)
        if name in self.aliases:
            raise UserError(f"{self.kind} {name!r} stands for {self.aliases[name]}: it cannot be built by itself")
        if name not in self.names():
            if (path := self._in_a_file(name)) is not None:
                raise UserError(f"unknown {self.kind} {name!r}: for the class in {name}.py, write {path}")
            raise unknown(self.kind, name, [*self.names(), *self.aliases])
        module = importlib.import_module(f"{self.package}.{name}")
        found = [
            thing
            for thing in vars(module).values()
            if isinstance(thing, type) and issubclass(thing, self.base) and thing.__module__ == module.__name__
            and not thing.__name__.startswith("_")
        ]  # fmt: skip
        assert len(found) == 1, f"{module.__file__} must define one public {self._base}, not {len(found)}"
        return found[0]

    def _in_a_file(self, module: str) -> str | None:
        """The dotted path of the component that a user's file `module`.py defines, if it does. Nothing is imported."""
        origin = sources.locate(module) if sources.exists(module) else None
        names = sources.derived(origin, self._base) if origin is not None and origin.suffix == ".py" else []
        return f"{module}.{names[0]}" if names else None

    def _users_own(self, path: str) -> type[Component]:
        module_name, _, class_name = path.rpartition(".")
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            # Only if the module itself, or a package on the way to it, is missing: whatever else goes wrong in the
            # user's module, an import included, the user should see with its traceback.
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise
            raise UserError(f"cannot import {self.kind} {path!r} ({error}): is its folder on PYTHONPATH?") from None
        try:
            component = getattr(module, class_name)
        except AttributeError:
            raise UserError(
                f"cannot import {self.kind} {path!r}: module {module_name} has no {class_name}; is the name right?"
            ) from None
        found = self.of(component)
        if found is None:
            ours = f"{self.package}.{self._base}"
            raise UserError(f"{path!r} is no {self.kind}: it is not a class that derives from {ours}")
        return found

    def of(self, thing: object) -> type[Component] | None:
        """A class, if it is a component of the family, or what the family makes of it; None if it is neither."""
        if not isinstance(thing, type):
            return None
        return thing if issubclass(thing, self.base) else self._adopt(thing)

    def options(self, component: type) -> dict[str, tuple[Any, Any]]:
        """name -> (type, default) of a component's options: its constructor's keyword-only parameters."""
        constructor: Any = getattr(component, self._constructor)
        hints = typing.get_type_hints(constructor)
        parameters = inspect.signature(constructor).parameters.values()
        return {p.name: (hints.get(p.name, str), p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}

    def _by_position(self, component: type, name: str) -> bool:
        """Whether the constructor has a parameter of this name with a default, which is no option."""
        parameter = inspect.signature(getattr(component, self._constructor)).parameters.get(name)
        return parameter is not None and parameter.default is not parameter.empty

    def check(self, spec: Spec) -> tuple[type[Component], dict[str, Any]]:
        """A spec's class and its options, converted to their declared types."""
        component = self.find(spec.name)
        declared = self.options(component)
        given, positional = spec.options, getattr(component, "positional", "")
        if spec.value:
            if not positional:
                raise UserError(f"cannot read option {spec.value!r} of {str(spec)!r}: write key=value")
            if positional in given:
                raise UserError(f"option {positional!r} is given twice in {str(spec)!r}")
            given = {positional: spec.value} | given
        converted = {}
        for key, value in given.items():
            if key not in declared:
                if "." in spec.name and self._by_position(component, key):
                    raise UserError(
                        f"{self.kind} {spec.name!r}: {key!r} is no option of it, as its {self._constructor} takes it by"
                        f" position: write a * before it there, as in (..., *, {key}=...)"
                    )
                raise unknown(f"option of {self.kind} {spec.name!r}:", key, declared)
            converted[key] = _convert(value, declared[key][0], f"{spec.name}:{key}")
        for key, (_, default) in declared.items():
            if default is inspect.Parameter.empty and key not in converted:
                how = "VALUE" if key == positional else f"{key}=VALUE"
                raise UserError(f"{self.kind} {spec.name!r} needs its option {key!r}: write {spec.name}:{how}")
        return component, converted

    def idle(self, text: str) -> list[str]:
        """The options of a `+`-joined list of components that do nothing there, each with the reason."""
        found = []
        for spec in parse(text):
            if spec.name in self.aliases:
                continue
            component, given = self.check(spec)
            declared = self.options(component)
            for key, (other, *values) in getattr(component, "idle_beside", {}).items():
                if not {key, other} <= declared.keys():  # a class that derives from this one may have other options
                    continue
                if key in given and (value := given.get(other, declared[other][1])) in values:
                    shown = str(value).lower() if isinstance(value, bool) else value
                    found.append(f"{spec.name}:{key} has no effect with {other}={shown}")
        return found


def _convert(text: str, hint: Any, where: str) -> Any:
    """Text to the hinted type: bool, int, float, str, a Literal, or any of several of these and None."""
    union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    kinds = sorted(typing.get_args(hint) if union else (hint,), key=_generality)
    literals: list[str] = []
    others: list[str] = []
    for kind in kinds:
        if typing.get_origin(kind) is typing.Literal:
            literals += map(str, typing.get_args(kind))
        elif isinstance(kind, type) and typing.get_origin(kind) is None:
            others.append(_NAMES.get(kind, f"a {kind.__name__}"))
        else:
            raise UserError(f"{where} cannot be given as text: it is declared as {hint}")
        try:
            return _as(kind, text)
        except ValueError:
            continue
    if literals:
        raise unknown(f"value of {where}:", text, literals + others)
    raise UserError(f"{where}={text} is not {' or '.join(others)}")


_NAMES = {bool: "true or false", int: "an integer", float: "a number", type(None): "none"}


def _generality(kind: Any) -> int:
    """A kind's place in the order of trying: 3 is an integer rather than 3.0, and that rather than a text."""
    order = [*_NAMES, str]
    return order.index(kind) if kind in order else -1


def _as(kind: Any, text: str) -> Any:
    """Text as a value of one kind. ValueError if it is none."""
    if typing.get_origin(kind) is typing.Literal:
        values = {str(value): value for value in typing.get_args(kind)}
    elif kind is bool:
        values = {"true": True, "false": False}
    elif kind is type(None):
        values = {"none": None}
    else:
        return kind(text)
    if text in values:
        return values[text]
    if text.lower() in values and kind in _NAMES:
        return values[text.lower()]
    raise ValueError(text)
