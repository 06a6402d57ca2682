"""FocusedDropout against its hand check and a plain loop in float64; its steps, and the optimizer that obeys them."""

from __future__ import annotations

import pytest
import torch
from commands import SMALL

from fewshot import backbones, regularizers, train
from fewshot.backbones import Backbone
from fewshot.core import console
from fewshot.core.errors import UserError
from fewshot.core.seeding import generator_for
from fewshot.regularizers import Site
from fewshot.regularizers.focuseddropout import focuseddropout_mask, reference_map


def test_hand_check():
    """c0 = [[4, 1], [2, 3]], c1 = [[0, 9], [0, 0]], gamma .5: c0 is the reference (10 to 9), the threshold 2."""
    x = torch.tensor([[[[4.0, 1], [2, 3]], [[0, 9], [0, 0]]]])
    mask = focuseddropout_mask(reference_map(x), 0.5)
    assert mask.tolist() == [[[[1, 0], [0, 1]]]]
    assert (x * mask)[0, 1].abs().sum() == 0
    assert focuseddropout_mask(reference_map(x), 0.5, invert=True).tolist() == [[[[0, 1], [1, 0]]]]


def brute_force(x, gamma, invert):
    """Image by image and position by position, in float64; gamma is of shape (N, 1, H, W)."""
    n, c, h, w = x.shape
    out = torch.ones(n, 1, h, w, dtype=torch.float64)
    unfocused = 0
    for i in range(n):
        k = max(range(c), key=lambda j: (x[i, j].mean().item(), -j))
        peak = max(v.item() for v in x[i, k].flatten())
        unfocused += peak <= 0
        for row in range(h):
            for column in range(w):
                focused = x[i, k, row, column].item() > gamma[i, 0, row, column].item() * peak
                if peak > 0:
                    out[i, 0, row, column] = float(focused != invert)
    return out, unfocused / n


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("per_unit", [False, True])
@pytest.mark.parametrize("batch, size", [(5, 6), (1, 5), (6, 2), (1, 2), (6, 1), (1, 1)])
def test_equals_the_algorithm_written_as_loops(invert, per_unit, batch, size):
    method = regularizers.build(f"focuseddropout:invert={invert},per_unit={per_unit}", Site(7, size, size, 3, 4))
    torch.manual_seed(size)
    x = torch.randn(batch, 7, size, size)
    x[-1] -= 10  # no positive value in the last image
    torch.manual_seed(3)
    gamma = 0.3 + 0.3 * torch.rand((batch, 1, size, size) if per_unit else (batch, 1, 1, 1))
    torch.manual_seed(3)
    mask = method.mask(x)
    assert mask.shape == (batch, 1, size, size)
    expected, unfocused = brute_force(x.double(), gamma.double().expand_as(mask), invert)
    assert torch.equal(mask.double(), expected)
    assert torch.equal(mask[-1], torch.ones_like(mask[-1]))
    assert method.unfocused.item() == pytest.approx(unfocused)


def test_the_first_of_equal_channels_is_the_reference_and_the_maximum_always_stays():
    x = torch.stack([torch.tensor([[3.0, 1]]), torch.tensor([[1.0, 3]])])[None]
    assert reference_map(x).tolist() == [[[[3, 1]]]]
    method = regularizers.build("focuseddropout", Site(8, 5, 5, 3, 4))
    x = torch.rand(50, 8, 5, 5)
    assert (method.mask(x).amax((1, 2, 3)) == 1).all()


def begin(network, step):
    network.begin_step(0.5, generator_for(0, step, "regularizers"))
    return [bool(reg.participates) for reg in network.regularizers if hasattr(reg, "participates")]


def test_all_sites_take_part_in_a_tenth_of_the_steps_together():
    network = backbones.build("conv4", "focuseddropout@2,4+dropblock@3+focuseddropout@3", 32)
    steps = [begin(network, step) for step in range(3000)]
    assert all(len(set(sites)) == 1 for sites in steps)
    assert sum(sites[0] for sites in steps) / len(steps) == pytest.approx(0.1, abs=0.02)
    assert begin(network, 17) == steps[17]


def test_one_generator_for_all_steps_serves_as_well():
    network, generator = backbones.build("conv4", "focuseddropout@3+dropout@4", 32), torch.Generator().manual_seed(0)
    (method, _) = network.regularizers
    taken = []
    for _ in range(3000):
        network.begin_step(0.5, generator)
        taken.append(bool(method.participates))
    assert sum(taken) / len(taken) == pytest.approx(0.1, abs=0.02)


def test_a_step_that_does_not_take_part_changes_nothing():
    method = regularizers.build("focuseddropout:participation=0.5", Site(8, 5, 5, 3, 4))
    x = torch.randn(4, 8, 5, 5)
    seen = set()
    for step in range(20):
        method.begin_step(0.5, generator_for(0, step, "regularizers"))
        participates = bool(method.participates)
        seen.add(participates)
        assert torch.equal(method(x), x) != participates
        assert (method.dropped > 0) == participates
        assert method.weight_decay_scale == (2.0 if participates else 1.0)
    assert seen == {True, False}


