"""The optimizer and the moving average of the weights equal torch's."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fewshot import backbones
from fewshot.learning.optimizer import MovingAverage, build


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


def test_a_weight_may_have_its_first_gradient_later_than_others():
    """Such as those of a branch that a network begins to use later, or of a head that waits for its features."""

    def trained(make) -> torch.Tensor:
        early, late = (nn.Parameter(torch.linspace(-1, 1, 5)) for _ in range(2))
        steps = make([early, late])
        for number in range(4):
            steps.zero_grad()
            loss = early.square().sum()
            if number >= 2:
                loss = loss + (late - 2).square().sum()
            loss.backward()
            steps.step()
        return torch.cat([early, late]).detach()

    found = trained(lambda weights: build("sgd", weights, lr=0.1, momentum=0.9, weight_decay=5e-4))
    plain = trained(lambda weights: torch.optim.SGD(weights, 0.1, 0.9, weight_decay=5e-4, nesterov=True))
    assert torch.allclose(found, plain, atol=1e-6)


def test_adamw_decays_weights_apart_from_the_gradient():
    """Loshchilov & Hutter, ICLR 2019, algorithm 2, written out."""
    weight = nn.Parameter(torch.linspace(-1, 1, 5))
    steps, expected = build("adamw", [weight], lr=0.1, momentum=0.9, weight_decay=0.5), weight.detach().clone()
    first = second = torch.zeros(5)
    for number in range(1, 4):
        steps.zero_grad()
        (weight - 2).square().sum().backward()
        steps.step()
        gradient = 2 * (expected - 2)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        step = first / (1 - 0.9**number) / ((second / (1 - 0.999**number)).sqrt() + 1e-8)
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * step
    assert torch.allclose(weight, expected, atol=1e-5)
