"""The modules of a network at which regularizers can act, as `show sites` lists them."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fewshot import backbones


def print_sites(console: Console, backbone: str, image_size: int) -> None:
    """A line for each module that gives a map: its number, name, map and class. Images have `image_size` pixels."""
    network = backbones.build(backbone, "none", image_size, begin=False)
    numbers = {stage: str(number) for number, stage in enumerate(network.stages, 1)}
    maps = network.maps()
    table = Table("site", "module", "map (C x H x W)", "class", box=None, pad_edge=False)
    for module, shape in maps.items():
        kind = type(network.module_at(module)).__name__
        table.add_row(*map(Text, (numbers.get(module, ""), module, " x ".join(map(str, shape)), kind)))
    about = f"{backbone}, {image_size} px images, {network.features:,} features"
    console.print(f"{about}; modules that give a map: {len(maps)}.")
    console.print(table)
    example = network.stages[-1] if network.stages else next(iter(maps), None)
    if example:
        console.print(f"Write a number or a name after @: --reg targetdrop@{numbers.get(example, example)}")
