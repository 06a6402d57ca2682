"""What every transform is.

Shapes: N images, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from torch import Tensor, nn

from fewshot.core.errors import UserError


class Transform(nn.Module):
    """Maps embeddings (N, D) to embeddings (N, D'), each image by itself; subclasses implement `forward`.

    A transform with `fitted` also implements `learn`. It is fitted once, on the base classes (the training split),
    before it is applied to all images of an evaluation. One without `fitted` can also be used in training.
    """

    fitted: bool = False
    """Whether it must be fitted on the base classes before it is applied."""

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        if cls.fitted and cls.learn is Transform.learn:
            raise UserError(f"transform {cls.__name__} declares fitted: implement learn, or leave it out")

    @property
    def label(self) -> str:
        """Its name in error messages."""
        return type(self).__name__

    def forward(self, z: Tensor) -> Tensor:
        """Embeddings (N, D), in float32 or float64 -> transformed embeddings (N, D') of the same type and device.

        Dimensions before these two are allowed, too.
        """
        raise NotImplementedError

    def fit(self, base: Tensor, labels: Tensor | None = None) -> Transform:
        """Fit on embeddings (N, D) of the base classes and, for those that use them, their class numbers (N,) int64.

        A second call replaces the first. Returns itself. Raises UserError for fewer than two images.
        """
        if self.fitted:
            if base.ndim != 2 or len(base) < 2:
                raise UserError(
                    f"transform {self.label} needs base features (N, D) of two images or more, not of shape"
                    f" {tuple(base.shape)}"
                )
            self.learn(base, labels)
        return self

    def learn(self, base: Tensor, labels: Tensor | None) -> None:
        """`fit` of a transform with `fitted`: keeps what `forward` needs, as buffers on the device of `base`."""
        raise NotImplementedError


class Chain(Transform):
    """Transforms one after the other; each is fitted on what those before it make of the base classes."""

    def __init__(self, parts: Sequence[Transform]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.fitted = any(part.fitted for part in parts)

    @property
    def label(self) -> str:
        """The names of those that must be fitted."""
        return "+".join(part.label for part in self if part.fitted)

    def __iter__(self) -> Iterator[Transform]:
        return (cast(Transform, part) for part in self.parts)

    def forward(self, z: Tensor) -> Tensor:
        """See Transform.forward."""
        for part in self:
            z = part(z)
        return z

    def fit(self, base: Tensor, labels: Tensor | None = None) -> Chain:
        """See Transform.fit."""
        last = max((i for i, part in enumerate(self) if part.fitted), default=-1)
        for i, part in enumerate(self):
            if i <= last:
                part.fit(base, labels)
            if i < last:
                base = part(base)
        return self


def check_fitted(transform: Transform, learned: Tensor | None, z: Tensor) -> Tensor:
    """What a transform learned, in the type of z. UserError if it is not fitted, or was fitted on other lengths."""
    if learned is None:
        raise UserError(f"transform {transform.label} is not fitted: call fit with features of the base classes first")
    if learned.shape[-1] != z.shape[-1]:
        raise UserError(
            f"transform {transform.label} was fitted on embeddings of {learned.shape[-1]} features, and these have"
            f" {z.shape[-1]}"
        )
    return learned.to(z.dtype)
