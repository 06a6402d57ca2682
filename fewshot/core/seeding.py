"""Seeds for one purpose in one step: what one draws never shifts what another gets. Imports no torch by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, step: int, purpose: str) -> int:
    """A 63-bit seed for one purpose in one step, unrelated to its neighbours'."""
    digest = hashlib.blake2b(f"{seed}/{step}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator_for(seed: int, step: int, purpose: str) -> torch.Generator:
    """A CPU generator for one purpose in one step."""
    import torch

    return torch.Generator().manual_seed(derive(seed, step, purpose))


def reseed(seed: int, device: torch.device) -> None:
    """Seed torch's own generators of the CPU and of this device only: torch.manual_seed would seed all devices'."""
    import torch

    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


@contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Seed torch's own CPU generator for one purpose, for a while; then restore its state."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, 0, purpose))  # torch.manual_seed would seed CUDA's, too
        yield
