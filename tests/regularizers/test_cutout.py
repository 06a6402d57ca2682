"""Cutout against slicing, its place at the input, and where it is declined."""

from __future__ import annotations

import pytest
import torch

from fewshot import backbones, regularizers
from fewshot.core.errors import UserError
from fewshot.regularizers import Site
from fewshot.regularizers.cutout import cutout_mask, expected_drop


def input_site(size: int) -> Site:
    return Site(3, size, size, 0, 4, "input")


def test_hand_check():
    """4 x 4, squares of 2 (rows r - 1 and r) and of 3 (rows r - 1 to r + 1), in a corner and inside."""
    centres = torch.tensor([0, 3]), torch.tensor([0, 2])  # (row 0, column 0) and (row 3, column 2)
    even, odd = (cutout_mask(*centres, size, 4, 4)[:, 0].int().tolist() for size in (2, 3))
    assert even[0] == [[0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert even[1] == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1]]
    assert odd[0] == [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert odd[1] == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 0, 0, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize("side, size", [(32, None), (32, 8), (16, 5), (5, 5), (3, 1)])
def test_equals_slicing(side, size):
    method = regularizers.build("cutout" if size is None else f"cutout:size={size}", input_site(side))
    images = torch.randn(40, 3, side, side)
    torch.manual_seed(5)
    y = method(images)
    torch.manual_seed(5)
    rows, columns = torch.randint(side, (40,)), torch.randint(side, (40,))
    expected = images.clone()
    for image, row, column in zip(expected, rows.tolist(), columns.tolist(), strict=True):
        top, left = row - method.size // 2, column - method.size // 2
        image[:, max(top, 0) : top + method.size, max(left, 0) : left + method.size] = 0
    assert torch.equal(y, expected)
    assert method.dropped.item() == pytest.approx((expected == 0).float().mean().item())
    assert method.eval()(images) is images


def test_every_image_has_a_square_of_its_own_and_every_pixel_can_be_its_centre():
    method = regularizers.build("cutout:size=1", input_site(6))
    torch.manual_seed(0)
    hidden = method.mask(torch.empty(7200, 3, 6, 6)) == 0
    assert (hidden.sum((1, 2, 3)) == 1).all()
    counts = hidden.sum((0, 1)).flatten().double()  # 200 each, in expectation
    chi_square = ((counts - 200) ** 2 / 200).sum().item()
    assert chi_square < 66.6  # 35 degrees of freedom: the 0.999 quantile


@pytest.mark.parametrize("side, size, published", [(84, 17, 0.0369), (32, 6, 0.0319)])
def test_default_size_and_expected_drop(side, size, published):
    method = regularizers.build("cutout", input_site(side))
    assert method.size == size
    expected = expected_drop(size, side, side)
    assert expected == pytest.approx(published, abs=5e-5)
    every = torch.cartesian_prod(torch.arange(side), torch.arange(side)).T
    dropped = [(cutout_mask(*centres, size, side, side) == 0).double().mean() for centres in every.split(512, dim=1)]
    weights = [len(centres[0]) for centres in every.split(512, dim=1)]
    exact = sum(d.item() * w for d, w in zip(dropped, weights, strict=True)) / side**2
    assert exact == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("backbone", ["conv4", "conv512f", "resnet12"])
@pytest.mark.parametrize("reg", ["cutout:size=10", "cutout@0:size=10"])
def test_it_acts_on_the_input_and_nowhere_else(backbone, reg):
    torch.manual_seed(0)
    network = backbones.build(backbone, reg, 32)
    plain = backbones.build(backbone, "none", 32)
    plain.load_state_dict(network.state_dict(), strict=False)
    (method,) = network.regularizers
    assert (method.site.place, method.site.depth, method.site.height) == ("input", 0, 32)
    images = torch.randn(4, 3, 32, 32)
    torch.manual_seed(1)
    cut = method(images)
    torch.manual_seed(1)
    assert torch.equal(network(images), plain(cut))
    assert torch.equal(network.eval()(images), plain.eval()(images))


def test_joins_others():
    network = backbones.build("conv4", "cutout+targetdrop", 84)
    assert [(type(r).__name__, r.site.depth) for r in network.regularizers] == [
        ("Cutout", 0), ("TargetDrop", 3), ("TargetDrop", 4),
    ]  # fmt: skip


def test_a_size_of_zero_is_the_identity():
    x = torch.randn(2, 3, 8, 8)
    assert regularizers.build("cutout:size=0", input_site(8))(x) is x


@pytest.mark.parametrize(
    "reg, message",
    [
        ("cutout@3", "cutout@3: it acts on the input, where there is no site 3; this backbone has 0"),
        ("cutout@0,1", "cutout@0,1: it acts on the input, where there is no site 1; this backbone has 0"),
        ("dropout@0", "dropout@0: it acts after blocks, where there is no site 0; this backbone has 1, 2, 3, 4"),
        ("cutout:size=33", "cutout:size=33 is not within 0..32, the side of the images"),
        ("cutout:size=-1", "cutout:size=-1 is not within 0..32, the side of the images"),
    ],
)
def test_what_it_declines(reg, message):
    with pytest.raises(UserError) as error:
        backbones.build("conv4", reg, 32)
    assert str(error.value) == message
