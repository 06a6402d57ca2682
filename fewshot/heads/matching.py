"""Matching Networks (Vinyals et al., NeurIPS 2016): attention over the support images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewshot.core.typed import positive
from fewshot.heads._base import Head, Products
from fewshot.heads._cosine import inverse_norms, support_norms


class Matching(Head):
    """The probability of a class is the attention that its support images get; the logit is the log-probability.

    The attention of query q on support image x_i is the softmax over i of scale * cos(q, x_i) (eq. 1 and section
    2.1.1). The softmax of the logits is the paper's class probability, so cross-entropy is the paper's loss.

    `scale` > 0 sharpens the attention. The paper has no scale, which is `scale=1`, the default. As cosines are at most
    1, no class then gets a probability near 1, and the loss stays far from zero. Later code multiplies by a constant
    (100 in that of Chen et al., "A Closer Look at Few-shot Classification", ICLR 2019). `learn_scale=true` makes it a
    parameter that starts at `scale`.

    The paper's full context embeddings, two LSTMs over the support set, are not included.
    """

    by_products = True

    def __init__(self, *, scale: float = 1.0, learn_scale: bool = False) -> None:
        super().__init__()
        start = torch.tensor(float(positive(scale, "matching:scale")))
        self.learn_scale = learn_scale
        self.scale: Tensor | float = nn.Parameter(start) if learn_scale else scale

    def solve_products(self, products: Products, targets: Tensor) -> Tensor:
        """See Head.solve_products: log-probabilities."""
        cosines = products.query * inverse_norms(products.norms)[..., None] * support_norms(products.support)[:, None]
        attention = (self.scale * cosines).log_softmax(2)  # (T, Q, N): its logarithm
        # targets.log() is 0 for the images of a class, and -inf for others.
        return (attention[:, :, None] + targets.mT.log()[:, None]).logsumexp(3)

    def extra_repr(self) -> str:
        return f"scale={float(self.scale):g}, learn_scale={self.learn_scale}"
