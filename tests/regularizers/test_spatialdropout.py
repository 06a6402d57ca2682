"""SpatialDropout: whole channels, and their scaling."""

from __future__ import annotations

import pytest
import torch

from fewshot import regularizers
from fewshot.regularizers import Site
from fewshot.regularizers.spatialdropout import spatialdropout_mask


def test_channels_go_whole_and_each_by_itself():
    torch.manual_seed(0)
    mask = spatialdropout_mask(torch.empty(200, 50, 3, 3), 0.2)
    assert mask.shape == (200, 50, 1, 1)
    assert sorted(mask.unique().tolist()) == pytest.approx([0, 1 / 0.8])
    dropped = (mask == 0).float()
    assert dropped.mean().item() == pytest.approx(0.2, rel=0.05)
    for dims in ((0,), (1,)):  # a draw shared by images, or by channels, would be all or nothing along them
        shares = dropped.mean(dims)
        assert shares.std().item() == pytest.approx((0.2 * 0.8 / dropped.shape[dims[0]]) ** 0.5, rel=0.25)


@pytest.mark.parametrize("size", [2, 1])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_map_is_scaled_or_gone(size, batch):
    torch.manual_seed(1)
    method = regularizers.build("spatialdropout:drop_prob=0.5", Site(64, size, size, 3, 4))
    x = torch.rand(batch, 64, size, size) + 1
    y = method(x)
    gone = (y == 0).flatten(2).all(2)
    assert 0 < gone.sum() < gone.numel()
    assert torch.equal(y, torch.where(gone[..., None, None], 0, 2 * x))
    assert method.dropped.item() == pytest.approx(gone.float().mean().item())


def test_a_rate_of_one_drops_everything():
    method = regularizers.build("spatialdropout:drop_prob=1", Site(8, 2, 2))
    assert method(torch.ones(2, 8, 2, 2)).abs().sum() == 0
