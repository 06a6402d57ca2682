"""What a network makes of a few images: masks at its sites, class activation maps, activations.

Shapes: N images shown, W ways, C channels, H x W positions of a map, S x S pixels. All of it is evaluation
mode: what a regularizer is handed here was not regularized before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot import backbones
from fewshot.core.components import Spec
from fewshot.core.errors import UserError
from fewshot.data import Dataset
from fewshot.data.augment import to_unit
from fewshot.episodes import EpisodeSampler, Protocol
from fewshot.evaluation.solve import wants_base
from fewshot.model import Model, evaluating
from fewshot.regularizers import FAMILY, Guide, Regularizer, Site
from fewshot.regularizers import expand as single

SHOTS = 5  # support images a class, to which the classifier of a scene is fitted
LEAST_WAYS = 5
_BEFORE = ("input", "image")  # the places before all blocks: site 0
TRIES = 100  # steps among which a method that sits some out is shown in the first that it does not

# Magnitudes of activations: smaller ones are left out (as in the AttentionDrop paper), larger ones are put
# into the last bin.
SMALLEST, BIN, BINS = 0.02, 0.1, 200
EDGES = SMALLEST + BIN * np.arange(BINS + 1)
_BATCH = 32  # images: the early maps of that many fit into memory


@dataclass(frozen=True)
class Scene:
    """One episode of a validation split; of each of its first N classes the query image is shown."""

    classes: tuple[str, ...]
    """(N,) names."""
    shown: np.ndarray
    """(N, S, S, 3) uint8; none of them is in the support."""
    support: np.ndarray
    """(W * SHOTS, S, S, 3) uint8, class by class, the shown ones first."""
    labels: np.ndarray | None = None
    """(N,) class numbers in training, where the data set has the same classes in every split."""


def scene(dataset: Dataset, images: int, seed: int) -> Scene:
    """`images` of the validation split, one a class, and what a classifier of them is fitted to.

    The same for the same membership, `images` and `seed`. UserError where there are not so many classes.
    """
    split = dataset["val"]
    count = len(split.classes)
    if not 1 <= images <= count:
        raise UserError(
            f"--images {images}: one is shown of each class, and the validation split of {dataset.name} has {count};"
            f" give 1 to {count}"
        )
    ways = max(images, min(LEAST_WAYS, count))
    episode = EpisodeSampler(split, Protocol(ways, SHOTS, queries=1), seed).draw(0, 1)[0]  # (W, SHOTS + 1)
    shown = episode[:images, SHOTS]
    labels = split.labels[shown]
    classes = tuple(split.classes[label] for label in labels)
    known = labels if dataset.shared_classes else None
    return Scene(classes, split.images[shown], split.images[episode[:, :SHOTS].ravel()], known)


def guide(model: Model, scene: Scene) -> Guide:
    """The classifier of `_class_weights` on the channels of the deepest map, and each shown image's class in it."""
    weights, own = _class_weights(model, scene)
    named = _named(model, scene) if model.backbone.guided_by_name else None
    return Guide(model.backbone.channel_weights(weights), own, named)


def _class_weights(model: Model, scene: Scene) -> tuple[Tensor, Tensor]:
    """A classifier on embeddings, (W, D), and each shown image's class in it, (N,).

    The model's own, where it was trained to name these classes; else the one that its head fits to the scene's episode.
    """
    if model.classifier is not None and scene.labels is not None:
        return model.classifier.weight.detach(), torch.from_numpy(scene.labels)
    ways = len(scene.support) // SHOTS
    labels = torch.arange(ways).repeat_interleave(SHOTS)
    weights = model.head.class_weights(model.embed(scene.support)[None], labels[None], ways)  # (1, W, D)
    return weights[0], torch.arange(len(scene.shown))


def _named(model: Model, scene: Scene) -> Tensor:
    """(N,): the row of `_class_weights` that the model names for each shown image.

    As in training, but without a transform or head that is first to be fitted on the base classes.
    """
    shown = model.embed(scene.shown)
    if model.classifier is not None and scene.labels is not None:
        return model.classifier(shown).argmax(1)
    ways = len(scene.support) // SHOTS
    labels = torch.arange(ways).repeat_interleave(SHOTS)
    solve = model.head if wants_base(model.head, model.transform) else model.solve
    order = torch.randperm(len(shown), generator=torch.Generator().manual_seed(0))  # a place tells no class
    named = solve(model.embed(scene.support)[None], labels[None], shown[order][None], ways)[0].argmax(1)
    return named[order.argsort()]


