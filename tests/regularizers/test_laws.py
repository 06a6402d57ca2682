"""Every method and option obeys the common laws of fewshot/testing/regularizers.py: one row each. A breach is told."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from fewshot import backbones, regularizers
from fewshot.core.errors import UserError
from fewshot.regularizers import Guide, Regularizer, Site, cutout
from fewshot.regularizers.dropblock import expected_drop, seed_rate
from fewshot.testing import Case, check_regularizer
from fewshot.testing.regularizers import (
    TABLE,
    WITHOUT_A_MASK,
    apply,
    is_a_mask_and_not_a_map,
    is_the_identity_in_evaluation,
    mask,
    rescales_to_mean_one,
)


def around(exact: float, tolerance: float) -> tuple[float, float]:
    return exact * (1 - tolerance), exact * (1 + tolerance)


def targetdrop_bounds(method) -> tuple[float, float]:
    """Between a block in the corner and a block inside, for each of floor(drop_prob * C) channels."""
    site, reach = method.site, method.block_size // 2
    corner = (min(reach + 1, site.height)) * (min(reach + 1, site.width))
    inside = min(2 * reach + 1, site.height) * min(2 * reach + 1, site.width)
    share = int(method.drop_prob * site.channels + 1e-9) / site.channels / (site.height * site.width)
    return share * corner, share * inside


def dropblock_exact(method) -> float:
    return expected_drop(method.drop_prob, method.block_size, method.site.height, method.site.width)


def dropblock_metaopt(method) -> tuple[float, float]:
    """Between each block's middle alone and whole blocks: this changes from step to step."""
    site = method.site
    fits = (site.height - method.block_size + 1) * (site.width - method.block_size + 1)
    rate = seed_rate(method.drop_prob, method.block_size, site.height, site.width)
    return 0.9 * rate * fits / (site.height * site.width), 1.1 * dropblock_exact(method)


def attentiondrop_zeros(method) -> float:
    """The top percent (am) or the maximum alone (sm, ad) of the maps drawn; a map of one element is constant."""
    size = method.site.height * method.site.width
    if size == 1:
        return 0.0
    return method.drop_prob * (method.count if method.mode == "am" else 1) / size


def focuseddropout_normal(method) -> float:
    """What lies below the threshold in standard normal maps, simulated."""
    noise, site = np.random.default_rng(0), method.site
    below = []
    for _ in range(400 if site.height <= 10 else 100):
        maps = noise.standard_normal((site.channels, site.height, site.width))
        reference = maps[maps.mean((1, 2)).argmax()]
        gamma = noise.uniform(method.low, method.high, reference.shape if method.per_unit else ())
        share = (reference <= gamma * reference.max()).mean() if reference.max() > 0 else float(method.invert)
        below.append(1 - share if method.invert else share)
    return float(np.mean(below))


def camdrop_blocks(method) -> tuple[float, float]:
    """Exact if all positions are equally likely to be candidates, as in noise; if these are few, few seeds fall."""
    return around(method.expected_drop if method.active else 0.0, 0.1 if method.candidates == "kept" else 0.3)


def cutout_exact(method) -> float:
    return cutout.expected_drop(method.size, method.site.height, method.site.width)


