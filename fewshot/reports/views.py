"""What `show` draws of networks: computed by evaluation/inspection, drawn by pictures.py, headed here.

Each view returns its heading and its figure; with `titled`, the heading is in the figure, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from fewshot.config import TrainConfig
from fewshot.core.errors import UserError
from fewshot.data import Dataset
from fewshot.evaluation import inspection
from fewshot.evaluation.inspection import Masked
from fewshot.model import Model
from fewshot.regularizers import Site
from fewshot.reports import pictures

SiteName = int | str
"""A block's number, or a module's name."""


@dataclass(frozen=True)
class Network:
    """A network to show: a run's, or an untrained one."""

    config: TrainConfig
    model: Model
    folder: str = ""
    """The run's; "" for an untrained network."""
    unfinished: bool = False
    """Whether the run's training has not ended."""
    changed: str = ""
    """The files of its components that have changed since, if any."""

    @property
    def training(self) -> str:
        """What training it has had, for headings."""
        return f"trained with {self.config.reg}{self.mark}" if self.folder else "untrained"

    @property
    def mark(self) -> str:
        """What is added to the name of a run whose training has not ended, or used other code."""
        about = ["unfinished"] * self.unfinished + [f"{self.changed} has changed since"] * bool(self.changed)
        return f" ({', '.join(about)})" if about else ""


def masks(
    dataset: Dataset, network: Network, reg: str | None, site: SiteName | None,
    channel: int | Literal["most"] | None, images: int, seed: int, titled: bool,
) -> tuple[str, Figure]:  # fmt: skip
    """What each regularizer removes from so many images, a column each.

    `reg`: the regularizers to show; None for those that the network was trained with. `site`: where they act; None for
    the deepest site that they share. `channel`: the one to show; "most" for the one that loses most; None for a mean.
    Raises UserError if a regularizer has no mask or is not at `site`.
    """
    config, model = network.config, network.model
    if reg is None:
        specs = inspection.expand(config.reg, model.backbone.original)
    else:
        specs = inspection.expand(reg, model.backbone.original, site)
        inspection.replace_regularizers(model, config.backbone, specs)
    regs = inspection.choose(model, specs, site)
    scene = inspection.scene(dataset, images, seed)
    masked = inspection.masks(model, regs, scene, seed)
    headed = next((each.site for each in masked if each.site.place == "map"), masked[0].site)
    columns = [
        pictures.Column(str(replace(spec, sites=None)), inspection.one_view(each.taken, channel), _notes(each, headed))
        for spec, each in zip(specs, masked, strict=True)
    ]
    over: dict[object, str] = {
        None: "mean over channels; each column has its own scale", "most": "in the channel that loses most",
    }  # fmt: skip
    scale = f"share taken away, {over.get(channel, f'in channel {channel}')}"
    of = f" of {headed.depths}" if headed.numbered else ""
    maps = f"{of} ({headed.channels} maps of {headed.height}x{headed.width})" if headed.depth else ""
    heading = f"{dataset.name}: what is taken away {_where(headed)}{maps} in {config.backbone}, {network.training}"
    shared = channel is not None
    title = heading if titled else ""
    return heading, pictures.gallery(title, scene.shown, scene.classes, columns, pictures.SHADE, scale, shared)


def cam(
    dataset: Dataset, networks: Sequence[Network], site: SiteName | None, images: int, seed: int, titled: bool
) -> tuple[str, Figure]:
    """Class activation maps of runs over so many images, a column each; of `site`, or the deepest block.

    Raises UserError if every map of a run has one value throughout.
    """
    scene = inspection.scene(dataset, images, seed)
    maps = [inspection.class_activation_maps(each.model, scene, site) for each in networks]
    where = "the deepest block" if site is None else _module(site)
    for network, each in zip(networks, maps, strict=True):
        if (each.max((1, 2)) == each.min((1, 2))).all():
            size = f"{each.shape[1]}x{each.shape[2]}"
            raise UserError(
                f"{network.folder}: the map of {where} is {size} and has one value throughout, so that there is nothing"
                " to see; give an earlier block with --site"
            )
    heats = [inspection.heat(each, dataset.image_size) for each in maps]
    columns = [pictures.Column(*each) for each in zip(_labels(networks), heats, strict=True)]
    sizes = " and ".join(sorted({f"{each.shape[1]}x{each.shape[2]}" for each in maps}))
    heading = f"{dataset.name}: class activation maps of {where} ({sizes}) of {_backbones(networks)}"
    scale = "for the image's class: 0 least, 1 most of the picture"
    title = heading if titled else ""
    return heading, pictures.gallery(title, scene.shown, scene.classes, columns, pictures.LIGHT, scale, shared=True)


def activations(
    dataset: Dataset, networks: Sequence[Network], images: int, site: SiteName | None, titled: bool
) -> tuple[str, Figure]:
    """How large the batch-norm outputs of `site`, or the deepest block, are on `images` evenly spread images."""
    split = dataset["val"]
    count = min(images, len(split.images))
    if count < 1:
        raise UserError(f"--images {images}: give at least 1")
    chosen = split.images[np.linspace(0, len(split.images) - 1, count).astype(int)]
    counts = {}
    for label, network in zip(_labels(networks), networks, strict=True):
        at = len(network.model.backbone.stages) if site is None else site
        counted, below = inspection.magnitudes(network.model, chosen, at)
        counts[f"{label}: {below:.1%} below {inspection.SMALLEST}"] = counted
    shown = f"{count} validation images, {_backbones(networks)}"
    where = "the deepest block" if site is None else _module(site)
    heading = f"{dataset.name}: batch-norm outputs of {where}, {shown}"
    return heading, pictures.histogram(heading if titled else "", inspection.EDGES, counts)


def _labels(networks: Sequence[Network]) -> list[str]:
    """A name for each, by what it was trained with."""
    if not networks[0].folder:
        return ["untrained"]
    labels = pictures.run_labels([each.config for each in networks], [each.folder for each in networks])
    return [label + each.mark for label, each in zip(labels, networks, strict=True)]


def _backbones(networks: Sequence[Network]) -> str:
    return " and ".join(dict.fromkeys(each.config.backbone for each in networks))


def _module(site: SiteName) -> str:
    return f"block {site}" if isinstance(site, int) else site


def _where(site: Site) -> str:
    if site.depth == 0:
        return "from the image"
    module = _module(int(site.label) if site.label.isdecimal() else site.label)
    return f"after {module}" if site.place == "map" else f"in the branch of {module}"


def _notes(masked: Masked, headed: Site) -> list[str]:
    """Where it acts, unless the heading says so, and how much it removes from the shown images."""
    lines = [] if masked.site == headed else [_where(masked.site)]
    lines.append(f"{masked.dropped:.1%} dropped")
    taken = masked.taken.mean().item()
    if taken > masked.dropped + 0.0005:
        lines.append(f"{taken:.1%} taken")
    return lines
