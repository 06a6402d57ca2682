"""Signed power: makes the skewed distribution of features after a ReLU more like a normal one.

For non-negative features, x^beta is the "power transform" of Hu, Gripon & Pateux (Leveraging the Feature Distribution
in Transfer-based Few-Shot Learning, ICANN 2021), which they follow by l2: `power:beta=0.5+l2`. Negative features keep
their sign, as in the signed square root of Perronnin, Sanchez & Mensink (ECCV 2010).
"""

from __future__ import annotations

import math

from torch import Tensor

from fewshot.core.errors import UserError
from fewshot.transforms._base import Transform

_EPS = 1e-6  # Hu et al.'s


class Power(Transform):
    """sign(x) |x|^beta of each feature x, with `beta` > 0.

    It is computed as x (|x| + 1e-6)^(beta - 1). This differs from the power by less than 0.1 % if |x| > 0.001 and
    beta is 0.5. It is 0 at 0, and its gradient there is finite. Hu et al. take (x + 1e-6)^beta, which is 0.001 at 0.
    """

    def __init__(self, *, beta: float = 0.5) -> None:
        super().__init__()
        if not 0 < beta < math.inf:
            raise UserError(f"power:beta={beta} is not a positive number")
        self.beta = beta

    def forward(self, z: Tensor) -> Tensor:
        """See Transform.forward."""
        return z * (z.abs() + _EPS) ** (self.beta - 1)

    def extra_repr(self) -> str:
        return f"beta={self.beta}"
