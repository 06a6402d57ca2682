"""Whether something answers each item by itself, or also looks at the others of its batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from fewshot.core.seeding import reseed

TOLERANCE = 1e-3  # of the largest answer: what rounding in float32 may amount to
_NOISE = 3  # times the difference between two seeds: what draws random numbers may differ by that


def others_matter(answer: Callable[[Tensor], Tensor], items: Tensor, halve: bool) -> bool:
    """Whether some answers change, beyond rounding, with the order of all items, or if half of them are left out.

    items (T, N, ...) -> answers (T, N, ...). halve: whether to leave half of them out, too; gradients are then not
    computed. Returns False if `answer` fails. The state of torch's random numbers is restored.
    """

    def answers(given: Tensor, seed: int = 0) -> Tensor:
        with _seeded(seed, given.device), torch.set_grad_enabled(not halve):
            return answer(given.clone()).detach()

    def differ(one: Tensor, other: Tensor) -> Tensor:
        return (one - other).abs().max()

    try:
        expected = answers(items)
        random = max(differ(answers(items, seed), expected) for seed in (1, 2))
        allowed = TOLERANCE * expected.abs().max() + _NOISE * random
        order = torch.randperm(items.shape[1], generator=torch.Generator().manual_seed(0)).to(items.device)
        if differ(answers(items[:, order]), expected[:, order]) > allowed:
            return True
        return halve and bool(differ(answers(items[:, ::2]), expected[:, ::2]) > allowed)
    except MemoryError:
        raise
    except Exception:  # whatever a user's own code has against these items
        return False


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's own random numbers, on the CPU and on the device, for a while; then restore their state."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        reseed(seed, device)
        yield
