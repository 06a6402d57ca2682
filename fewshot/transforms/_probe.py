"""Does a user's transform look at other images than the one that it transforms?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fewshot.core.alone import others_matter
from fewshot.core.errors import UserError
from fewshot.transforms._base import Transform

_IMAGES, _CLASSES = 40, 8


def users(transform: Transform) -> list[str]:
    """The names of a user's own classes in it. Tests hold ours to all laws."""
    parts = [part for part in transform.modules() if isinstance(part, Transform)]
    return [type(part).__name__ for part in parts if not type(part).__module__.startswith("fewshot.")]


def check_alone(transform: Transform, like: Tensor) -> None:
    """Raises UserError if what a user's transform makes of an image depends on the images beside it.

    Images come class by class, so a transform that looks at neighbours would read classes off places. It is tried as it
    is, fitted, on the first images of `like` (I, D), and on random embeddings of that length, type and device, in one
    batch (N, D) and in several (T, N, D). If it cannot transform these, nothing is raised: the real ones will show why.
    The state of torch's random numbers is left unchanged.
    """
    if not (names := users(transform)):
        return
    noise = torch.randn(2, _IMAGES, like.shape[-1], generator=torch.Generator().manual_seed(0))
    # One that weighs images by their distances may see none of the others if all are far apart.
    random = [(scale * noise).to(like) for scale in (1.0, like.shape[-1] ** -0.5)]
    single = [each[:1] for each in random] + [like[None, :_IMAGES]] * (len(like) > 1)
    alone = (others_matter(_one_batch(transform), items, halve=True) for items in single)
    together = (others_matter(transform, items, halve=True) for items in random)
    if any(alone) or any(together):
        raise UserError(
            f"transform {' + '.join(names)}: what it makes of an image depends on the other images beside it: let it"
            " transform each by itself (what is to be learned of many, learn of the base classes: fitted = True)"
        )


def check_untaught(transform: Transform, features: int) -> None:
    """`check_alone` for one that has seen no data and is thrown away afterwards, on embeddings of this length."""
    transform.eval()
    if transform.fitted and users(transform):
        try:
            transform.fit(torch.randn(_IMAGES, features), torch.arange(_IMAGES) % _CLASSES)
        except Exception:  # it cannot be fitted on noise
            return
    check_alone(transform, torch.empty(0, features))


def _one_batch(transform: Transform) -> Callable[[Tensor], Tensor]:
    """The transform of embeddings (N, D), for a batch of one: (1, N, D)."""
    return lambda z: transform(z[0])[None]
