"""What transductive heads share: all images of a task at once, and points that are weighted sums of them.

Shapes: T tasks, N support and Q query images, M = N + Q of both, support first; W ways. A point is given by its
weights (T, W, M), so only inner products of the embeddings are needed, however long they are. Classes come before
images in every tensor: on a CPU, softmax over five neighbouring numbers is twenty times slower.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.heads._base import Products, mean_weights


def joint_gram(products: Products) -> Tensor:
    """(T, M, M): the inner product of every pair of a task's images."""
    assert products.queries is not None, "a transductive head needs the queries' products with each other"
    support = torch.cat([products.support, products.query.mT], 2)
    return torch.cat([support, torch.cat([products.query, products.queries], 2)], 1)


def unit_gram(gram: Tensor) -> Tensor:
    """The same for embeddings divided by their lengths. An embedding of zeros stays zero."""
    lengths = gram.diagonal(dim1=1, dim2=2).clamp_min(torch.finfo(gram.dtype).tiny).sqrt()
    return gram / (lengths[:, :, None] * lengths[:, None])


def support_means(targets: Tensor, queries: int) -> Tensor:
    """Weights (T, W, M) of the class means of the support, for one-hot targets (T, N, W)."""
    return F.pad(mean_weights(targets), (0, queries))


def squared_norms(products: Tensor, weights: Tensor) -> Tensor:
    """||p||^2 (T, W) of points with weights (T, W, M), from `weights @ gram`."""
    return (products * weights).sum(2)


def squared_distances_to(gram: Tensor, weights: Tensor) -> Tensor:
    """||x - p||^2 (T, W, M) of each image x to points p with these weights (T, W, M)."""
    products = weights @ gram
    own = gram.diagonal(dim1=1, dim2=2)[:, None]
    return own - 2 * products + squared_norms(products, weights)[..., None]
