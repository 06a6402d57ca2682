"""The table of laws: what every regularizer obeys, whatever it drops. For ours, and for yours.

    from fewshot.testing import check_regularizer

    def test_my_drop():
        check_regularizer("my_pkg.my_module.MyDrop:rate=0.2", drops=0.2, mean_one="expectation")

    def test_my_method_that_has_no_mask():
        check_regularizer("my_pkg.my_module.MyNoise")
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from fewshot import regularizers
from fewshot.core.components import parse
from fewshot.core.errors import UserError, unknown
from fewshot.regularizers import Guide, Regularizer, Site
from fewshot.regularizers._probe import grows

SIZES = (42, 21, 10, 5, 2, 1)  # the maps of every backbone for 84 px images, then the smallest there are
CHANNELS = 16  # of maps; images have 3
DTYPES = (torch.float32, torch.bfloat16)
FORMATS = (torch.contiguous_format, torch.channels_last)
INPUTS: dict[str, Callable[[tuple[int, ...]], Tensor]] = {
    "random": torch.randn,
    "zero": torch.zeros,
    "constant": lambda shape: torch.full(shape, 0.7),
    "negative": lambda shape: -torch.rand(shape) - 0.1,
}

Drops = float | tuple[float, float]
Scope = Literal["map", "image", "batch", "expectation", "passes", "none"]


@dataclass(frozen=True)
class Case:
    """A regularizer as written on the command line, and what to expect of it.

    - `spec`: such as "dropout:drop_prob=0.3" or "my_pkg.my_module.MyDrop:rate=0.2".
    - `drops`: the expected fraction of zeros in the multiplier on normal noise: a number (met within a tenth of it),
      bounds (low, high), or a function that gives either for the built method, which knows its `site`. None for a
      method without a mask.
    - `mean_one`: what the multiplier's mean is 1 over: each "map" (n, c), each "image", the "batch", in "expectation"
      (over "passes" if there is one draw per pass), or "none" if the method does not rescale.
    """

    spec: str
    drops: Drops | Callable[[Regularizer], Drops] | None = None
    mean_one: Scope = "none"

    @property
    def component(self) -> type[Regularizer]:
        """The method's class."""
        spec, *more = parse(self.spec)
        if more:
            raise UserError(f"{self.spec}: check one regularizer at a time")
        return regularizers.FAMILY.find(spec.name)

    def build(self, size: int) -> Regularizer:
        """The method, always the same, at the third of four stages or, if it acts there, on the images.

        Raises UserError if it declines maps of that size.
        """
        place = self.component.place
        torch.manual_seed(0)
        depth = 0 if place in ("input", "image") else 3
        return regularizers.build(self.spec, Site(*self.shape(size), depth, 4, place))

    def shape(self, size: int) -> tuple[int, int, int]:
        """(C, H, W) of the maps, or images, that it is tried on."""
        return 3 if self.component.place in ("input", "image") else CHANNELS, size, size


def check_regularizer(
    spec: str, drops: Drops | Callable[[Regularizer], Drops] | None = None, mean_one: Scope = "none"
) -> None:
    """Hold a regularizer to every law, at each map size that it does not decline: `Case` explains the arguments.

    A method without a mask (it overrides `forward` and implements no `multiplier`) is held to the laws that need none:
    shape, dtype, memory format, finite values, determinism, identity in evaluation, float32 under
    autocast, nothing counted.

    Takes some seconds. Raises AssertionError that names the broken law, and where; UserError if the method cannot
    be built at all, or if `drops` is missing or cannot be measured.
    """
    if mean_one not in get_args(Scope):
        raise unknown("mean_one", mean_one, get_args(Scope))
    case = Case(spec, drops, mean_one)
    masked = case.component.has_mask()
    if masked and drops is None:
        raise UserError(f"{spec}: what is it to drop? Give drops=, the expected fraction of zeros in its mask")
    if not masked and (drops is not None or mean_one != "none"):
        raise UserError(f"{spec} has no mask, so that drops and mean_one cannot be measured: leave them out")
    for law, size in TABLE:
        if not masked and law not in WITHOUT_A_MASK:
            continue
        try:
            case.build(size)
        except UserError:
            if size == max(SIZES):
                raise
            continue
        law(case, size)


def apply(method: Regularizer, x: Tensor, seed: int = 1) -> Tensor:
    """What the method makes of x (N, C, H, W) with noise from `seed`, and a random guide if it needs one."""
    guide = _guide(method, x)
    torch.manual_seed(seed)
    return method(x, guide)