CASES = [
    Case("none", 0.0, "map"),
    Case("dropout:drop_prob=0.3", 0.3, "expectation"),
    Case("spatialdropout:drop_prob=0.3", 0.3, "expectation"),
    Case("dropblock:drop_prob=0.2", dropblock_exact, "batch"),
    Case("dropblock:drop_prob=0.1,block_size=1,ramp=0", dropblock_exact, "batch"),
    Case("dropblock:drop_prob=0.2,variant=metaopt", dropblock_metaopt, "batch"),
    *(
        Case(f"targetdrop:drop_prob=0.4,attention={attention}", targetdrop_bounds, "map")
        for attention in ("frozen", "ste", "ste_reversed", "gap", "random")
    ),
    Case("targetdrop:drop_prob=0.4,ties=all,attention=gap", targetdrop_bounds, "map"),
    *(
        Case(f"attentiondrop:drop_prob=0.4,mode={mode},literal={literal}", attentiondrop_zeros, scope)
        for mode in ("am", "sm", "ad")
        for literal, scope in (("false", "map"), ("true", "none"))
    ),
    *(
        Case(f"focuseddropout:{options}", focuseddropout_normal, "none")
        for options in ("low=0.3", "invert=true", "low=0.6,high=0.9,per_unit=true")
    ),
    *(
        Case(f"camdrop:drop_prob=0.4,channels=0.5,{options}", camdrop_blocks, "image")
        for options in ("guide=cam", "guide=avg", "candidates=removed", "seed_rate=direct", "label=named")
    ),
    Case("camdrop:drop_prob=0.4,channels=1,guide=avg", camdrop_blocks, "image"),
    Case("cutout", cutout_exact, "none"),
    Case("droppath:drop_prob=0.6", around(0.6 * 3 / 4, 0.2), "expectation"),
    Case("stochasticdepth:drop_prob=0.6", around(0.6 * 3 / 4, 0.15), "passes"),
]


@pytest.mark.parametrize("law, size", TABLE, ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.spec)
def test_law(case, law, size):
    law(case, size)


def test_every_feature_map_method_is_in_the_table():
    tested = {re.match(r"\w+", case.spec)[0] for case in CASES}
    assert tested == set(regularizers.FAMILY.names()) - {"autoaugment"}  # which has no mask


RATED = ("dropout", "spatialdropout", "dropblock", "targetdrop", "attentiondrop", "camdrop", "droppath")


@pytest.mark.parametrize("name", (*RATED, "stochasticdepth"))
def test_a_rate_of_zero_is_the_identity(name):
    x = torch.randn(2, 16, 10, 10)
    assert regularizers.build(f"{name}:drop_prob=0", Site(16, 10, 10, 3, 4))(x) is x


class Honest(Regularizer):
    """Somebody's method: zeroes whole images, and rescales what is left."""

    def __init__(self, site: Site, *, rate: float = 0.5) -> None:
        super().__init__(site)
        self.check_rate(rate=rate)
        self.rate = rate

    def multiplier(self, x, guide=None):
        return (torch.rand(len(x), 1, 1, 1, device=x.device) >= self.rate).float() / (1 - self.rate)


class Small(Honest):
    """Works on maps of 10 x 10 and larger."""

    def __init__(self, site: Site, *, block_size: int = 10) -> None:
        super().__init__(site)
        self.fit_block(block_size, default=10)


class WithoutRescaling(Honest):
    def multiplier(self, x, guide=None):
        return super().multiplier(x) * (1 - self.rate)


class InHalfPrecision(Honest):
    def multiplier(self, x, guide=None):
        return super().multiplier(x).bfloat16()


class Counting(Honest):
    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.register_buffer("calls", torch.zeros(()))

    def multiplier(self, x, guide=None):
        self.calls += 1
        return super().multiplier(x)


