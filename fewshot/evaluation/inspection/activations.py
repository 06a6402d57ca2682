"""Where networks look, and how large their activations are.

Shapes: N images shown, C channels, H x W positions of a map, S x S pixels.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.core.errors import UserError
from fewshot.data.augment import to_unit
from fewshot.evaluation.inspection.scenes import Scene, class_weights, outputs
from fewshot.model import Model, evaluating

# Magnitudes of activations: smaller ones are left out (as in the AttentionDrop paper), larger ones are put
# into the last bin.
SMALLEST, BIN, BINS = 0.02, 0.1, 200
EDGES = SMALLEST + BIN * np.arange(BINS + 1)
_BATCH = 32  # images: the early maps of that many fit into memory


def class_activation_maps(model: Model, scene: Scene, site: int | str | None = None) -> np.ndarray:
    """(N, H, W) float32: sum_c alpha_c X_c over the map X of each shown image, by default the deepest.

    For the deepest map, alpha are the weights of the image's own class in the scene's episode, or, if the data set has
    the same classes in every split, in the classifier that the model was trained with (Zhou et al., CVPR 2016). After
    block `site` they are Grad-CAM's: the gradient of that class's score, averaged over the positions of X (Selvaraju
    et al., ICCV 2017, equation 1); for the deepest map these are the same weights. Neither sum is cut at zero. `site`
    may be a module's name. Raises UserError if there is no such block or module, or if it gives no map.
    """
    backbone = model.backbone
    if site in (None, len(backbone.stages)):
        weights, own = class_weights(model, scene)
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

    weights, own = class_weights(model, scene)
    device = model.normalise.scale.device
    images = to_unit(torch.as_tensor(scene.shown).to(device)).requires_grad_()
    hook = block.register_forward_hook(catch)
    try:
        with evaluating(model), torch.enable_grad():
            score = (model(images) * weights[own]).sum()  # in evaluation mode images do not affect each other
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
    """How often |a| of stage `site`'s batch-norm outputs falls between successive EDGES, and the share below the first.

    (BINS,) int64; the last bin takes what is beyond it. From uint8 images (N, S, S, 3); all batch norms of the stage
    together. `site` may be a module's name. Raises UserError if it has no batch norm, or an activation is not finite.
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
