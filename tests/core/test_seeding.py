"""Seeds for one purpose: what is drawn with them leaves every other generator alone."""

from __future__ import annotations

import torch

from fewshot import regularizers
from fewshot.core.seeding import seeded
from fewshot.regularizers import Site


def test_neither_the_callers_generators_nor_those_of_a_gpu_are_seeded(monkeypatch):
    """torch.manual_seed seeds all GPUs: a caller's training there would repeat its random numbers."""

    def fail(*_):
        raise AssertionError("a GPU's generator was seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", fail)
    before = torch.get_rng_state()
    with seeded(1, "a purpose"):
        first = torch.rand(3)
    with seeded(1, "a purpose"):
        assert torch.equal(torch.rand(3), first)
    regularizers.build("fewshot.regularizers.dropout.Dropout", Site(8, 5, 5, 3, 4))  # tried out
    assert torch.equal(torch.get_rng_state(), before)
