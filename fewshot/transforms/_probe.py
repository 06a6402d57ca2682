"""Does a user's transform look at other images than the one that it transforms?"""

from __future__ import annotations

import torch

from fewshot.core.alone import others_matter
from fewshot.core.errors import UserError
from fewshot.transforms._base import Transform

_FEATURES, _IMAGES, _CLASSES = 64, 40, 8


def check_alone(transform: Transform, name: str) -> None:
    """UserError where a transform, which is thrown away afterwards, makes something else of an image beside others.

    Images come class by class: one that looks at its neighbours would read classes off places. It is tried on random
    embeddings (N, 64), and on two batches of them; where it cannot transform these, nothing is said.
    """
    draw = torch.Generator().manual_seed(0)
    base, images = torch.randn(2, _IMAGES, _FEATURES, generator=draw)
    transform.eval()
    if transform.fitted:
        try:
            transform.fit(base, torch.arange(_IMAGES) % _CLASSES)
        except Exception:  # noise is no base for it
            return
    both = torch.stack([base, images])
    alone = (lambda z: transform(z[0])[None], images[None]), (transform, both)
    if any(others_matter(answer, items, halve=True) for answer, items in alone):
        raise UserError(
            f"transform {name}: what it makes of an image depends on the other images beside it: let it transform each"
            " by itself (what is to be learned of many, learn of the base classes: fitted = True)"
        )
