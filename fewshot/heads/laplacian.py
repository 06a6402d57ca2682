"""LaplacianShot: queries that are near each other get the same class (Ziko et al., ICML 2020). Transductive."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fewshot.core.errors import UserError
from fewshot.heads._base import Head, Products
from fewshot.heads._joint import joint_gram, squared_distances_to, squared_norms, support_means, unit_gram

_SHARPNESS = 10  # of the rectification's softmax over cosines, as in the published code
_TIE = 1e-6  # numbers near 1 in float32 that differ by less count as equal


class Laplacian(Head):
    """Soft assignments y of queries to classes: to those with near prototypes m, and alike for neighbouring queries.

    Embeddings x are divided by their length (after `--transform center`, that is the paper's CL2N). With
    a_qc = ||x_q - m_c||^2 and w_qp = 1 if query p is among the nearest to q, else 0, it lowers

        sum_q sum_c y_qc log y_qc + y_qc a_qc  -  lam / 2 sum_qp w_qp y_q y_p                            (eq. 5)

    by bound updates (eq. 9). It starts from y_q = softmax(-a_q); each of the `steps` updates all queries at once:

        y_q = softmax(-a_q + lam sum_p w_qp y_p)

    Each update lowers it if w is symmetric and has no negative eigenvalue. The neighbours of the published code meet
    neither condition, so a late update may raise it a little.

    The logits are the exponents of the last update. `neighbours` counts the query itself, as the published code's knn
    does: the default 3 means the two nearest others. The defaults are that code's, knn 3 and 20 iterations (it does
    fewer if it sees no change); for lam the default is the 0.7 of Veilleux et al. (2021), tuned on mini-ImageNet at 1
    shot.

    `rectify` (on by default) is its prototype rectification. First, queries are shifted by mean(support) -
    mean(queries). Then m_c is the mean of s_xc x over the images x, support and queries, that are most like class c:
    the cosine of x to the support's class mean is largest for c. s_x is the softmax of 10 times these cosines. A class
    without such an image keeps its class mean; the published code fails there. With rectify=false, m_c is the class
    mean.

    Neighbours are found from inner products. Images that are equally near, to float32's precision, all count as
    neighbours. Not trainable: it is a method for features that were trained without it.
    """

    by_products = transductive = True
    trainable = False

    def __init__(self, *, lam: float = 0.7, neighbours: int = 3, steps: int = 20, rectify: bool = True) -> None:
        super().__init__()
        if not 0 <= lam < math.inf:
            raise UserError(f"laplacian:lam={lam}: give 0 or more")
        if neighbours < 1:
            raise UserError(f"laplacian:neighbours={neighbours}: give at least 1, the query itself")
        if steps < 0:
            raise UserError(f"laplacian:steps={steps}: give 0 or more")
        self.lam, self.neighbours, self.steps, self.rectify = lam, neighbours, steps, rectify

    def solve(self, support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        """See Head.solve."""
        return self.solve_products(Products.of(support, query), targets)

    def solve_products(self, products: Products, targets: Tensor) -> Tensor:
        """See Head.solve_products."""
        images, queries = targets.shape[1], products.norms.shape[1]
        gram, means = unit_gram(joint_gram(products)), support_means(targets, queries)
        if self.rectify:
            gram = _shifted(gram, images)
            means = _rectified(gram, means)
        unary = squared_distances_to(gram, means)[..., images:]  # (T, W, Q)
        affinity = self.lam * nearest(gram[:, images:, images:], self.neighbours)
        return bound_updates(unary, affinity, self.steps).mT

    def extra_repr(self) -> str:
        return f"lam={self.lam:g}, neighbours={self.neighbours}, steps={self.steps}, rectify={self.rectify}"


def bound_updates(unary: Tensor, affinity: Tensor, steps: int) -> Tensor:
    """Logits (T, W, Q) after `steps` updates, from a (T, W, Q) and lam * w (T, Q, Q)."""
    logits = -unary
    for _ in range(steps):
        logits = logits.softmax(1) @ affinity.mT - unary
    return logits


def nearest(gram: Tensor, neighbours: int) -> Tensor:
    """(T, Q, Q): 1 where image p is among the `neighbours` nearest to q, which include q itself; 0 for q itself.

    `gram`: inner products (T, Q, Q) of these images.
    """
    squares = gram.diagonal(dim1=1, dim2=2)
    distances = squares[:, :, None] - 2 * gram + squares[:, None]
    itself = torch.eye(gram.shape[1], device=gram.device, dtype=torch.bool)
    others = distances.masked_fill(itself, math.inf)
    count = min(neighbours, gram.shape[1]) - 1
    if count == 0:
        return torch.zeros_like(gram)
    furthest = others.topk(count, dim=2, largest=False, sorted=True).values[..., -1:]
    return (others <= furthest + _TIE).to(gram.dtype)


def _shifted(gram: Tensor, images: int) -> Tensor:
    """Inner products (T, M, M) after the queries are shifted by mean(support) - mean(queries)."""
    both = gram.shape[1]
    move = gram.new_zeros(both, both)  # row by row, what an image becomes as a weighted sum of all
    move[images:, :images], move[images:, images:] = 1 / images, -1 / (both - images)
    move += torch.eye(both, device=gram.device, dtype=gram.dtype)
    return move @ gram @ move.T


def _rectified(gram: Tensor, means: Tensor) -> Tensor:
    """Weights (T, W, M) of the rectified prototypes, from those of the support's class means."""
    lengths = gram.diagonal(dim1=1, dim2=2).clamp_min(torch.finfo(gram.dtype).tiny).sqrt()
    products = means @ gram
    norms = squared_norms(products, means).clamp_min(torch.finfo(gram.dtype).tiny).sqrt()
    cosines = products / (lengths[:, None] * norms[..., None])  # (T, W, M)
    likest = (cosines >= cosines.amax(1, keepdim=True) - _TIE).to(gram.dtype)
    chosen = (_SHARPNESS * cosines).softmax(1) * likest
    counts = likest.sum(2, keepdim=True)
    return torch.where(counts > 0, chosen / counts.clamp_min(1), means)
