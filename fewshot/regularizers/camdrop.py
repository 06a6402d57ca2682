"""CamDrop (Wang, Wang, Li & Lin, CIKM 2019): blocks are dropped where the network looks when it names the class.

For each image's own class y, alpha (C,) is the classifier's weight vector and J = sum_c alpha_c X_c is the class
activation map. A seed is one of the n most important positions of J, in one of the n' channels of largest
alpha, where a block of r x r fits and a Bernoulli draw is 1. The block around it is dropped.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.core.errors import UserError
from fewshot.regularizers import dropblock
from fewshot.regularizers._base import Guide, Regularizer, Site, inverse_mean, largest


def compress(weights: Tensor, channels: int) -> Tensor:
    """Class weights (N, C') of the deepest map's channels -> (N, C) for a map of `channels`.

    Sums over contiguous groups of C' / C channels; if that is no whole number, adaptive averages times it.
    """
    ratio = weights.shape[1] / channels
    return F.adaptive_avg_pool1d(weights[:, None], channels)[:, 0] * ratio


def important(importance: Tensor, count: int) -> Tensor:
    """1.0 at the `count` largest positions of each map J (N, H, W) and at all that equal the last of them, else 0.0."""
    ranked = importance.flatten(1).sort(dim=1, descending=True).values
    return (importance >= ranked[:, count - 1, None, None]).float()


def camdrop_mask(noise: Tensor, positions: Tensor, channels: Tensor, rate: float, block_size: int) -> Tensor:
    """Multiplier (N, C, H, W) of mean 1 over each image (eq. 10): 0 in the blocks; an image with nothing left stays 0.

    `noise` (N, C, H-b+1, W-b+1): uniform, one value for each block that fits, indexed by the block's upper left corner.
    `positions` (N, H, W) and `channels` (N, C): the candidates, 1.0 or 0.0. A seed is the middle of its block, or the
    position after the middle if the block's side is even.
    """
    half, (height, width) = block_size // 2, noise.shape[-2:]
    middles = positions[:, None, half : half + height, half : half + width]
    seeds = (noise < rate).float() * middles * channels[..., None, None]
    keep = 1 - dropblock.blocks_from_seeds(seeds, block_size)
    return keep * inverse_mean(keep, (1, 2, 3))


class CamDrop(Regularizer):
    """`guide`: cam, the class activation map, or avg, the paper's ablation: J is the map's mean over channels.

    `block_size`: r = 5, or 2 for small images (32 px); a default is clipped to the map. `channels`: n' is this
    fraction of the C channels (the paper's dominant C/8), rounded, at least 1. Those of largest signed alpha are taken,
    lowest index first among equals. 1 takes all, an ablation.

    `candidates`: the paper contradicts itself on n = (1 - 1/r^2) HW. Its words, "the n most important" and
    "equivalent to DropBlock" when n is the resolution, make n the number of candidates: "kept". Its recursion
    and the released code remove n positions, and leave HW/r^2: "removed" (the strict ">" of its eq. 6 would lose one
    more, the only one in 8x8; the released code keeps it, as we do). n is rounded; ties are included.
    `seed_rate`: dropblock, eq. 1 of the DropBlock paper at `drop_prob` (as released), or direct, `drop_prob` (1 - gamma
    in the paper) at each position (as written).

    `label`: the class y of an image. "own" is the paper's choice, the true class. Networks can learn to read it from
    the mask, in episodes and in supervised training, and then fail without it; classifiers with the paper's site and
    block, the last map and all of it, did not (results/camdrop-labels.md). "named" is the class that the network names
    with the regularizers off. This takes one more pass: of an episode's queries (support images have their own class,
    which the head is given), or of all images by the classifier.

    Our other readings: the sites, the same as for all methods here, and with them DropBlock's blocks of 5 and 2
    (the paper, in classification, has r = 8 on CIFAR's 8x8 maps and 7 on ImageNet's); a constant rate from the
    first step, without a schedule; the square, not the L1 ring of the formula; rescaling over each image.
    For shallow sites, `Guide.weights` are compressed (`compress`). In training a guide is required, unless neither J
    nor the channels need it (`guide=avg,channels=1`). The training loop fits one to each episode: the run's head, on
    embeddings before `--transform`.

    Expected drop fraction: small by design, about drop_prob * n'/C * n/HW; `expected_drop` if all positions are
    equally likely to be important and candidates are many: .0112 for the defaults on 64 channels of 10x10.
    """

    def __init__(
        self,
        site: Site,
        *,
        drop_prob: float = 0.1,
        block_size: int | None = None,
        channels: float = 0.125,
        guide: Literal["cam", "avg"] = "cam",
        candidates: Literal["kept", "removed"] = "kept",
        seed_rate: Literal["dropblock", "direct"] = "dropblock",
        label: Literal["own", "named"] = "own",
    ) -> None:
        super().__init__(site)
        self.check_rate(drop_prob=drop_prob, channels=channels)
        if channels == 0:
            raise UserError("camdrop:channels=0 leaves none to drop from; give more, such as 0.125, or 1 for all")
        self.drop_prob, self.guide, self.candidates, self.seed_rate = drop_prob, guide, candidates, seed_rate
        self.block_size = self.fit_block(block_size, default=2 if site.small_images else 5)
        self.channels = max(1, round(channels * site.channels))
        positions = site.height * site.width
        kept = round((1 - 1 / self.block_size**2) * positions)
        self.count = kept if candidates == "kept" else positions - kept
        if block_size is not None and self.count == 0:
            raise UserError(
                f"camdrop:block_size={block_size} leaves no candidates: n = (1 - 1/r^2) HW = 0; give 2 or more"
            )
        self.rate = drop_prob
        if seed_rate == "dropblock":
            self.rate = dropblock.seed_rate(drop_prob, self.block_size, site.height, site.width)
        self.active = drop_prob > 0 and self.count > 0
        self.guided_by_name = label == "named"
        self.guided = self.active and (guide == "cam" or self.channels < site.channels)

    def multiplier(self, x: Tensor, guide: Guide | None = None) -> Tensor:
        """(N, C, H, W) multiplier. Raises UserError without the guide that it needs."""
        alpha = self._alpha(x, guide) if self.guided else x.new_zeros(x.shape[:2])
        importance = torch.einsum("nc,nchw->nhw", alpha, x) if self.guide == "cam" else x.mean(1)
        positions, channels = important(importance, self.count), largest(alpha, self.channels)
        fits = (size - self.block_size + 1 for size in x.shape[2:])
        noise = torch.rand((*x.shape[:2], *fits), device=x.device)
        return camdrop_mask(noise, positions, channels, self.rate, self.block_size)

    def _alpha(self, x: Tensor, guide: Guide | None) -> Tensor:
        """(N, C): for each image, its class's weights for this map's channels."""
        labels = None if guide is None else guide.named if self.guided_by_name else guide.labels
        if guide is None or guide.weights is None or labels is None:
            given = "weights, labels, named" if self.guided_by_name else "weights, labels"
            raise UserError(
                "camdrop needs to know the class weights and the images' classes in training:"
                f" call it with guide=Guide({given}), or take guide=avg,channels=1"
            )
        if len(labels) != len(x):
            raise UserError(f"camdrop was given {len(labels)} labels for {len(x)} images")
        return compress(guide.weights.detach().float()[labels], x.shape[1])

    @property
    def warning(self) -> str:
        """See Regularizer.warning; it also names the remedy."""
        remedy = "; camdrop:label=named goes by the class that the network names (results/camdrop-labels.md)"
        return super().warning and super().warning + remedy

    @property
    def expected_drop(self) -> float:
        """Expected fraction dropped if positions are candidates equally often, independently of each other."""
        height, width = self.site.height, self.site.width
        unit = dropblock.seed_rate(1.0, self.block_size, height, width)
        probability = self.rate / unit * self.count / (height * width)
        share = self.channels / self.site.channels
        return share * dropblock.expected_drop(probability, self.block_size, height, width)

    def extra_repr(self) -> str:
        options = f"guide={self.guide}, candidates={self.candidates}, seed_rate={self.seed_rate}"
        options += ", label=named" * self.guided_by_name
        return f"drop_prob={self.drop_prob}, block_size={self.block_size}, channels={self.channels}, {options}"
