"""SimpleShot (Wang, Chao, Weinberger & van der Maaten, 2019): the nearest class mean of transformed embeddings."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from fewshot import transforms
from fewshot.heads._base import Head
from fewshot.heads.proto import Proto
from fewshot.transforms import Transform

_TRANSFORMS = {"un": "none", "l2n": "l2", "cl2n": "center+l2"}


class SimpleShot(Head):
    """The logit of a class is -||f(q) - c||^2, where c is the mean of f of the class's support embeddings.

    `norm` chooses f: "un" changes nothing; "l2n" scales to length 1; "cl2n" (default) subtracts the base classes' mean,
    then scales to length 1. The last one is the paper's best. The paper trains a network as a classifier, and this head
    evaluates it.

    It is the same as `--transform T --head proto:variant=snell` with T = none, l2 and center+l2.
    """

    def __init__(self, *, norm: Literal["un", "l2n", "cl2n"] = "cl2n") -> None:
        super().__init__()
        self.norm = norm
        self.map = transforms.build(_TRANSFORMS[norm])
        self.nearest = Proto(variant="snell")
        self.needs_base = self.map.fitted
        self.shift_invariant = norm == "un"

    def fit_base(self, features: Tensor, labels: Tensor) -> None:
        """See Head.fit_base."""
        self.map.fit(features, labels)

    def solve(self, support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        """See Head.solve."""
        return self.nearest.solve(self.map(support), targets, self.map(query))

    def split(self) -> tuple[Transform, Head]:
        """See Head.split."""
        return self.map, self.nearest

    def extra_repr(self) -> str:
        return f"norm={self.norm}"
