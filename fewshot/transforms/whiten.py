"""Whitening on the base classes: features become uncorrelated and of equal variance there.

ZCA whitening (Kessy, Lewin & Strimmer, Optimal Whitening and Decorrelation, The American Statistician 2018), with the
covariance shrunk towards a multiple of the identity (Ledoit & Wolf, Journal of Multivariate Analysis 2004).
"""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.core.errors import UserError
from fewshot.transforms._base import Transform, check_fitted

_BLOCK = 4096  # base images at a time, in float64
_MOST_FEATURES = 8192  # their covariance takes 512 MiB, and its eigenvectors minutes


class Whiten(Transform):
    """S^(-1/2) (z - mean), where S = (1 - eps) C + eps tr(C) / D I, with `eps` above 0 and at most 1.

    C is the covariance of all base images around their mean, whatever their classes, with divisor N - 1. Without
    shrinkage, directions in which the base images hardly differ would be blown up to the length of all others. `eps=1`
    centres and multiplies by one number.
    """

    fitted = True

    def __init__(self, *, eps: float = 0.01) -> None:
        super().__init__()
        if not 0 < eps <= 1:
            raise UserError(f"whiten:eps={eps} is not above 0 and at most 1")
        self.eps = eps
        self.register_buffer("mean", None, persistent=False)
        self.register_buffer("matrix", None, persistent=False)

    def learn(self, base: Tensor, labels: Tensor | None) -> None:
        """See Transform.learn: the mean (D,) and S^(-1/2) (D, D), in float64. Raises UserError if D is too large."""
        images, features = base.shape
        if features > _MOST_FEATURES:
            raise UserError(
                f"transform whiten: embeddings of {features} features are too long for a covariance (at most"
                f" {_MOST_FEATURES}): take center+l2"
            )
        mean = base.mean(0, dtype=torch.float64)
        scatter = base.new_zeros(features, features, dtype=torch.float64)
        for part in base.split(_BLOCK):
            centred = part - mean
            scatter += centred.mT @ centred
        covariance = scatter / (images - 1)
        level = covariance.trace() / features  # the mean variance of a feature
        if not level > 0:
            raise UserError("transform whiten: the base images' embeddings are all alike; is the network trained?")
        values, vectors = torch.linalg.eigh((1 - self.eps) * covariance)
        values = values.clamp_min(0) + self.eps * level  # rounding leaves eigenvalues of 0 slightly negative
        self.mean, self.matrix = mean, (vectors * values.rsqrt()) @ vectors.mT

    def forward(self, z: Tensor) -> Tensor:
        """See Transform.forward."""
        matrix = check_fitted(self, self.matrix, z)
        return (z - self.mean.to(z.dtype)) @ matrix

    def extra_repr(self) -> str:
        return f"eps={self.eps}"
