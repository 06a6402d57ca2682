"""A network for evaluation alone: batch norms become part of the convolutions before them.

In evaluation a batch norm is a fixed scale and shift of each channel, so a convolution and its batch norm can become
one convolution, which saves a pass over the largest maps (Jacob et al., CVPR 2018, section 3.2). Results are equal up
to float32 rounding. In bf16 nothing is folded: a folded weight is rounded again, by enough to change one episode in
five. The validations of training do not fold either: which weights are best is decided to the bit.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from fewshot.core.compute import Compute, full_fp32
from fewshot.core.modes import evaluating
from fewshot.evaluation.embed import VALIDATION_BATCH
from fewshot.model import Model

AT_ONCE = 16  # images on a CPU: few enough that its caches hold most of the first maps of 84 px images
_TRIED = 2  # images
_ROUNDING = 1e-4  # of the largest feature: what the order of additions in float32 may amount to


def batch(network: nn.Module, compute: Compute) -> int:
    """How many images a network embeds at once in a test: fewer for our models on the CPU, whose needs we know."""
    return AT_ONCE if compute.device.type == "cpu" and isinstance(network, Model) else VALIDATION_BATCH


def in_use(model: Model, compute: Compute, fold: bool) -> tuple[Model, int]:
    """The network that embeds, folded or as it is, and how many images at once."""
    return (folded(model, compute), batch(model, compute)) if fold else (model, VALIDATION_BATCH)


@torch.no_grad()
def folded(model: Model, compute: Compute) -> Model:
    """A copy of `model`, in evaluation mode, with each batch norm folded into the convolution whose output it is given.

    Returns `model` itself, in the mode that it is in, for bf16, if there is no such batch norm, or if a few images of
    noise show that the copy is not the same function: a network may use a convolution's output elsewhere, too.
    """
    if compute.precision != "fp32":
        return model
    size, device = model.backbone.image_size, model.normalise.scale.device
    noise = torch.rand(_TRIED, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    with evaluating(model), full_fp32(), torch.random.fork_rng(devices=[]):
        pairs, expected = _pairs(model, noise)
        if not pairs:
            return model
        double = copy.deepcopy(model).eval()
        for conv, norm in pairs:
            double.set_submodule(conv, _fused(double.get_submodule(conv), double.get_submodule(norm)))
            double.set_submodule(norm, nn.Identity())
        found = double.to(memory_format=torch.channels_last)(noise)
    same = (found - expected).abs().max() <= _ROUNDING * expected.abs().max()
    return double if same else model


def _pairs(model: nn.Module, images: Tensor) -> tuple[list[tuple[str, str]], Tensor]:
    """Names of convolutions and of the batch norms that are given their outputs, each called once; and the embedding.

    Only of torch's own classes: a subclass may do more than its base.
    """
    names = {module: name for name, module in model.named_modules() if type(module) in (nn.Conv2d, nn.BatchNorm2d)}
    made: dict[int, tuple[nn.Module, Tensor]] = {}  # by id; the tensors are kept so that no id is used again
    calls: list[nn.Module] = []
    found: list[tuple[nn.Module, nn.Module]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append(module)
        if isinstance(module, nn.Conv2d):
            made[id(output)] = module, output
        elif module.running_mean is not None and id(inputs[0]) in made:
            found.append((made[id(inputs[0])][0], module))

    hooks = [module.register_forward_hook(note) for module in names]
    try:
        embedding = model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [(names[conv], names[norm]) for conv, norm in found if _once(calls, (conv, norm))], embedding


def _once(calls: list[nn.Module], modules: Iterable[nn.Module]) -> bool:
    return all(calls.count(module) == 1 for module in modules)


def _fused(conv: nn.Module, norm: nn.Module) -> nn.Conv2d:
    """One convolution for the two."""
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None and norm.running_var is not None
    fused = copy.deepcopy(conv)
    fused.weight, fused.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    return fused
