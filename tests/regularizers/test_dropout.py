"""Dropout: each element by itself, and the scaling of the others."""

from __future__ import annotations

import pytest
import torch

from fewshot import regularizers
from fewshot.regularizers import Site


def test_elements_go_each_by_itself_and_the_others_are_scaled_up():
    torch.manual_seed(0)
    mask = regularizers.build("dropout:drop_prob=0.2", Site(25, 8, 8, 3, 4)).mask(torch.zeros(20, 25, 8, 8))
    assert mask.shape == (20, 25, 8, 8)
    assert sorted(mask.unique().tolist()) == pytest.approx([0, 1 / 0.8])
    dropped = (mask == 0).float()
    for dim, count in enumerate(mask.shape):  # a draw shared along one of them would be all or nothing there
        assert dropped.mean(dim).var().item() == pytest.approx(0.2 * 0.8 / count, rel=0.25)