def outputs(model: Model, modules: Sequence[nn.Module], images: np.ndarray) -> list[Tensor]:
    """What each of `modules` returns, (N, ...) float32, while `model` embeds uint8 images (N, S, S, 3)."""
    caught: dict[nn.Module, list[Tensor]] = {module: [] for module in modules}

    def catch(module: nn.Module, _, output: Tensor) -> None:
        caught[module].append(output.float().clone())  # the next layer may work in place

    hooks = [module.register_forward_hook(catch) for module in caught]
    try:
        model.embed(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [torch.cat(caught[module]) for module in modules]


def expand(reg: str, original: str, site: int | str | None = None) -> list[Spec]:
    """The single regularizers of a `+`-joined text, `original` spelled out; those without `@` are sent to `site`."""
    specs = single(reg, original)
    if site is None:
        return specs
    return [spec if spec.sites or _place(spec) in _BEFORE else replace(spec, sites=(site,)) for spec in specs]


def replace_regularizers(model: Model, backbone: str, specs: Sequence[Spec]) -> None:
    """Give the model, whose backbone this text describes, other regularizers. UserError as in `backbones.build`."""
    other = backbones.build(backbone, "+".join(map(str, specs)), model.backbone.image_size, begin=False)
    weights = model.backbone.state_dict()
    other.load_state_dict({name: w for name, w in weights.items() if not name.startswith("regs.")}, strict=False)
    model.backbone = other.eval()


def choose(model: Model, specs: Sequence[Spec], site: int | str | None) -> list[Regularizer]:
    """Of each of the model's regularizers, as written, the one at the site that is shown.

    That is `site`, by default the deepest that all share on maps, or its own deepest; for the image 0. UserError
    where there is none, or where a method has no mask.
    """
    labels = [_labels(spec, model) for spec in specs]
    on_maps = [set(its) for spec, its in zip(specs, labels, strict=True) if _place(spec) == "map"]
    shared = set.intersection(*on_maps) if on_maps else set()
    chosen: list[Regularizer] = []
    for spec, its in zip(specs, labels, strict=True):
        its_shared = [label for label in its if label in shared] or its
        deepest = max(its_shared, key=lambda label: model.backbone.at(label)[0].site.depth)
        label = deepest if site is None or _place(spec) in _BEFORE else str(site)
        if label not in its:
            there = ", ".join(its)
            raise UserError(f"{spec} is not at site {label} but at {there}: give that --site, or --reg without @")
        before = sum(label in earlier for earlier in labels[: len(chosen)])  # a site keeps the order written
        reg = model.backbone.at(label)[before]
        if not reg.active:
            raise UserError(f"{spec} drops nothing, so there is no mask to draw: show another with --reg")
        chosen.append(reg)
    return chosen


def _place(spec: Spec) -> str:
    component, _ = FAMILY.check(spec)
    if not component.has_mask():
        raise UserError(f"{spec} works without a mask, so there is none to draw: leave it out with --reg")
    return component.place


def _labels(spec: Spec, model: Model) -> tuple[str, ...]:
    if _place(spec) in _BEFORE:
        return ("0",)
    method = FAMILY.find(spec.name)
    own = (reg.site.label for reg in model.backbone.regularizers if type(reg) is method)
    return tuple(map(str, spec.sites or dict.fromkeys(own)))


@dataclass(frozen=True)
class Masked:
    """One regularizer's masks over the shown images."""

    site: Site
    taken: Tensor
    """(N, C, H, W) in 0..1: see `taken_away`."""
    dropped: float
    """Fraction of the mask that is 0, over all shown images."""


def masks(model: Model, regs: Sequence[Regularizer], scene: Scene, seed: int) -> list[Masked]:
    """What each of the model's regularizers takes away from the shown images at the end of training.

    Each draws by itself from `seed`, whatever is drawn beside it.
    """
    guidance = guide(model, scene) if model.backbone.guided else None
    maps = outputs(model, regs, scene.shown)  # in evaluation mode a regularizer returns what it is handed
    drawn = [_mask(reg, x, guidance, seed) for reg, x in zip(regs, maps, strict=True)]
    return [
        Masked(reg.site, taken_away(mask), (mask == 0).float().mean().item())
        for reg, mask in zip(regs, drawn, strict=True)
    ]


@torch.no_grad()
def _mask(reg: Regularizer, x: Tensor, guidance: Guide | None, seed: int) -> Tensor:
    """The multiplier (N, C, H, W) of the first step in which the method does anything."""
    for step in range(TRIES):
        reg.begin_step(1.0, torch.Generator().manual_seed(seed + step))
        torch.manual_seed(seed + step)
        mask = reg.mask(x, guidance).expand_as(x)
        if (mask != 1).any():
            break
    return mask


def taken_away(mask: Tensor) -> Tensor:
    """What a multiplier (N, C, H, W) takes from each element: 1 - multiplier / the largest in its map; all of an
    empty map.

    1 where it is dropped, 0 where it is kept, whatever the rescaling; in between where it is weakened.
    """
    peak = mask.amax((2, 3), keepdim=True)
    return torch.where(peak > 0, 1 - mask / peak, 1.0)


def one_view(taken: Tensor, channel: int | Literal["most"] | None) -> np.ndarray:
    """(N, H, W) of what is taken away (N, C, H, W): the mean over channels (None), one channel by its number, or
    of each image the channel that loses the most ("most", the first among equals)."""
    if channel is None:
        return taken.mean(1).numpy()
    if channel == "most":
        most = taken.mean((2, 3)).argmax(1)
        return taken[torch.arange(len(taken)), most].numpy()
    if not 0 <= channel < taken.shape[1]:
        raise UserError(f"--channel {channel}: a mask here has {taken.shape[1]}; give less, or most")
    return taken[:, channel].numpy()


def class_activation_maps(model: Model, scene: Scene, site: int | str | None = None) -> np.ndarray:
    """(N, H, W) float32: sum_c alpha_c X_c over the map X of each shown image, by default the deepest.

    There alpha are the weights of the image's own class in the scene's episode, or in the classifier that the model was
    trained with, where the data set has its classes in every split (Zhou et al., CVPR 2016). After block
    `site` they are Grad-CAM's: the gradient of that class's score, averaged over the positions of X (Selvaraju et al.,
    ICCV 2017, equation 1), which for the deepest map are the same weights. Neither sum is cut at zero. `site` may be
    a module's name. UserError where there is no such block or module, or where it gives no map.
    """
    backbone = model.backbone
    if site in (None, len(backbone.stages)):
        weights, own = _class_weights(model, scene)
        weights = backbone.channel_weights(weights)
        (deepest,) = outputs(model, [backbone.module_at(len(backbone.stages))], scene.shown)
        return torch.einsum("nc,nchw->nhw", weights[own], deepest).numpy()
    assert site is not None
    module = backbone.module_at(site)
    if isinstance(site, str) and site not in backbone.maps():
        raise UserError(f"--site {site}: it gives no map in a pass; python -m fewshot.show sites lists what does")
    x, gradient = _gradients(model, module, scene)
    return torch.einsum("nc,nchw->nhw", gradient.mean((2, 3)), x).numpy()


def _gradients(model: Model, block: nn.Module, scene: Scene) -> tuple[Tensor, Tensor]:
    """A block's map (N, C, H, W) of the shown images, and the gradient of the score of each image's own class there."""
    caught: list[Tensor] = []

    def catch(module: nn.Module, _, output: Tensor) -> Tensor:
        caught.append(output)
        return output.clone()  # the next layer may work in place

    weights, own = _class_weights(model, scene)
    device = model.normalise.scale.device
    images = to_unit(torch.as_tensor(scene.shown).to(device)).requires_grad_()
    hook = block.register_forward_hook(catch)
    try:
        with evaluating(model), torch.enable_grad():
            score = (model(images) * weights[own]).sum()  # images do not meet in evaluation mode
    finally:
        hook.remove()
    (gradient,) = torch.autograd.grad(score, caught)
    return caught[0].detach().float(), gradient.float()


def heat(maps: np.ndarray, side: int) -> np.ndarray:
    """Maps (N, H, W), each stretched to 0..1 (a constant one to 0), and bilinearly enlarged to (N, side, side)."""
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    stretched = torch.from_numpy((maps - low) / np.where(high > low, high - low, 1))
    return F.interpolate(stretched[:, None], (side, side), mode="bilinear")[:, 0].numpy()


def magnitudes(model: Model, images: np.ndarray, site: int | str) -> tuple[np.ndarray, float]:
    """How often |a| of stage `site`'s batch-norm outputs falls between each two EDGES, and the share below the first.

    (BINS,) int64; the last bin takes what is beyond it. Of uint8 images (N, S, S, 3); all of the stage's batch
    norms together. `site` may be a module's name. UserError where it has none, or where an activation is not finite.
    """
    norms = [module for module in model.backbone.module_at(site).modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        where = f"block {site}" if isinstance(site, int) else site
        raise UserError(f"{where} of this backbone has no batch norm: give another --site")
    counts, total = np.zeros(BINS, np.int64), 0
    for start in range(0, len(images), _BATCH):
        for output in outputs(model, norms, images[start : start + _BATCH]):
            if not output.isfinite().all():
                raise UserError("the activations are not finite: training diverged; train again with a lower --lr")
            sizes = output.double().abs_().clamp_(max=EDGES[-1]).numpy()
            counts += np.histogram(sizes, BINS, (EDGES[0], EDGES[-1]))[0]
            total += sizes.size
    return counts, 1 - counts.sum() / total
