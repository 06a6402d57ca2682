"""What every head is, and the few lines that several of them share.

Shapes: T tasks solved at once, N support and Q query images a task, W ways (classes), D features.
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
    """Inner products of T tasks' embeddings: all that a head with `by_products` needs, however long embeddings are."""

    support: Tensor
    """(T, N, N) float32: of each support image with each."""
    query: Tensor
    """(T, Q, N) float32: of each query image with each support image."""
    norms: Tensor
    """(T, Q) float32: of each query image with itself."""
    features: int
    """D, the length of an embedding."""
    queries: Tensor | None = None
    """(T, Q, Q) float32: of each query image with each. Only transductive heads are sure to get them."""

    @classmethod
    def of(cls, support: Tensor, query: Tensor) -> Products:
        """From support (T, N, D) and query (T, Q, D)."""
        queries = query @ query.mT
        return cls(support @ support.mT, query @ support.mT, query.square().sum(2), support.shape[2], queries)


class Head(nn.Module):
    """Solves T tasks at once. A subclass implements `solve`, and declares what it needs and allows.

    Declarations are class attributes. Training and evaluation enforce them, and `fewshot.testing.check_head` tests
    whether they are true. A class that declares something without the method for it is refused where it is defined.
    """

    by_products: bool = False
    """Inner products are all that it needs: it implements `solve_products`, too. Evaluation then looks products up and
    gathers no embeddings. Such a head solves in the precision of what it is given, float32 or float64."""
    shift_invariant: bool = False
    """Adding one vector to all embeddings of a task changes no logit. Evaluation then takes inner products after it has
    subtracted the split's mean, because small numbers lose fewer digits to rounding than large ones."""
    trainable: bool = True
    """A network can be trained on episodes with it: the gradient of the logits reaches the embeddings and the head's
    own parameters."""
    needs_base: bool = False
    """It uses the base classes' embeddings: it implements `fit_base`, called once before an evaluation. Training
    episodes have nothing to call it with: no network is trained on them with such a head. Supervised training, which
    uses a head in validation only, selects weights by it."""
    transductive: bool = False
    """The logits of a query depend on the other queries of its task. Evaluation then shuffles each task's queries, and
    marks the result. A user's head of which it is true, and which does not say so, is refused: see `_probe.py`."""
    numbered: bool = False
    """Which number a class has in its task makes a difference, because it has learned something for each number."""
    first_order: bool = False
    """The gradient of the logits does not reach the support embeddings: it leaves out the way through the solution. An
    option may say so of an object."""
    needs_map: bool = False
    """It works on maps: each embedding is a map (C, H, W), flattened, whose shape `begin` is told."""
    needs_training: bool = False
    """Its parameters mean nothing before they are learned. Evaluation then takes it only with trained ones, those of a
    run that was trained with it. A head may set it by its options."""

    made_for: int | None = None
    """Set by `heads.begin`: D, the length of the embeddings that it was made for."""

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        for declared, method in (("by_products", "solve_products"), ("needs_base", "fit_base")):
            if getattr(cls, declared) and getattr(cls, method) is getattr(Head, method):
                raise UserError(f"head {cls.__name__} declares {declared}: implement {method}, or leave it out")
        if cls.needs_training and not (cls.trainable and not cls.needs_base):
            raise UserError(f"head {cls.__name__} declares needs_training, and says that it cannot be trained with")

    def begin(self, features: int, shape: tuple[int, int, int] | None) -> None:
        """Make the parameters that depend on the form of embeddings: called once, before weights are loaded.

        features: D, the length of an embedding.
        shape: (C, H, W) where an embedding is a map of that shape, flattened; None where it is not, or is not known.

        torch's own random numbers are the head's own here: they depend on the training's seed alone. Most heads have
        nothing to do.
        """

    @property
    def setting(self) -> Literal["inductive", "transductive"]:
        """What results say of how queries were solved: each by itself, or all of a task together."""
        return "transductive" if self.transductive else "inductive"

    def forward(self, support: Tensor, labels: Tensor, query: Tensor, ways: int | None = None) -> Tensor:
        """Logits (T, Q, W) from support (T, N, D), labels (T, N) in 0..W-1 and query (T, Q, D).

        They are float32, or float64 if the embeddings are. Give `ways` (W) where it is known: finding the largest
        label makes a GPU's caller wait.
        """
        ways = int(labels.max()) + 1 if ways is None else ways
        dtype = torch.promote_types(support.dtype, torch.float32)
        # Gram matrices of thousands of products lose their digits in bf16.
        with torch.autocast(support.device.type, enabled=False):
            return self.solve(support.to(dtype), F.one_hot(labels, ways).to(dtype), query.to(dtype))

    def solve(self, support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        """support (T, N, D), one-hot targets (T, N, W), query (T, Q, D) -> logits (T, Q, W).

        Evaluation calls it under `torch.no_grad()`; a head that takes gradients inside does so under
        `torch.enable_grad()`. A head with `solve_products` may leave it out: then it solves by the products.
        """
        return self.solve_products(Products.of(support, query), targets)

    def solve_products(self, products: Products, targets: Tensor) -> Tensor:
        """The logits (T, Q, W) of `solve` from inner products and one-hot targets (T, N, W): see `by_products`."""
        raise NotImplementedError

    def split(self) -> tuple[Callable[[Tensor], Tensor], Head] | None:
        """What it does to each embedding by itself, and the head that solves what comes of it; None: nothing.

        Evaluation then does the first once for all images, in place of once for each task that they are in.
        """
        return None

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What episodic training minimises: one number from logits (T, Q, W) and the queries' classes (T, Q)."""
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten())

    def check_ways(self, ways: int) -> None:
        """UserError where it cannot tell so many classes apart. Called before training and evaluation."""

    def fit_base(self, features: Tensor, labels: Tensor) -> None:
        """Learn from the base classes' features (N, D), in some order, and labels (N,) int64: see `needs_base`.

        The next call replaces what this one learned.
        """
        raise NotImplementedError

    @torch.no_grad()
    def class_weights(self, support: Tensor, labels: Tensor, ways: int | None = None) -> Tensor:
        """The linear classifier behind the logits: (T, W, D) float32 for support (T, N, D) and labels (T, N).

        One weight vector a class: CamDrop is guided by them, and class activation maps are drawn with them.
        """
        ways = int(labels.max()) + 1 if ways is None else ways
        with torch.autocast(support.device.type, enabled=False):
            return self.fit(support.float(), F.one_hot(labels, ways).float())

    def fit(self, support: Tensor, targets: Tensor) -> Tensor:
        """support (T, N, D), one-hot targets (T, N, W) -> class weights (T, W, D), up to a positive factor.

        UserError from a head that has not implemented it.
        """
        raise self.no_weights

    @property
    def no_weights(self) -> UserError:
        """What is said where class weights are needed of a head without them."""
        name = type(self).__name__
        return UserError(f"head {name} has no method `fit`, which camdrop and show cam need; add it, or take proto")


def check_length(head: Head, given: int) -> None:
    """UserError where embeddings have another length D than those that the head was made for, or it was for none."""
    if head.made_for != given:
        name = type(head).__name__
        if head.made_for is None:
            raise UserError(f"head {name} must know the form of embeddings first: heads.build(spec, features, shape)")
        raise UserError(f"head {name} was made for embeddings of {head.made_for} features, and these have {given}")


def mean_weights(targets: Tensor) -> Tensor:
    """(T, W, N): class means as sums of support images, 1 / n for each of its n, under one-hot targets (T, N, W)."""
    return targets.mT / targets.sum(1)[..., None]


def prototypes(support: Tensor, targets: Tensor) -> Tensor:
    """Class means (T, W, D) of support (T, N, D) under one-hot targets (T, N, W)."""
    return targets.mT @ support / targets.sum(1)[..., None]


def squared_distances(query: Tensor, centres: Tensor) -> Tensor:
    """||q - c||^2 (T, Q, W) for query (T, Q, D) and centres (T, W, D), as |q|^2 - 2qc + |c|^2."""
    products = query @ centres.mT
    return query.square().sum(2, keepdim=True) - 2 * products + centres.square().sum(2)[:, None]
