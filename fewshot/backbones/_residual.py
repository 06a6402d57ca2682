"""Where a network's residual branches end: found by watching one image pass, for networks that do not declare it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fewshot.backbones._dryrun import DryRun, dry_run
from fewshot.core.components import Spec
from fewshot.core.errors import UserError

_ADDS = ("add", "add_")
# These keep zero at zero: what is dropped before them is missing from the sum after them.
_SCALES = (
    "mul", "mul_", "div", "div_", "clone", "contiguous", "to", "permute", "transpose", "view", "reshape", "dropout",
)  # fmt: skip


@dataclass(frozen=True)
class Ends:
    """The modules that end residual branches: each gives a map that is added to another, and goes nowhere else.

    The last module of a shortcut that has modules does the same; we cannot tell which of the two is the branch.
    """

    numbers: Mapping[str, int] = field(default_factory=dict)
    """By module name: the number of its sum, counted from 1 in the order of the pass."""
    count: int = 0
    """How many such sums there are."""
    example: str = ""
    """The last module that does not end a shortcut."""

    def check(self, spec: Spec, declared: Collection[str], stages: Collection[str]) -> None:
        """Raise UserError if a method for branches names a module that ends none, or names none and must name one."""
        remedy = f"such as {spec.name}@{self.example}" if self.example else "if there is one"
        named = [site for site in spec.sites or () if isinstance(site, str)]
        if not named and not declared and self.example:
            raise UserError(
                f"{spec}: it acts within residual blocks, and this network's have no numbers: name a module that ends a"
                f" branch, {remedy}"
            )
        for name in named:
            if name not in declared and (name in stages or name not in self.numbers):
                raise UserError(
                    f"{spec}: it acts within residual blocks, and {name!r} ends no branch of one (its map would be"
                    f" added to another, and used for nothing else): name a module that does, {remedy}"
                )


def find_ends(
    network: nn.Module, run: Callable[[Tensor], object], modules: Mapping[str, nn.Module], image_size: int
) -> Ends:
    """The ends among `modules`, found as one image passes. `run`: as for `dry_run`."""
    sums = _Sums()
    hooks = [module.register_forward_hook(sums.of(name)) for name, module in modules.items()]
    try:
        with sums:
            seen = dry_run(network, run, modules, image_size)
    finally:
        for hook in hooks:
            hook.remove()
    return sums.ends(seen)


class _Sums(TorchFunctionMode):
    """Watches which modules' outputs are added, and which are used for anything else."""

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[int, set[str]] = {}  # the modules whose output a tensor is, by its id
        self._alive: list[Tensor] = []  # so that no two have the same id
        self._used: set[str] = set()
        self._added: list[list[set[str]]] = []  # of each sum, of each of its two parts

    def of(self, name: str) -> Callable[[nn.Module, object, object], None]:
        """The forward hook of the module of this name."""

        def note(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                self._note(output, {name})

        return note

    def _note(self, tensor: Tensor, names: set[str]) -> None:
        self._alive.append(tensor)
        self._names[id(tensor)] = self._names.get(id(tensor), set()) | names

    def __torch_function__(self, function, types, args=(), kwargs=None):
        """See torch.overrides: called instead of each of torch's functions."""
        kwargs = kwargs or {}
        given = [tensor for tensor in _flat((args, kwargs)) if isinstance(tensor, Tensor)]
        names = [self._names.get(id(tensor), set()) for tensor in given]
        kind, shapes = getattr(function, "__name__", ""), [tensor.shape for tensor in given]
        result = function(*args, **kwargs)
        if not any(isinstance(each, Tensor) for each in _flat(result)):
            return result  # it asked for a shape, say
        if any(result is tensor for tensor in given) and kind not in _SCALES:
            self._names.pop(id(result), None)  # computed in place: no module has returned what it is now
        if kind in _SCALES and isinstance(result, Tensor):
            self._note(result, set().union(*names))
        elif kind in _ADDS and len(shapes) == 2 and shapes[0] == shapes[1]:
            self._added.append(names)
        else:
            self._used.update(*names)
        return result

    def ends(self, seen: DryRun) -> Ends:
        """The ends, from what was watched."""
        order = {name: place for place, name in enumerate(seen.ended)}
        single = {name for name in order if name not in self._used and seen.gives_map(name)}
        sums = [parts for names in self._added if any(parts := [each & single for each in names])]
        numbers = {name: number for number, parts in enumerate(sums, 1) for name in set().union(*parts)}
        sure = [parts for parts in sums if not all(parts)] or sums  # the other part is the input, unchanged
        example = ""
        if sure:
            branch = min(filter(None, sure[-1]), key=lambda names: min(order[name] for name in names))
            example = max(branch, key=lambda name: order[name])
        return Ends(numbers, len(sums), example)


def _flat(given: object) -> Iterable[object]:
    """All items of tuples, lists and dictionaries, however nested."""
    if isinstance(given, dict):
        given = tuple(given.values())
    if isinstance(given, (tuple, list)) and not isinstance(given, torch.Size):
        for each in given:
            yield from _flat(each)
    else:
        yield given