class CountingInPython(Honest):
    """As public DropBlock code does: its rate grows with the calls."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.calls = 0

    def multiplier(self, x, guide=None):
        self.calls += 1
        return super().multiplier(x)


class Branching(Honest):
    def multiplier(self, x, guide=None):
        return super().multiplier(x) if x.mean() > 0 else super().multiplier(x)


class Dividing(Honest):
    def multiplier(self, x, guide=None):
        return super().multiplier(x) * (x.mean() / x.mean())


class InEvaluation(Honest):
    def forward(self, x, guide=None):
        return x * self.multiplier(x)


class Zeroes(Honest):
    """Drops everything, always: there is no mean to be 1."""

    def multiplier(self, x, guide=None):
        return torch.zeros_like(x)


class OwnNoise(Honest):
    def multiplier(self, x, guide=None):
        fresh = torch.Generator()
        fresh.seed()
        return (torch.rand(len(x), 1, 1, 1, generator=fresh) >= self.rate).float() / (1 - self.rate)


class AMap(Honest):
    """Returns the regularized map instead of the mask."""

    def multiplier(self, x, guide=None):
        return x * super().multiplier(x)


class AMapAndNoise(Honest):
    def multiplier(self, x, guide=None):
        return x + torch.randn_like(x)


class SoftlyWeighted(Honest):
    """Depends on how large its input is, and is a mask all the same."""

    def multiplier(self, x, guide=None):
        return super().multiplier(x) * x.sigmoid()


class BuiltByHand(Case):
    """Not tried when it is built."""

    def build(self, size):
        return self.component(Site(*self.shape(size)))


class Misshapen(Honest):
    def multiplier(self, x, guide=None):
        return super().multiplier(x).flatten()


class Noise(Regularizer):
    """No multiplier: noise is added."""

    def forward(self, x, guide=None):
        return x + 0.1 * torch.randn_like(x) if self.training else x


class NoiseInEvaluation(Noise):
    def forward(self, x, guide=None):
        return x + 0.1 * torch.randn_like(x)


class NoiseInFloat32(Noise):
    def forward(self, x, guide=None):
        return x.float() + 1 if self.training else x


class NoiseThatCounts(Noise):
    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.calls = 0

    def forward(self, x, guide=None):
        self.calls += 1
        return super().forward(x)


@pytest.mark.parametrize("name", ["Honest:rate=0.4", "Small"])
def test_a_users_method_that_obeys_passes(name):
    check_regularizer(f"{__name__}.{name}", drops=lambda method: around(method.rate, 0.15), mean_one="expectation")


@pytest.mark.parametrize(
    "name, drops, complaint",
    [
        ("Honest", 0.2, "drops 0.5"), ("WithoutRescaling", 0.5, "mean is 0.4|mean is 0.5"),
        ("InHalfPrecision", 0.5, "mask is torch.bfloat16"), ("Counting", 0.5, "forward changes calls"),
        ("CountingInPython", 0.5, "forward changes calls"),
        ("Branching", 0.5, "data-dependent"), ("Dividing", 0.5, "not finite from zero"),
        ("InEvaluation", 0.5, "changes its input in evaluation mode"),
        ("OwnNoise", 0.5, "two outcomes of one generator state"),
    ],
)  # fmt: skip
def test_a_users_method_that_breaks_a_law_is_told_which(name, drops, complaint):
    with pytest.raises(Exception, match=f"(?is){complaint}"):
        check_regularizer(f"{__name__}.{name}", drops=lambda method: around(drops, 0.15), mean_one="expectation")


@pytest.mark.parametrize("scope", ["map", "image", "batch", "expectation", "passes"])
def test_a_mask_that_leaves_nothing_does_not_have_the_mean_one(scope):
    with pytest.raises(AssertionError, match="nothing is left|the mean is 0.0"):
        rescales_to_mean_one(Case(f"{__name__}.Zeroes", 1.0, scope), 10)


@pytest.mark.parametrize("name", ["AMap", "AMapAndNoise"])
def test_a_multiplier_that_is_a_map_is_refused_before_it_trains(name):
    """Otherwise it would train silently, on the square of its maps."""
    for build in (
        lambda: regularizers.build(f"{__name__}.{name}", Site(16, 10, 10)),
        lambda: backbones.build("conv4", f"{__name__}.{name}@4", 84),
        lambda: check_regularizer(f"{__name__}.{name}", drops=0.5, mean_one="none"),
    ):
        with pytest.raises(UserError, match=f"{name}: its `multiplier` grows as its input does"):
            build()

    with pytest.raises(AssertionError, match="a map, not a mask"):
        is_a_mask_and_not_a_map(BuiltByHand(f"{__name__}.{name}"), 10)
    with pytest.raises(UserError, match="does not fit its maps: \\(2,\\) for maps \\(2, 16, 10, 10\\)"):
        regularizers.build(f"{__name__}.Misshapen", Site(16, 10, 10))
    regularizers.build(f"{__name__}.SoftlyWeighted", Site(16, 10, 10))


def test_that_a_users_method_was_tried_shows_nowhere():
    torch.manual_seed(0)
    method = regularizers.build(f"{__name__}.CountingInPython", Site(16, 10, 10))
    assert method.calls == 0
    drawn = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(3), drawn)


def test_a_method_without_a_mask_is_held_to_the_laws_that_speak_of_none():
    check_regularizer(f"{__name__}.Noise")
    for law in WITHOUT_A_MASK:
        law(Case("autoaugment"), 10)
    for name, complaint in {"NoiseInFloat32": "torch.float32 from", "NoiseThatCounts": "forward changes calls"}.items():
        with pytest.raises(AssertionError, match=complaint):
            check_regularizer(f"{__name__}.{name}")
    with pytest.raises(UserError, match="changes its input in evaluation mode"):
        check_regularizer(f"{__name__}.NoiseInEvaluation")
    with pytest.raises(AssertionError, match="in evaluation not x itself"):
        is_the_identity_in_evaluation(BuiltByHand(f"{__name__}.NoiseInEvaluation"), 10)
    with pytest.raises(UserError, match="Noise has no mask, so that drops and mean_one cannot be measured"):
        check_regularizer(f"{__name__}.Noise", drops=0.1)
    with pytest.raises(UserError, match="what is it to drop"):
        check_regularizer(f"{__name__}.Honest")
    with pytest.raises(UserError, match="Noise has no mask: it does not implement `multiplier`"):
        regularizers.build(f"{__name__}.Noise", Site(16, 10, 10)).mask(torch.zeros(1, 16, 10, 10))


def test_help_explains_what_users_set():
    for thing, names in {
        Case: ("spec", "drops", "mean_one"), Site: ("label", "image_size", "place"), Guide: ("weights", "labels"),
        Regularizer: ("place", "guided", "remark", "active"), backbones.Backbone: ("original", "stages"),
    }.items():  # fmt: skip
        assert all(f"`{name}`" in thing.__doc__ for name in names)


def test_a_method_that_cannot_be_built_is_no_pass():
    with pytest.raises(UserError, match="not within 0..1"):
        check_regularizer(f"{__name__}.Honest:rate=1.5", drops=0.5, mean_one="expectation")


@pytest.mark.parametrize(
    "spec",
    ["dropout:drop_prob=0.3", "targetdrop:drop_prob=0.4", "attentiondrop:mode=sm,drop_prob=1",
     "camdrop:drop_prob=0.4,channels=1,guide=avg"],
)  # fmt: skip
def test_maps_in_half_precision_are_multiplied_in_float32(spec):
    """The product is rounded to bf16 once: the mask, and its scale, are not rounded before."""
    method = Case(spec).build(10)
    torch.manual_seed(0)
    x = torch.randn(4, 16, 10, 10).bfloat16()
    multiplier = mask(method, x)
    expected = (x.float() * multiplier).bfloat16()
    assert torch.equal(apply(method, x), expected)
    assert not torch.equal(x * multiplier.bfloat16(), expected), "here it makes a difference"


class Late(Regularizer):
    """Drops everything in the last quarter of training."""

    def multiplier(self, x, guide=None):
        return torch.where(self.progress > 0.75, 0.0, 1.0).expand_as(x)


class MoreDecay(Regularizer):
    """Drops nothing, and magnifies the weight decay."""

    def begin_step(self, progress, generator=None):
        super().begin_step(progress, generator)
        self.weight_decay_scale = 3.0

    def multiplier(self, x, guide=None):
        return torch.ones_like(x)


class LessDecay(MoreDecay):
    def begin_step(self, progress, generator=None):
        super().begin_step(progress, generator)
        self.weight_decay_scale = 0.5


@pytest.mark.parametrize("others", ["", "+dropout@1"])
def test_a_method_that_asks_for_no_decay_of_its_own_changes_none(others):
    for name, scale in (("LessDecay", 0.5), ("MoreDecay", 3.0)):
        network = backbones.build("conv4", f"{__name__}.{name}@4{others}", 84)
        network.begin_step(0.5)
        assert network.weight_decay_scale == scale


class AtTheFirst(Regularizer):
    def multiplier(self, x, guide=None):
        return x.new_full((1, 1, 1, 1), 0.5 if self.site.depth == 1 else 1.0)


class Nothing(Regularizer):
    def __init__(self, site: Site, *, rate: float = 1.0) -> None:
        super().__init__(site)
        self.active = rate > 0

    def multiplier(self, x, guide=None):
        return torch.ones_like(x)


class Failing(Regularizer):
    def multiplier(self, x, guide=None):
        raise ValueError("on some maps")


def test_only_what_never_acts_anywhere_is_without_effect():
    first, second = (Site(8, 5, 5, depth, 2) for depth in (1, 2))
    assert regularizers.without_effect([Nothing(first), Nothing(second)]) == [f"{__name__}.Nothing"]
    assert regularizers.without_effect([Nothing(first, rate=0)]) == [], "as the user asked for"
    assert regularizers.without_effect([AtTheFirst(first), AtTheFirst(second)]) == []
    before, late = torch.get_rng_state(), Late(first)
    assert regularizers.without_effect([late, MoreDecay(first), Failing(first)]) == []
    assert late.progress == 1 and torch.equal(torch.get_rng_state(), before), "a copy was asked"


class DividesByItsRate(Regularizer):
    def __init__(self, site: Site, *, rate: float = 0.5) -> None:
        super().__init__(site)
        self.rate, self.active = rate, rate > 0

    def multiplier(self, x, guide=None):
        return x.new_ones(1, 1, 1, 1) / self.rate


class ByName(Regularizer):
    """Keeps the channels that speak for the class that the network names."""

    guided = guided_by_name = True

    def multiplier(self, x, guide=None):
        return (guide.weights[guide.named] > 0).float()[..., None, None]


class Darker(Regularizer):
    """For images in 0..1: below 0 there is no root."""

    place = "image"

    def multiplier(self, x, guide=None):
        return 1 / (1 + x.sqrt())


class Pooled(Regularizer):
    def forward(self, x, guide=None):
        return x.mean((2, 3), keepdim=True) if self.training else x


class Above(Regularizer):
    """Keeps what exceeds a threshold that little exceeds."""

    def multiplier(self, x, guide=None):
        return (x > 2.5).float()


class Gathering(Regularizer):
    """Weighs positions: the larger the map, the more of the weight gathers at one."""

    def multiplier(self, x, guide=None):
        return x.flatten(1).softmax(1).view_as(x)


def test_a_users_method_is_tried_on_what_it_is_for():
    """With a named class if it asks for one, on images if it acts on them, and not at a rate of 0."""
    x = torch.randn(2, 16, 10, 10)
    assert regularizers.build(f"{__name__}.DividesByItsRate:rate=0", Site(16, 10, 10))(x) is x
    regularizers.build(f"{__name__}.ByName", Site(16, 10, 10))
    regularizers.build(f"{__name__}.Darker", Site(3, 32, 32, 0, 4, "image"))
    with pytest.raises(UserError, match=r"`forward` returns \(2, 16, 1, 1\) for maps \(2, 16, 10, 10\)"):
        regularizers.build(f"{__name__}.Pooled", Site(16, 10, 10))


@pytest.mark.parametrize("name", ["Above", "Gathering"])
def test_a_mask_that_depends_on_how_large_a_map_is_is_no_map(name):
    regularizers.build(f"{__name__}.{name}", Site(16, 10, 10))


def test_the_rates_that_recipes_leave_out():
    """`--reg dropout@1,2` is a row of a paper's table: what it stands for must not move. DropBlock's rate ramps up."""
    site = Site(64, 10, 10, 4, 4)
    rates = {name: regularizers.build(name, site).drop_prob for name in (*RATED, "stochasticdepth")}
    assert rates == dict.fromkeys(rates, 0.1) | {"targetdrop": 0.15, "droppath": 0.5, "stochasticdepth": 0.5}
    dropblock = regularizers.build("dropblock", site)
    torch.manual_seed(0)
    for progress, rate in ((0.0, 0.0), (0.5, 0.05), (1.0, 0.1)):
        dropblock.begin_step(progress)
        dropped = (dropblock.mask(torch.zeros(512, 64, 10, 10)) == 0).float().mean().item()
        assert dropped == pytest.approx(expected_drop(rate, 5, 10, 10), rel=0.1)