def mask(method: Regularizer, x: Tensor, seed: int = 1) -> Tensor:
    """The multiplier of `apply` for the same x and seed."""
    guide = _guide(method, x)
    torch.manual_seed(seed)
    return method.mask(x, guide)


def _guide(method: Regularizer, x: Tensor) -> Guide | None:
    if not method.guided:
        return None
    weights = torch.randn(5, 2 * x.shape[1], generator=torch.Generator().manual_seed(0))
    labels = torch.arange(len(x), device=x.device) % 5
    return Guide(weights.to(x.device), labels, labels.flip(0) if method.guided_by_name else None)


def _inputs(case: Case, size: int) -> Iterator[tuple[str, Tensor]]:
    """Batches of one and of three images in every dtype, memory format and kind, with their descriptions."""
    for kind, dtype, layout, batch in itertools.product(INPUTS, DTYPES, FORMATS, (1, 3)):
        x = INPUTS[kind]((batch, *case.shape(size)))
        if case.component.place == "image":
            x = x.clamp(0, 1)  # before images are normalised
        x = x.to(dtype).contiguous(memory_format=layout)
        yield f"{kind} {dtype} {layout} input of {' x '.join(map(str, x.shape))}", x


def keeps_shape_dtype_and_format_and_is_finite(case: Case, size: int) -> None:
    """Whatever the input, which stays unchanged; and the generator's state alone decides the outcome."""
    method = case.build(size)
    for where, x in _inputs(case, size):
        kept, y = x.clone(), apply(method, x)
        assert y.shape == x.shape, f"{case.spec}: shape {tuple(y.shape)} from {where}"
        assert y.dtype == x.dtype, f"{case.spec}: {y.dtype} from {where}"
        formats = [layout for layout in FORMATS if x.is_contiguous(memory_format=layout)]
        assert all(y.is_contiguous(memory_format=layout) for layout in formats), f"{case.spec}: reorders {where}"
        assert y.isfinite().all(), f"{case.spec}: not finite from {where}"
        assert torch.equal(x, kept), f"{case.spec}: overwrites its input, {where}"
        assert torch.equal(apply(method, x), y), f"{case.spec}: two outcomes of one generator state, {where}"


def is_the_identity_in_evaluation(case: Case, size: int) -> None:
    """x itself, not a copy, and without a guide."""
    method = case.build(size).eval()
    for where, x in _inputs(case, size):
        assert method(x) is x, f"{case.spec}: in evaluation not x itself, {where}"


def is_a_mask_and_not_a_map(case: Case, size: int) -> None:
    """The multiplier does not grow with its input. The regularized map would, and would be multiplied once more."""
    method = case.build(size)
    x = torch.randn(8, *case.shape(size))
    assert not grows(lambda given: mask(method, given), x), f"{case.spec}: its multiplier is a map, not a mask"


def rescales_to_mean_one(case: Case, size: int) -> None:
    """The multiplier is float32 under bf16 autocast. Its mean is 1 over its scope wherever anything is left there, and
    something must be left somewhere."""
    method = case.build(size)
    x = torch.randn(64, *case.shape(size))
    with torch.autocast("cpu", torch.bfloat16):
        multiplier = mask(method, x)
    assert multiplier.dtype == torch.float32, f"{case.spec}: the mask is {multiplier.dtype} under autocast"
    scopes = {"map": (2, 3), "image": (1, 2, 3), "batch": (0, 1, 2, 3)}
    if case.mean_one in scopes:
        means = multiplier.expand_as(x).mean(scopes[case.mean_one])
        assert (means > 0).any(), f"{case.spec}: nothing is left of 64 images, so no {case.mean_one} has the mean 1"
        off = (means[means > 0] - 1).abs()
        assert (off < 1e-4).all(), f"{case.spec}: the mean over each {case.mean_one} is off 1 by {off.max():.5f}"
    elif case.mean_one in ("expectation", "passes"):
        if case.mean_one == "passes":
            multiplier = torch.stack([mask(method, x, seed).mean() for seed in range(400)])
        error = multiplier.std() / multiplier.numel() ** 0.5
        mean = multiplier.mean()
        assert (mean - 1).abs() <= 6 * error + 1e-6, f"{case.spec}: the mean is {mean:.4f} +- {error:.4f}, not 1"


