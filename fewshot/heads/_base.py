"""The base class of all heads, and the few lines that several of them share.

Shapes: T tasks solved at once, N support and Q query images per task, W ways (classes), D features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.core.errors import UserError


@dataclass(frozen=True)
class Products:
    """Inner products of T tasks' embeddings, float32 or float64: all that a head with `by_products` needs."""

    support: Tensor
    """(T, N, N): of every pair of support images."""
    query: Tensor
    """(T, Q, N): of each query image with each support image."""
    norms: Tensor
    """(T, Q): of each query image with itself."""
    features: int
    """D, the length of an embedding."""
    queries: Tensor | None = None
    """(T, Q, Q): of every pair of query images. Only transductive heads are sure to get them."""

    @classmethod
    def of(cls, support: Tensor, query: Tensor) -> Products:
        """From support (T, N, D) and query (T, Q, D)."""
        queries = query @ query.mT
        return cls(support @ support.mT, query @ support.mT, query.square().sum(2), support.shape[2], queries)


class Head(nn.Module):
    """Solves T tasks at once. A subclass implements `solve`, and declares what it needs and allows.

    Declarations are class attributes. Training and evaluation enforce them, and `fewshot.testing.check_head` tests
    whether they are true. A class that declares something without the method for it is refused when it is defined.
    """

    by_products: bool = False
    """It needs inner products only, and implements `solve_products`. Evaluation then looks up products and gathers no
    embeddings. Such a head solves in the precision of its inputs, float32 or float64."""
    shift_invariant: bool = False
    """Adding one vector to all embeddings of a task changes no logit. Evaluation then subtracts the split's mean before
    it takes inner products, because small numbers lose fewer digits to rounding than large ones."""
    trainable: bool = True
    """A network can be trained on episodes with it: the gradient of the logits reaches the embeddings and the head's
    own parameters."""
    needs_base: bool = False
    """It uses the base classes' embeddings, and implements `fit_base`, which is called once before an evaluation.
    Training episodes offer no such embeddings, so no network can be trained on them with such a head. Supervised
    training, which uses a head only in validation, can select weights by it."""
    transductive: bool = False
    """The logits of a query depend on the other queries of its task. Evaluation then shuffles each task's queries, and
    marks the result. A user's head that is transductive and does not declare it is refused: see `_probe.py`."""
    numbered: bool = False
    """The number that a class has in its task matters, because the head has learned something for each number."""
    first_order: bool = False
    """The gradient of the logits does not reach the support embeddings: it does not pass through the solution. An
    option may set this for an instance."""
    needs_map: bool = False
    """It works on maps: each embedding is a flattened map (C, H, W), whose shape is given to `begin`."""
    needs_training: bool = False
    """Its parameters mean nothing before they are learned. Evaluation then accepts it only with the parameters of a run
    that was trained with it. An option may set this for an instance."""

    made_for: int | None = None
    """Set by `heads.begin`: D, the length of the embeddings that it was made for."""

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        for declared, method in (("by_products", "solve_products"), ("needs_base", "fit_base")):
            if getattr(cls, declared) and getattr(cls, method) is getattr(Head, method):
                raise UserError(f"head {cls.__name__} declares {declared}: implement {method}, or leave it out")
        if cls.needs_training and not (cls.trainable and not cls.needs_base):
            other = "needs_base, which no training has" if cls.trainable else "trainable = False"
            raise UserError(f"head {cls.__name__} declares needs_training, and {other}: take one of them back")

    def begin(self, features: int, shape: tuple[int, int, int] | None) -> None:
        """Make the parameters that depend on the form of the embeddings. Called once, before weights are loaded.

        features: D, the length of an embedding.
        shape: (C, H, W) if an embedding is a map of that shape, flattened; None if it is not, or is not known to be.

        The head has torch's own random numbers to itself here: they depend on the training's seed alone. Most heads
        have nothing to do.
        """

    @property
    def setting(self) -> Literal["inductive", "transductive"]:
        """How queries are solved, as results state it: each by itself, or all of a task together."""
        return "transductive" if self.transductive else "inductive"

    def forward(self, support: Tensor, labels: Tensor, query: Tensor, ways: int | None = None) -> Tensor:
        """Logits (T, Q, W) from support (T, N, D), labels (T, N) in 0..W-1 and query (T, Q, D).

        They are float32, or float64 if the embeddings are. Give `ways` (W) if it is known: otherwise the caller waits
        for the GPU to find the largest label.
        """
        ways = int(labels.max()) + 1 if ways is None else ways
        dtype = torch.promote_types(support.dtype, torch.float32)
        # Gram matrices of thousands of products lose their digits in bf16.
        with torch.autocast(support.device.type, enabled=False):
            return self.solve(support.to(dtype), F.one_hot(labels, ways).to(dtype), query.to(dtype))

    def solve(self, support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        """support (T, N, D), one-hot targets (T, N, W), query (T, Q, D) -> logits (T, Q, W).

        Evaluation calls it under `torch.no_grad()`; a head that needs gradients inside takes them under
        `torch.enable_grad()`. A head with `solve_products` may leave `solve` out: it then solves from the products.
        """
        return self.solve_products(Products.of(support, query), targets)

    def solve_products(self, products: Products, targets: Tensor) -> Tensor:
        """The logits (T, Q, W) of `solve` from inner products and one-hot targets (T, N, W): see `by_products`."""
        raise NotImplementedError

    def split(self) -> tuple[Callable[[Tensor], Tensor], Head] | None:
        """The function applied to each embedding by itself, and the head that solves the results; None if it has none.

        Evaluation then applies the function once to each image, and not once for each task that the image is in.
        """
        return None

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What episodic training minimises: one number from logits (T, Q, W) and the queries' classes (T, Q)."""
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten())

    def check_ways(self, ways: int) -> None:
        """Raise UserError if it cannot tell so many classes apart. Called before training and evaluation."""

    def fit_base(self, features: Tensor, labels: Tensor) -> None:
        """Learn from the base classes' features (N, D), in any order, and labels (N,) int64: see `needs_base`.

        The next call replaces what this one learned.
        """
        raise NotImplementedError

    @torch.no_grad()
    def class_weights(self, support: Tensor, labels: Tensor, ways: int | None = None) -> Tensor:
        """The linear classifier behind the logits: (T, W, D) float32 for support (T, N, D) and labels (T, N).

        One weight vector per class: they guide CamDrop, and class activation maps are drawn with them.
        """
        ways = int(labels.max()) + 1 if ways is None else ways
        with torch.autocast(support.device.type, enabled=False):
            return self.fit(support.float(), F.one_hot(labels, ways).float())

    def fit(self, support: Tensor, targets: Tensor) -> Tensor:
        """support (T, N, D), one-hot targets (T, N, W) -> class weights (T, W, D), up to a positive factor.

        Raises UserError if the head has not implemented it.
        """
        raise self.no_weights

    @property
    def no_weights(self) -> UserError:
        """The error for a head without class weights, when they are needed."""
        name = type(self).__name__
        return UserError(f"head {name} has no method `fit`, which camdrop and show cam need; add it, or take proto")


def check_length(head: Head, given: int) -> None:
    """Raise UserError unless the head was made for embeddings of the length D that is `given`."""
    if head.made_for != given:
        name = type(head).__name__
        if head.made_for is None:
            raise UserError(f"head {name} must know the form of embeddings first: heads.build(spec, features, shape)")
        raise UserError(f"head {name} was made for embeddings of {head.made_for} features, and these have {given}")


def mean_weights(targets: Tensor) -> Tensor:
    """(T, W, N): the support images' weights in class means, 1 / n in a class of n, for one-hot targets (T, N, W)."""
    return targets.mT / targets.sum(1)[..., None]


def prototypes(support: Tensor, targets: Tensor) -> Tensor:
    """Class means (T, W, D) of support (T, N, D) for one-hot targets (T, N, W)."""
    return targets.mT @ support / targets.sum(1)[..., None]


def squared_distances(query: Tensor, centres: Tensor) -> Tensor:
    """||q - c||^2 (T, Q, W) for query (T, Q, D) and centres (T, W, D), as |q|^2 - 2qc + |c|^2."""
    products = query @ centres.mT
    return query.square().sum(2, keepdim=True) - 2 * products + centres.square().sum(2)[:, None]
