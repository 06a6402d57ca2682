"""Every method x option x map size x dtype x memory format x input obeys the common laws."""

from __future__ import annotations

import pytest
import torch
from laws import ROWS, SIZES, build

ROW = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.spec)
SIZE = pytest.mark.parametrize("size", SIZES)
FORMATS = (torch.contiguous_format, torch.channels_last)
INPUTS = {
    "random": lambda shape: torch.randn(shape),
    "zeros": lambda shape: torch.zeros(shape),
    "constant": lambda shape: torch.full(shape, 0.7),
    "negative": lambda shape: -torch.rand(shape) - 0.1,
}


def run(method, x: torch.Tensor, seed: int = 1) -> torch.Tensor:
    torch.manual_seed(seed)
    return method(x)


@ROW
@SIZE
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("kind", INPUTS)
def test_shape_dtype_format_and_finiteness(row, size, dtype, memory_format, kind):
    method = build(row.spec, size)
    for batch in (1, 3):
        x = INPUTS[kind]((batch, 16, size, size)).to(dtype).contiguous(memory_format=memory_format)
        kept = x.clone()
        y = run(method, x)
        assert y.shape == x.shape and y.dtype == dtype and y.isfinite().all()
        assert y.is_contiguous(memory_format=memory_format)
        assert torch.equal(x, kept), "the input was overwritten"
        assert torch.equal(run(method, x), y), "the generator's state decides the mask"
        assert method.eval()(x) is x
        method.train()


@ROW
@SIZE
def test_multiplier_is_float32_and_keeps_the_mean_over_its_scope(row, size):
    method = build(row.spec, size)
    x = torch.randn(64, 16, size, size)
    with torch.autocast("cpu", torch.bfloat16):
        mask = run_mask(method, x)
    assert mask.dtype == torch.float32
    if row.scope == "map":
        means = mask.mean((2, 3))
        assert torch.allclose(means[means > 0], torch.tensor(1.0), atol=1e-5)
    elif row.scope == "batch":
        assert mask.mean().item() == pytest.approx(1.0 if mask.any() else 0.0, abs=1e-4)
    elif row.scope == "expectation":
        assert mask.mean().item() == pytest.approx(1.0, abs=6 * mask.std().item() / mask.numel() ** 0.5)
    elif row.scope == "passes":
        means = torch.stack([run_mask(method, x, seed).mean() for seed in range(400)])
        assert means.mean().item() == pytest.approx(1.0, abs=6 * means.std().item() / len(means) ** 0.5)


def run_mask(method, x, seed: int = 1):
    torch.manual_seed(seed)
    return method.mask(x)


@ROW
@SIZE
def test_measured_drop_fraction_is_the_expected_one(row, size):
    method = build(row.spec, size)
    images, passes = (1, 500) if row.scope == "passes" else (64, 40 if size <= 5 else 4)
    for seed in range(passes):
        run(method, torch.randn(images, 16, size, size), seed)
        fractions = [method.dropped.item()] if seed == 0 else [*fractions, method.dropped.item()]
    low, high = row.expected(method, method.site)
    assert low - 1e-6 <= sum(fractions) / len(fractions) <= high + 1e-6


@ROW
def test_a_mask_under_autocast_equals_the_one_without(row):
    """Under bf16 autocast the choice must not change: its arithmetic is float32."""
    method = build(row.spec, 10)
    x = torch.randn(8, 16, 10, 10).to(torch.bfloat16)
    plain = run(method, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(run(method, x), plain)


@ROW
def test_gradient_is_the_multiplier_and_reaches_no_weight_but_straight_through(row):
    method = build(row.spec, 10)
    x = torch.randn(8, 16, 10, 10, requires_grad=True)
    run(method, x).sum().backward()
    assert torch.allclose(x.grad, run_mask(method, x.detach()).detach().expand_as(x))
    learns = [p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters()]
    assert learns == ([True, True] if "ste" in row.spec else [])


@ROW
def test_compiles_without_graph_breaks(row):
    torch.compiler.reset()  # else every row before this one counts towards the limit of recompilations
    method = build(row.spec, 10)
    x = torch.randn(4, 16, 10, 10)
    expected = run(method, x)
    compiled = torch.compile(method, fullgraph=True, backend="aot_eager")
    assert torch.allclose(run(compiled, x), expected, atol=1e-6)


RATED = ("dropout", "spatialdropout", "dropblock", "targetdrop", "attentiondrop", "droppath", "stochasticdepth")


@pytest.mark.parametrize("name", RATED)
def test_a_rate_of_zero_is_the_identity(name):
    x = torch.randn(2, 16, 10, 10)
    assert build(f"{name}:drop_prob=0", 10)(x) is x


@ROW
def test_progress_survives_saving_and_nothing_is_counted_in_forward(row):
    method, other = build(row.spec, 10), build(row.spec, 10)
    method.begin_step(0.25)
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    run(method, torch.randn(2, 16, 10, 10))
    assert all(torch.equal(before[name], tensor) for name, tensor in method.state_dict().items())
    other.load_state_dict(before)
    assert other.progress.item() == 0.25
