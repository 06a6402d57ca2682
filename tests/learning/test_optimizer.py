"""The moving average of the weights: torch's, to the bit."""

from __future__ import annotations

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fewshot import backbones
from fewshot.learning.optimizer import MovingAverage


def test_the_moving_average_is_torchs():
    model = backbones.build("conv4", "targetdrop", 32)
    ours = MovingAverage(model, 0.9)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    for _ in range(4):
        with torch.no_grad():
            for value in [*model.parameters(), *model.buffers()]:
                value.copy_(torch.randn(value.shape) * 10)  # counts of batches, too
        ours.update_parameters(model)
        theirs.update_parameters(model)
    found, expected = ours.state_dict(), theirs.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not all(torch.equal(found[f"module.{name}"], value) for name, value in model.state_dict().items())
