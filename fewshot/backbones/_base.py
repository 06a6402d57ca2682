"""What every backbone is: a network with regularizers at named sites."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from fewshot import regularizers
from fewshot.backbones._dryrun import DryRun, dry_run
from fewshot.backbones._residual import find_ends
from fewshot.core.components import Spec
from fewshot.core.errors import UserError
from fewshot.data.channels import Triple
from fewshot.regularizers import Guide, Place, Regularizer, Site


class Backbone(nn.Module):
    """Images (N, 3, S, S), normalised, to embeddings (N, features).

    For a network of your own, derive from this class, make the layers in `__init__(image_size, *, ...)` and write
    `embed`. The keyword-only parameters of `__init__` are its options. For a network that exists already, see
    `Foreign`; for a row of blocks, see `Blocks`. `backbones.build` makes the network and calls `place`.

    A site is the output of a module; its label is what the user writes. Any module that is called once in a pass and
    gives a map (N, C, H, W) is a site, labelled by its name. Site number i stands for the i-th of `stages`. If a stage
    has a submodule `branch` (an `nn.Identity` at the end of its residual branch, before the shortcut is added), the
    output of `branch` is site i for regularizers that act on branches. A network with more than one branch per stage
    names them all in `branches`. The input is site 0, before and after it is normalised. Regularizers that act on
    branches or on the input say so by their `place`, and no others act there. Branches given by name are found in any
    network: see `Ends` in `_residual.py`.

    Class attributes:

    - `original` (str, "none"): what `original` stands for in `reg`: the regularization that the network was published
      with.
    - `stages` (names, none): the modules that site numbers stand for, from the shallowest to the deepest. Without
      them sites have names only, and methods have no default sites.
    - `branches` (names): the modules that end residual branches, from the shallowest to the deepest: the i-th is site
      i. By default the `branch` of each stage that has one.
    - `positional` (str, none): the option that a bare first value stands for, as in `timm:resnet18`.
    - `normalisation` (none): mean and standard deviation of each channel in [0, 1] that the network wants instead of
      the data set's.

    Set by `place`: `sites`, the Site of each stage; `features`, the length D of an embedding; `regs`, the regularizers
    by site; `windows_meet`, whether the windows of a max pool overlap: its gradient on CUDA is then a sum in no fixed
    order.
    """

    original: str = "none"
    stages: Sequence[str] = ()
    branches: Sequence[str] = ()
    positional: str = ""
    normalisation: tuple[Triple, Triple] | None = None
    sites: list[Site]
    features: int
    windows_meet: bool
    regs: nn.ModuleDict

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.facts: dict[str, Any] = {}
        """What a run's record says about the network under `resolved`, in addition to its options."""
        self._guide: Guide | None = None
        self._embeds = ""

    @property
    def input_size(self) -> int:
        """The side in pixels of the images that the network itself sees; not `image_size` if it resizes them."""
        return self.image_size

    @property
    def root(self) -> nn.Module:
        """The module in which users name modules: this one, unless it wraps a network."""
        return self

    def embed(self, x: Tensor) -> Tensor:
        """The network itself: normalised images (N, 3, S, S) to embeddings (N, features)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (N, 3, S, S) to embeddings (N, features), regularized in training mode."""
        return self.embed(self._regularize("0", "input", x))

    def begin(self) -> None:
        """Load the weights that training starts from, if the options name some; by default the random ones stay.

        Called once, after `place`, but not when a trained network is read back. Raises UserError if they cannot be
        loaded.
        """

    def on_images(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) in [0, 1] after the regularizers that act on images before they are normalised."""
        with torch.autocast(images.device.type, enabled=False):  # in bf16, products of positions move pixels
            return self._regularize("0", "image", images)

    def place(self, reg: str) -> None:
        """Put the regularizers of the text `reg` at their sites. Call it once, when all layers are made.

        Shapes come from a dry run with one image. Raises UserError for unknown names, options or sites, for modules
        that give no map or are called more than once, and for images too small for the network.
        """
        specs = regularizers.expand(reg, self.original)
        where = {name: str(spec) for spec in reversed(specs) for name in spec.sites or () if isinstance(name, str)}
        modules = dict(self.root.named_modules(remove_duplicate=False))
        branches = {str(number): name for number, name in enumerate(self.branches, 1)} or {
            str(number): f"{name}.branch" for number, name in enumerate(self.stages, 1) if f"{name}.branch" in modules
        }
        author = f"{type(self).__name__}.stages"
        for name in [*self.stages, *where]:
            if name not in modules:
                raise self._no_module(name, where.get(name, author), modules)
        watched = {name: modules[name] for name in [*self.stages, *branches.values(), *where]}
        seen = dry_run(self, self.embed, watched, self.image_size, self.stages[-1] if self.stages else "")
        if not (isinstance(seen.embedding, Tensor) and seen.embedding.ndim == 2):
            raise UserError(f"{type(self).__name__} must embed images as one tensor (N, features)")
        self.features, self.windows_meet = seen.embedding.shape[1], seen.windows_meet

        def site(name: str, place: Place, depth: int, depths: int, label: str) -> Site:
            channels, height, width = seen.map_of(name, where.get(name, author)).shape[1:]
            return Site(channels, height, width, depth, depths, place, label, self.input_size)

        size, depths = self.image_size, len(self.stages) or 1
        self.sites = [site(name, "map", depth, depths, str(depth)) for depth, name in enumerate(self.stages, 1)]
        named = [site(name, "map", self._depth(name, seen), depths, name) for name in where]
        # Of each module that ends a branch: its number, and of how many.
        ends = {name: (int(label), len(self.branches) or depths) for label, name in branches.items()}
        within = [site(name, "branch", *ends[name], label) for label, name in branches.items()]
        ends = self._found_ends(specs, modules, ends) | ends
        of_branches = [site(name, "branch", *ends[name], name) for name in where if name in ends]
        images = [Site(3, size, size, 0, depths, place, "0", size) for place in ("input", "image")]
        self._embeds = self._read(seen, seen.embedding)
        self._attach(regularizers.build_all(specs, [*self.sites, *within, *named, *of_branches, *images]), branches)

    def _found_ends(
        self, specs: Sequence[Spec], modules: Mapping[str, nn.Module], declared: Collection[str]
    ) -> dict[str, tuple[int, int]]:
        """All ends that are found, each with its number and how many there are, if the `declared` ones do not suffice.

        Raises UserError if a method for branches is to act on a module that ends none.
        """
        acting = [spec for spec in specs if regularizers.FAMILY.find(spec.name).place == "branch"]
        labels = [label for spec in acting for label in spec.sites or ()]
        if not acting or (declared and all(isinstance(label, int) or label in declared for label in labels)):
            return {}
        found = find_ends(self, self.embed, {name: each for name, each in modules.items() if name}, self.image_size)
        for spec in acting:
            found.check(spec, declared, self.stages)
        return {name: (number, found.count) for name, number in found.numbers.items()}

    def _no_module(self, name: str, where: str, modules: Iterable[str]) -> UserError:
        near = difflib.get_close_matches(name, modules, n=3, cutoff=0.5)
        children = ", ".join(child for child, _ in self.root.named_children())
        there = f"nearest: {', '.join(near)}" if near else f"it has {children} and theirs"
        return UserError(f"{where}: this network has no module {name!r}; {there}")

    def _depth(self, name: str, seen: DryRun) -> int:
        """The stage, counted from 1, in which a module's call ends; what comes after all stages belongs to the last."""
        done = sum(stage in seen.ended[: seen.ended.index(name)] for stage in self.stages) if name in seen.ended else 0
        return min(done + 1, len(self.stages) or 1)

    def _attach(self, built: list[Regularizer], branches: dict[str, str]) -> None:
        """Attach each regularizer to the module of its site; those at one site act one after another, as written.

        `branches`: the modules that end the residual branches, by number.
        """
        built.sort(key=lambda reg: (not reg.site.numbered, reg.site.depth))  # stable: the order written stays
        groups: dict[str, list[Regularizer]] = {}
        for reg in built:
            groups.setdefault(_key(reg.site.label), []).append(reg)
        self.regs = nn.ModuleDict({key: nn.ModuleList(group) for key, group in groups.items()})
        for label, place in dict.fromkeys((reg.site.label, reg.site.place) for reg in built):
            if label == "0":
                continue
            name = label
            if label.isdecimal():
                name = branches[label] if place == "branch" else self.stages[int(label) - 1]
            self.root.get_submodule(name).register_forward_hook(partial(self._on_output, label, place))
        if self.guided:
            self.channel_weights(torch.zeros(1, self.features))  # UserError now rather than in the first step

    def _on_output(self, label: str, place: Place, _module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        return self._regularize(label, place, output)

    def _regularize(self, label: str, place: Place, x: Tensor) -> Tensor:
        """x (N, C, H, W) after the regularizers at one site, one after another."""
        for reg in self.at(label):
            if reg.site.place == place:
                x = reg(x, self._guide)
        return x

    def at(self, label: str) -> list[Regularizer]:
        """The regularizers at the site with this label, at all its places, in the order written."""
        key = _key(label)
        return list(cast(Iterable[Regularizer], self.regs[key])) if key in self.regs else []

    @contextmanager
    def guided_by(self, guide: Guide | None) -> Iterator[None]:
        """Within this context, every pass hands `guide` to the regularizers, and to nothing else."""
        before, self._guide = self._guide, guide
        try:
            yield
        finally:
            self._guide = before

    def module_at(self, label: int | str) -> nn.Module:
        """The module of a site: a stage's number, or a module's name. Raises UserError if there is none."""
        if isinstance(label, int):
            if not 1 <= label <= len(self.stages):
                numbers = f"blocks 1 to {len(self.stages)}" if self.stages else "no numbered blocks: name a module"
                raise UserError(f"--site {label}: this backbone has {numbers}")
            return self.root.get_submodule(self.stages[label - 1])
        modules = dict(self.root.named_modules(remove_duplicate=False))
        if label not in modules:
            raise self._no_module(label, "--site", modules)
        return modules[label]

    def maps(self) -> dict[str, tuple[int, int, int]]:
        """(C, H, W) of every module that can be a site, by name, in the order in which their calls end.

        Only square maps, as images are square: what a transformer's heads pass on has four dimensions, too.
        """
        named = self.root.named_modules(remove_duplicate=False)
        modules = {name: module for name, module in named if name and name.partition(".")[0] != "regs"}
        seen = dry_run(self, self.embed, modules, self.image_size)
        found: dict[str, tuple[int, int, int]] = {}
        for name in dict.fromkeys(seen.ended):
            if seen.gives_map(name):
                channels, height, width = seen.map_of(name, name).shape[1:]
                if height == width:
                    found[name] = channels, height, width
        return found

    @property
    def regularizers(self) -> list[Regularizer]:
        """Every regularizer in it: at numbered sites from the shallowest to the deepest, then at named ones."""
        return [reg for at_site in self.regs.values() for reg in cast(Iterable[Regularizer], at_site)]

    @property
    def guided(self) -> bool:
        """Whether a regularizer in it needs a guide in training."""
        return any(reg.guided for reg in self.regularizers)

    @property
    def guided_by_name(self) -> bool:
        """Whether one of these is guided by the class that the network itself names, `Guide.named`."""
        return any(reg.guided and reg.guided_by_name for reg in self.regularizers)

    def begin_step(self, progress: float, generator: torch.Generator | None = None) -> None:
        """Tell the regularizers that an optimizer step begins, at `progress` (0..1) of training.

        Each gets a generator in the same state, seeded by one draw from `generator` (by default torch's own), so that
        all sites agree on what a method draws once per step, whatever else is placed between them.
        """
        seed = int(torch.randint(2**63 - 1, (), generator=generator))
        for reg in self.regularizers:
            reg.begin_step(progress, torch.Generator().manual_seed(seed))

    @property
    def weight_decay_scale(self) -> float:
        """The factor of this step's weight decay: the largest that a regularizer asks for; 1 asks for nothing."""
        asked = (scale for reg in self.regularizers if (scale := reg.weight_decay_scale) != 1)
        return max(asked, default=1.0)

    def _read(self, seen: DryRun, embedding: Tensor) -> str:
        """How the embedding is made from the deepest stage's map: "flat", its "mean" over positions, or "" (neither).

        In `seen`, that map and all weights after it are replaced: see `dry_run`.
        """
        if not self.stages:
            return ""
        deepest = seen.map_of(self.stages[-1], type(self).__name__)
        for how, expected in (("flat", deepest.flatten(1)), ("mean", deepest.mean((2, 3)))):
            if expected.shape == embedding.shape and torch.allclose(expected, embedding, rtol=1e-4):
                return how
        return ""

    @property
    def map_shape(self) -> tuple[int, int, int] | None:
        """(C, H, W) if an embedding is the deepest stage's map of that shape, flattened; else None."""
        if self._embeds != "flat":
            return None
        deepest = self.sites[-1]
        return deepest.channels, deepest.height, deepest.width

    def channel_weights(self, weights: Tensor) -> Tensor:
        """A linear classifier's weights (..., features) on embeddings -> (..., C), on the deepest map's channels.

        They are averaged over the positions of the map; weights on another map are left out. The class activation map
        is the sum over channels of weight times map. Raises UserError if the embedding is neither the deepest stage's
        map, flattened, nor its average over positions, and the network does not override this method.
        """
        if self._embeds == "mean":
            return weights
        if self._embeds == "flat":
            deepest = self.sites[-1]
            return weights.unflatten(-1, (deepest.channels, deepest.height * deepest.width)).mean(-1)
        name = type(self).__name__
        what = "its embedding is neither its last stage's map nor the average of it" if self.stages else "has no stages"
        raise UserError(
            f"{name} cannot tell class weights for the channels of its deepest map, which camdrop and show cam need:"
            f" {what}; give {name} `stages`, or a method `channel_weights`"
        )


def _key(label: str) -> str:
    """A label as the name of a child module, which must have no dots and must not be that of a ModuleDict method."""
    return label if label.isdecimal() else "@" + label.replace(".", "/")
