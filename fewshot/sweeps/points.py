"""The points of a sensitivity sweep: which options of a regularizer, which of their values, and what is declined."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from fewshot import backbones, regularizers
from fewshot.core.components import Spec, parse
from fewshot.core.errors import UserError, unknown

SWEEPS = {
    "drop_prob": ["0.05", "0.1", "0.15", "0.2", "0.3", "0.4"],
    "participation": ["0.05", "0.1", "0.2", "0.4"],
    "block_size": ["1", "3", "5", "7"],
    "channels": ["0.0625", "0.125", "0.25", "0.5", "1"],
    "top_percent": ["5", "10", "20", "40"],
    "size": ["3", "6", "9", "12"],
    "sites": ["1", "2", "3", "4", "2,3", "3,4"],
}


@dataclass(frozen=True)
class Point:
    """One value of one option. `reg` names its runs; `declined` says why there are none."""

    option: str
    value: str
    reg: str
    declined: str = ""


def plan(reg: str, backbone: str, image_size: int, asked: list[list[str]]) -> tuple[str, list[Point]]:
    """The regularizer that is varied, and the points of all sweeps; without `asked`, of all of SWEEPS that it has.

    Points that amount to the same, such as each option's default, have the same `reg`. What the user asks for must be
    possible (otherwise UserError); what our lists ask for may be declined.
    """
    (base, *more) = parse(reg)
    if more or base.name == "none":
        raise UserError(f"--reg {reg}: give one regularizer, whose options are varied")
    component = regularizers.FAMILY.find(base.name)
    options = [*regularizers.FAMILY.options(component), *["sites"] * (component.place in ("map", "branch"))]
    asked = asked or [[option] for option in SWEEPS if option in options]
    if not asked:
        raise UserError(f"--reg {base}: we have no list of values for its options; give --sweep OPTION VALUE...")
    regs = {resolved(base, backbone, image_size): str(base)}
    points: dict[tuple[str, str], Point] = {}
    for option, *values in asked:
        if option not in options:
            raise unknown(f"option of regularizer {base.name!r}:", option, options)
        if not values and option not in SWEEPS:
            raise UserError(f"--sweep {option}: give its values, too")
        for value in values or SWEEPS[option]:
            spec, declined = varied(base, option, value), ""
            try:
                named = regs.setdefault(resolved(spec, backbone, image_size), str(spec))
            except UserError as error:
                if values:
                    raise
                named, declined = str(spec), str(error).partition(";")[0]  # what follows says how to mend it
            points[option, value] = Point(option, value, named, declined)
    return str(base), list(points.values())


def varied(base: Spec, option: str, value: str) -> Spec:
    """`base` with one option, or its sites, set to `value`."""
    if option == "sites":
        (spec, *more) = parse(f"{base.name}@{value}")
        if more or spec.options or spec.value:
            raise UserError(f"--sweep sites {value}: write block numbers, such as 3,4")
        return dataclasses.replace(base, sites=spec.sites)
    return dataclasses.replace(base, options=base.options | {option: value})


def resolved(spec: Spec, backbone: str, image_size: int) -> tuple:
    """What `spec` comes to: every site, and the value of every option there. Raises UserError if it is declined."""
    component, given = regularizers.FAMILY.check(spec)
    options = {name: default for name, (_, default) in regularizers.FAMILY.options(component).items()} | given

    def at(reg: regularizers.Regularizer) -> tuple:
        # None leaves an option to the method: what it chose is an attribute of that name.
        return reg.site, *(getattr(reg, name, None) if value is None else value for name, value in options.items())

    return tuple(at(reg) for reg in backbones.build(backbone, str(spec), image_size, begin=False).regularizers)