def drops_what_it_says(case: Case, size: int) -> None:
    """The measured fraction of zeros, as the method reports it, is the expected one."""
    method = case.build(size)
    images, passes = (1, 500) if case.mean_one == "passes" else (64, 40 if size <= 5 else 4)
    fractions = []
    for seed in range(passes):
        apply(method, torch.randn(images, *case.shape(size)), seed)
        fractions.append(method.dropped.item())
    measured = sum(fractions) / len(fractions)
    drops = case.drops(method) if callable(case.drops) else case.drops
    assert drops is not None, f"{case.spec}: what is it to drop?"
    low, high = drops if isinstance(drops, tuple) else (0.9 * drops, 1.1 * drops)
    expected = f"{low:.5f} .. {high:.5f}"
    assert low - 1e-6 <= measured <= high + 1e-6, (
        f"{case.spec}: drops {measured:.5f} of {size}x{size} maps, expected {expected}"
    )


def chooses_in_float32_under_autocast(case: Case, size: int) -> None:
    """bf16 autocast changes nothing: in its 8 bits of mantissa, ties would decide the choice, and pixels would move."""
    method = case.build(size)
    x = torch.randn(8, *case.shape(size)).to(torch.bfloat16)
    if case.component.place == "image":
        x = x.clamp(0, 1)
    plain = apply(method, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(apply(method, x), plain), f"{case.spec}: autocast changes what is dropped"


def its_gradient_is_the_multiplier(case: Case, size: int) -> None:
    """The gradient reaches x through the product only, and the method's weights in straight-through modes only."""
    method = case.build(size)
    x = torch.randn(8, *case.shape(size), requires_grad=True)
    apply(method, x).sum().backward()
    expected = mask(method, x.detach()).detach().expand_as(x)
    assert x.grad is not None
    assert torch.allclose(x.grad, expected), f"{case.spec}: the gradient at x is not the multiplier"
    for name, weight in method.named_parameters():
        learns = weight.grad is not None and bool(weight.grad.any())
        assert learns == method.differentiable_mask, f"{case.spec}: {name} {'learns' if learns else 'does not learn'}"


def compiles_without_graph_breaks(case: Case, size: int) -> None:
    """With the same outcome as uncompiled."""
    torch.compiler.reset()  # else every case before this one counts towards the limit of recompilations
    method = case.build(size)
    x = torch.randn(4, *case.shape(size))
    expected = apply(method, x)
    compiled = torch.compile(method, fullgraph=True, backend="aot_eager")
    guide = _guide(method, x)
    torch.manual_seed(1)
    assert torch.allclose(compiled(x, guide), expected, atol=1e-6), f"{case.spec}: compiled, it drops otherwise"


def counts_nothing_in_forward(case: Case, size: int) -> None:
    """What it knows of training comes from `begin_step`, and is saved with the weights."""
    method, other = case.build(size), case.build(size)
    method.begin_step(0.25)
    before = _state(method)
    apply(method, torch.randn(2, *case.shape(size)))
    after = _state(method)
    changed = [name for name in before | after if repr(before.get(name)) != repr(after.get(name))]
    assert not changed, f"{case.spec}: forward changes {', '.join(changed)}"
    other.load_state_dict(method.state_dict())
    assert other.progress.item() == 0.25, f"{case.spec}: its progress is not saved"


def _state(method: Regularizer) -> dict[str, object]:
    """All that a method holds, by name: plain values, and tensors as lists, except those about the last pass."""
    reports = {name for name, buffer in method.named_buffers() if buffer.ndim == 0} - set(method.state_dict())
    held = {**dict(method.named_buffers()), **dict(method.named_parameters())}
    state: dict[str, object] = {name: tensor.tolist() for name, tensor in held.items() if name not in reports}
    for path, module in method.named_modules():
        plain = {k: v for k, v in vars(module).items() if isinstance(v, (bool, int, float, str, list, tuple))}
        state |= {f"{path}.{name}".lstrip("."): value for name, value in plain.items()}
    return state


LAWS: dict[Callable[[Case, int], None], tuple[int, ...]] = {
    keeps_shape_dtype_and_format_and_is_finite: SIZES,
    is_the_identity_in_evaluation: SIZES,
    is_a_mask_and_not_a_map: (10,),
    rescales_to_mean_one: SIZES,
    drops_what_it_says: SIZES,
    chooses_in_float32_under_autocast: (10, 42),
    its_gradient_is_the_multiplier: (10,),
    compiles_without_graph_breaks: (10,),
    counts_nothing_in_forward: (10,),
}
WITHOUT_A_MASK = (
    keeps_shape_dtype_and_format_and_is_finite, is_the_identity_in_evaluation, chooses_in_float32_under_autocast,
    counts_nothing_in_forward,
)  # fmt: skip
TABLE = [(law, size) for law, sizes in LAWS.items() for size in sizes]
