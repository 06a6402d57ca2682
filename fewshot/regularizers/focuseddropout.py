"""FocusedDropout (Xie et al., arXiv:2103.15425, 2021): keep the focus of an image, drop everything else.

It drops not a random region, but everything that the strongest channel does not point at. It does so on only a
tenth of the batches, and magnifies the weight decay on these.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.core.errors import UserError
from fewshot.regularizers._base import Regularizer, Site


def reference_map(x: Tensor) -> Tensor:
    """(N, 1, H, W): for each image, the channel of largest mean, the first among equals."""
    strongest = x.mean((2, 3)).argmax(1)  # (N,)
    return x.take_along_dim(strongest[:, None, None, None], dim=1)


def focuseddropout_mask(reference: Tensor, share: Tensor | float, invert: bool = False) -> Tensor:
    """Multiplier (N, 1, H, W), for all channels: 1 where the reference map exceeds `share` of its maximum, else 0.

    `share` is broadcastable to the map. No rescaling. `invert` swaps what is kept and what is dropped. An image whose
    reference map has no positive value has no focus: it stays whole.
    """
    peak = reference.amax((2, 3), keepdim=True)
    keep = (reference > share * peak) != invert
    return (keep | (peak <= 0)).float()


class FocusedDropout(Regularizer):
    """Algorithm 1, with a threshold of gamma * max, gamma ~ U(low, high), drawn once per image.

    The text and the experiments say U(0.3, 0.6), the default; algorithm 1 says random(0.6, 0.9), within its
    loop over positions: `low=0.6,high=0.9,per_unit=true`. `invert`: the paper's "opposite approach" as we
    understand it, because the paper's sentence repeats the normal mask. The paper places the method after the
    penultimate group (`focuseddropout@3` here); the default sites are our reading, the same for all methods.
    `drops=false` drops nothing, but still magnifies the weight decay (table 4, "MWD").

    `participation`: one draw per optimizer step, shared by all sites, and by support and query. `begin_step`
    takes it from its generator, which the backbone hands to all sites in the same state. The outcome is kept
    twice: in the buffer `participates`, which `forward` reads without a branch, and in the Python number
    `weight_decay_scale`, which the loop reads without waiting for the device. On the steps that participate, and
    on no others, the optimizer's weight decay is `weight_decay_scale` times as large (5e-4 -> 1e-3: the paper
    names 1e-3 as best). Outside our loop, where `begin_step` is not called, every pass participates.

    Expected drop fraction: no formula. It is the share of the reference map below gamma * max,
    times `participation` over training (for values uniform on 0..max: (low + high) / 2 * participation,
    .045). Images without a focus count as not dropped; `unfocused` is their fraction in the last pass.
    """

    idle_beside = dict.fromkeys(("low", "high", "invert", "per_unit"), ("drops", False))
    participates: Tensor
    unfocused: Tensor

    def __init__(
        self,
        site: Site,
        *,
        low: float = 0.3,
        high: float = 0.6,
        participation: float = 0.1,
        weight_decay_scale: float = 2.0,
        invert: bool = False,
        per_unit: bool = False,
        drops: bool = True,
    ) -> None:
        super().__init__(site)
        self.check_rate(low=low, high=high, participation=participation)
        if low > high:
            raise UserError(f"focuseddropout:low={low} is above high={high}")
        if not 1 <= weight_decay_scale < float("inf"):
            raise UserError(f"focuseddropout:weight_decay_scale={weight_decay_scale} is no number of 1 or more")
        self.low, self.high, self.participation = low, high, participation
        self.invert, self.per_unit, self.drops = invert, per_unit, drops
        self.magnified = weight_decay_scale
        self.active = participation > 0 and drops
        self.weight_decay_scale = weight_decay_scale if participation > 0 else 1.0
        self.register_buffer("participates", torch.tensor(participation > 0))
        self.register_buffer("unfocused", torch.zeros(()), persistent=False)

    def begin_step(self, progress: float, generator: torch.Generator | None = None) -> None:
        """Decide whether this step participates."""
        super().begin_step(progress, generator)
        participates = torch.rand((), generator=generator).item() < self.participation
        self.participates.fill_(participates)
        self.weight_decay_scale = self.magnified if participates else 1.0

    def multiplier(self, x: Tensor, guide=None) -> Tensor:
        """(N, 1, H, W) multiplier: 0 or 1."""
        drawn = (len(x), 1, *x.shape[2:]) if self.per_unit else (len(x), 1, 1, 1)
        share = self.low + (self.high - self.low) * torch.rand(drawn, device=x.device)
        reference = reference_map(x)
        self.unfocused.copy_((reference.amax((1, 2, 3)) <= 0).float().mean())
        return torch.where(self.participates, focuseddropout_mask(reference, share, self.invert), 1)

    def extra_repr(self) -> str:
        rates = f"low={self.low}, high={self.high}, participation={self.participation}"
        silent = "" if self.drops else ", drops=False"
        return f"{rates}, weight_decay_scale={self.magnified}, invert={self.invert}, per_unit={self.per_unit}{silent}"
