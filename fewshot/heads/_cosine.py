"""Cosines from inner products, for the heads that compare by angle."""

from __future__ import annotations

from torch import Tensor

_LEAST = 1e-24  # squared norm; a shorter embedding counts as having no direction: its cosines are 0, or nearly so


def inverse_norms(squares: Tensor) -> Tensor:
    """1 / ||x|| from ||x||^2, in the same shape; finite, with gradient 0, where x is zero."""
    return squares.clamp_min(_LEAST).rsqrt()


def support_norms(gram: Tensor) -> Tensor:
    """1 / ||x|| (T, N) of support images from their products (T, N, N)."""
    return inverse_norms(gram.diagonal(dim1=1, dim2=2))