def test_without_our_loop_it_takes_part_and_with_no_participation_it_is_the_identity():
    x = torch.randn(4, 8, 5, 5)
    method = regularizers.build("focuseddropout", Site(8, 5, 5, 3, 4))
    assert method.participates and not torch.equal(method(x), x) and method.weight_decay_scale == 2
    never = regularizers.build("focuseddropout:participation=0", Site(8, 5, 5, 3, 4))
    assert never(x) is x and never.weight_decay_scale == 1
    never.begin_step(0.5)
    assert never(x) is x and never.weight_decay_scale == 1


def test_one_compiled_forward_serves_both_kinds_of_step():
    torch.compiler.reset()
    method = regularizers.build("focuseddropout:participation=0.5", Site(8, 5, 5, 3, 4))
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph

    compiled = torch.compile(method, fullgraph=True, backend=count)
    x = torch.randn(4, 8, 5, 5)
    for step in range(8):
        method.begin_step(0.5, generator_for(0, step, "regularizers"))
        torch.manual_seed(step)
        expected = method(x)
        torch.manual_seed(step)
        assert torch.equal(compiled(x), expected)
    assert len(graphs) == 1


def test_the_optimizer_decays_more_on_the_steps_that_take_part_and_only_there(tmp_path, monkeypatch):
    """What the optimizer is told, and what it does: weight decay alone moves a weight that has no gradient."""
    told, taken, moved = [], [], []
    begin_step = Backbone.begin_step

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            told.append([group["weight_decay"] for group in self.param_groups])
            (weight, *_) = self.param_groups[0]["params"]
            weight.grad.zero_()
            before = weight.detach().clone()
            super().step(closure)
            moved.append(((before - weight.detach()).norm() / before.norm()).item())

    def watch(self, *args):
        begin_step(self, *args)
        taken.append({bool(reg.participates) for reg in self.regularizers if hasattr(reg, "participates")})

    monkeypatch.setattr(torch.optim, "SGD", Watched)
    monkeypatch.setattr(Backbone, "begin_step", watch)
    reg = "focuseddropout@2,3:participation=0.5,weight_decay_scale=3+dropout@4"
    flags = ["--reg", reg, "--weight-decay", "0.01", "--schedule", "constant", "--momentum", "0"]
    flags += ["--episodes-per-epoch", "16", "--val-episodes", "5", "--test-episodes", "5"]
    assert console.run(train.main, [*SMALL, *flags, "--out", str(tmp_path / "run")]) == 0
    assert len(told) == len(taken) == 16 and {True} in taken and {False} in taken
    decays = [0.01 * 3 if participates == {True} else 0.01 for participates in taken]
    assert told == [[decay] for decay in decays]
    assert moved == pytest.approx([0.1 * decay for decay in decays], rel=1e-3)  # the learning rate's share of it


def test_the_weight_decay_may_be_magnified_alone():
    """Table 4's MWD: on the same steps as with the mask, and nothing is dropped."""
    site = Site(8, 5, 5, 3, 4)
    alone, with_mask = (regularizers.build(f"focuseddropout:participation=0.5,{more}", site) for more in
                        ("drops=false", "drops=true"))  # fmt: skip
    x, scales = torch.rand(4, 8, 5, 5), []
    for step in range(20):
        for method in (alone, with_mask):
            method.begin_step(0.5, generator_for(0, step, "regularizers"))
        assert alone(x) is x and alone.weight_decay_scale == with_mask.weight_decay_scale
        scales.append(alone.weight_decay_scale)
    assert set(scales) == {1.0, 2.0}


@pytest.mark.parametrize(
    "options, message",
    [
        ("low=0.7", "low=0.7 is above high=0.6"),
        ("high=1.5", "high=1.5 is not within 0..1"),
        ("low=-0.1", "low=-0.1 is not within 0..1"),
        ("participation=nan", "participation=nan is not within 0..1"),
        ("weight_decay_scale=0.5", "weight_decay_scale=0.5 is no number of 1 or more"),
        ("weight_decay_scale=nan", "weight_decay_scale=nan is no number of 1 or more"),
        ("weight_decay_scale=inf", "weight_decay_scale=inf is no number of 1 or more"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        regularizers.build(f"focuseddropout:{options}", Site(8, 5, 5, 3, 4))


@pytest.mark.parametrize("invert", [False, True])
def test_a_reference_whose_maximum_is_zero_has_no_focus(invert):
    """The other channels are below 0, so that a mask would show. The second image has a focus."""
    x = torch.full((2, 3, 4, 4), -1.0)
    x[0, 1] = 0
    x[1, 2] = torch.arange(16.0).view(4, 4)
    method = regularizers.build(f"focuseddropout:invert={str(invert).lower()}", Site(3, 4, 4, 3, 4))
    y = method(x)
    assert torch.equal(y[0], x[0]) and not torch.equal(y[1], x[1])
    assert method.unfocused == 0.5


def test_a_threshold_may_be_fixed():
    """low = high: the hand check, through the method."""
    method = regularizers.build("focuseddropout:low=0.5,high=0.5", Site(2, 2, 2, 3, 4))
    x = torch.tensor([[[[4.0, 1], [2, 3]], [[0, 9], [0, 0]]]])
    assert method.mask(x).tolist() == [[[[1, 0], [0, 1]]]]
