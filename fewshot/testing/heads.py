"""The table of laws: what every head obeys, and whether what it declares is true. For ours, and for yours.

    from fewshot.testing import check_head

    def test_my_head():
        check_head("my_pkg.my_module.MyHead:temperature=0.1")

Shapes: T tasks, N support and Q query images a task, W ways (classes), D features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot import heads
from fewshot.core.alone import TOLERANCE
from fewshot.heads import Head, Products

TASKS, QUERIES = 3, 4  # query images a class


@dataclass(frozen=True)
class Size:
    """The form of the tasks that a law is tried on."""

    ways: int
    shots: int
    features: int
    side: int = 1
    """Of the map that was flattened into an embedding."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of that map."""
        return self.features // self.side**2, self.side, self.side

    def __str__(self) -> str:
        return f"{self.ways}-way {self.shots}-shot tasks of {self.features} features"


LONG, WIDE = Size(5, 1, 64, side=4), Size(5, 5, 64, side=4)
TALL, LEAST = Size(4, 5, 7), Size(2, 1, 1)  # fewer features than support images
SIZES = (LONG, WIDE, TALL, LEAST)


@dataclass(frozen=True)
class Episodes:
    """T tasks whose classes overlap. Support images are in random order, a different one in each task."""

    support: Tensor
    """(T, N, D)"""
    labels: Tensor
    """(T, N)"""
    query: Tensor
    """(T, Q, D)"""
    ways: int

    def solve(self, head: Head) -> Tensor:
        """Logits (T, Q, W)."""
        return head(self.support, self.labels, self.query, self.ways)

    def task(self, number: int) -> Episodes:
        """One of the tasks, T = 1."""
        own = slice(number, number + 1)
        return replace(self, support=self.support[own], labels=self.labels[own], query=self.query[own])

    def to(self, dtype: torch.dtype) -> Episodes:
        """With embeddings of another type."""
        return replace(self, support=self.support.to(dtype), query=self.query.to(dtype))


def check_head(spec: str) -> None:
    """Hold a head, written as on the command line, to every law and to its own declarations.

    Takes a second. Raises AssertionError that names the broken law, and where; UserError if the head cannot be built.
    """
    for law, size in TABLE:
        law(spec, size)


def build(spec: str, size: Size, seed: int = 0) -> Head:
    """The head in evaluation mode, initialised by `seed`, and fitted on random base classes if it needs them."""
    torch.manual_seed(seed)
    head = heads.build(spec, size.features, size.shape).eval()
    if head.needs_base:
        head.fit_base(*_base(size))
    return head


def _base(size: Size, seed: int = 3) -> tuple[Tensor, Tensor]:
    """Features (40, D) and labels (40,) of base classes."""
    return torch.randn(40, size.features, generator=torch.Generator().manual_seed(seed)), torch.arange(8).repeat(5)


def episodes(size: Size, seed: int = 1) -> Episodes:
    """Tasks of normal noise around class centres."""
    noise = torch.Generator().manual_seed(seed)
    centres = torch.randn(TASKS, size.ways, size.features, generator=noise)
    order = torch.rand(TASKS, size.ways * size.shots, generator=noise).argsort(1)
    labels = torch.arange(size.ways).repeat(size.shots)[order]
    truth = torch.arange(size.ways).repeat(QUERIES).expand(TASKS, -1)
    support, query = (centres.gather(1, own[..., None].expand(-1, -1, size.features)) for own in (labels, truth))
    support, query = (part + torch.randn(part.shape, generator=noise) for part in (support, query))
    return Episodes(support, labels, query, size.ways)


def _same(one: Tensor, other: Tensor, tolerance: float = TOLERANCE) -> bool:
    """Equal up to rounding."""
    return torch.allclose(one, other, rtol=0, atol=tolerance * max(other.abs().max().item(), 1e-6))


def gives_finite_float32_logits(spec: str, size: Size) -> None:
    """Of the right shape, also for embeddings that are all alike or zero; and its input stays unchanged."""
    head, noise = build(spec, size), episodes(size)
    for name, factor, offset in (("random", 1.0, 0.0), ("constant", 0.0, 0.7), ("zero", 0.0, 0.0)):
        given = replace(noise, support=noise.support * factor + offset, query=noise.query * factor + offset)
        where, kept = f"{name} embeddings in {size}", (given.support.clone(), given.query.clone())
        logits = given.solve(head)
        shape = (TASKS, given.query.shape[1], size.ways)
        assert logits.shape == shape, f"{spec}: logits of shape {tuple(logits.shape)}, not {shape}, from {where}"
        assert logits.dtype == torch.float32, f"{spec}: logits are {logits.dtype} from {where}"
        assert logits.isfinite().all(), f"{spec}: logits are not finite from {where}"
        unchanged = torch.equal(given.support, kept[0]) and torch.equal(given.query, kept[1])
        assert unchanged, f"{spec}: overwrites its input, {where}"


def is_deterministic(spec: str, size: Size) -> None:
    """Neither random numbers nor the tasks solved before change a bit."""
    head, given = build(spec, size), episodes(size)
    logits = given.solve(head)
    torch.manual_seed(7)
    episodes(size, seed=2).solve(head)
    assert torch.equal(given.solve(head), logits), f"{spec}: the same tasks get other logits the second time, {size}"


def permuting_classes_permutes_logits(spec: str, size: Size) -> None:
    """Which number a class has makes no difference, unless the head is `numbered`."""
    head, given = build(spec, size), episodes(size)
    order = torch.arange(size.ways).roll(1)
    renamed = replace(given, labels=order[given.labels])
    same = _same(renamed.solve(head)[..., order], given.solve(head))
    if head.numbered:
        assert not same, f"{spec}: declares numbered, and the classes' numbers make no difference, {size}"
    else:
        assert same, f"{spec}: the classes' numbers matter, {size}"


def the_order_of_support_images_does_not_matter(spec: str, size: Size) -> None:
    """Support images are a set."""
    head, given = build(spec, size), episodes(size)
    order = torch.randperm(given.labels.shape[1], generator=torch.Generator().manual_seed(0))
    shuffled = replace(given, support=given.support[:, order], labels=given.labels[:, order])
    assert _same(shuffled.solve(head), given.solve(head)), f"{spec}: the order of support images matters, {size}"


def permuting_queries_permutes_logits(spec: str, size: Size) -> None:
    """The place of a query tells nothing, not even to a transductive head."""
    head, given = build(spec, size), episodes(size)
    order = torch.randperm(given.query.shape[1], generator=torch.Generator().manual_seed(0))
    shuffled = replace(given, query=given.query[:, order])
    assert _same(shuffled.solve(head), given.solve(head)[:, order]), f"{spec}: the order of queries matters, {size}"


def each_task_is_solved_by_itself(spec: str, size: Size) -> None:
    """How many tasks are solved at once makes no difference."""
    head, given = build(spec, size), episodes(size)
    alone = [given.task(number).solve(head) for number in range(TASKS)]
    assert _same(torch.cat(alone), given.solve(head)), f"{spec}: the tasks of a batch see each other, {size}"


def each_query_is_solved_by_itself(spec: str, size: Size) -> None:
    """The other queries of the task make no difference, unless the head is transductive."""
    head, given = build(spec, size), episodes(size)
    logits = given.solve(head)
    for some in (slice(0, 1), slice(1, None, 2)):
        fewer = replace(given, query=given.query[:, some]).solve(head)
        same = _same(fewer, logits[:, some])
        if not head.transductive:
            assert same, (
                f"{spec}: the other queries of a task change a query's logits, {size}: declare transductive = True"
            )
        elif size == LONG:  # on easier tasks, the others may change next to nothing
            assert not same, f"{spec}: declares transductive, and other queries change no logits, {size}"


def solves_without_gradients_from_outside(spec: str, size: Size) -> None:
    """Evaluation turns gradients off: a head that needs some inside computes them under torch.enable_grad()."""
    head, given = build(spec, size), episodes(size)
    expected = given.solve(head)
    with torch.no_grad():
        logits = given.solve(head)
    assert torch.equal(logits, expected), f"{spec}: torch.no_grad() changes the logits, {size}"


def solves_in_float32_under_autocast(spec: str, size: Size) -> None:
    """bf16 autocast changes nothing, though the network's embeddings are then bf16."""
    head, given = build(spec, size), episodes(size).to(torch.bfloat16)
    expected = given.solve(head)
    with torch.autocast("cpu", torch.bfloat16):
        logits = given.solve(head)
    assert logits.dtype == torch.float32, f"{spec}: logits are {logits.dtype} under autocast"
    assert torch.equal(logits, expected), f"{spec}: autocast changes the logits, {size}"


def solves_in_float64(spec: str, size: Size) -> None:
    """Embeddings and head in float64 give the logits of float32, with more digits."""
    head, given = build(spec, size), episodes(size)
    expected = given.solve(head)
    logits = given.to(torch.float64).solve(head.double())
    assert logits.dtype == torch.float64, f"{spec}: gives logits of {logits.dtype} from float64"
    assert _same(logits.float(), expected), f"{spec}: float32 and float64 give other logits, {size}"


def weights_hold_all_that_it_has_learned(spec: str, size: Size) -> None:
    """A run keeps the head's state_dict alone: another head that loads it solves the same tasks to the same bits."""
    head, given = build(spec, size), episodes(size)
    other = build(spec, size, seed=5)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    other.load_state_dict(head.state_dict())
    assert torch.equal(given.solve(other), given.solve(head)), f"{spec}: its state_dict lacks what it has drawn, {size}"


def its_gradients_reach_everything(spec: str, size: Size) -> None:
    """If it is trainable: support and query embeddings, and all its parameters, which are perturbed first.

    If it declares first_order, they do not reach the support embeddings.
    """
    head, given = build(spec, size).train(), episodes(size)
    if not head.trainable:
        return
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter) * parameter.abs().clamp_min(0.1))
    support, query = given.support.requires_grad_(), given.query.requires_grad_()
    logits = given.solve(head)
    assert logits.requires_grad, f"{spec}: declares trainable, and its logits have no gradient"
    (logits * torch.randn_like(logits)).sum().backward()
    for name, leaf in {"support": support, "query": query, **dict(head.named_parameters())}.items():
        reached = leaf.grad is not None and leaf.grad.isfinite().all() and bool(leaf.grad.any())
        if leaf is support and head.first_order:
            assert not reached, f"{spec}: declares first_order, and there is a gradient at support, {size}"
            continue
        assert reached, f"{spec}: declares trainable, and the gradient at {name} is missing, zero or not finite, {size}"


def products_give_the_logits_of_embeddings(spec: str, size: Size) -> None:
    """If it declares by_products: in float32, and in float64, which evaluation uses for what float32 cannot solve."""
    head, given = build(spec, size), episodes(size)
    if not head.by_products:
        return
    for dtype, tolerance in ((torch.float32, TOLERANCE), (torch.float64, 1e-7)):
        head, given = head.to(dtype), given.to(dtype)
        logits = given.solve(head)
        targets = F.one_hot(given.labels, size.ways).to(dtype)
        products = head.solve_products(Products.of(given.support, given.query), targets)
        assert logits.dtype == products.dtype == dtype, (
            f"{spec}: declares by_products, and gives logits of {logits.dtype} and {products.dtype} from {dtype}"
        )
        assert _same(products, logits, tolerance), f"{spec}: products and embeddings give other logits, {dtype}, {size}"


def its_parts_give_the_logits_of_the_whole(spec: str, size: Size) -> None:
    """If it has `split`: evaluation solves by its parts."""
    head, given = build(spec, size), episodes(size)
    if (parts := head.split()) is None:
        return
    each, solver = parts
    mapped = replace(given, support=each(given.support), query=each(given.query))
    assert _same(mapped.solve(solver), given.solve(head)), f"{spec}: its parts give other logits than the whole, {size}"


def a_common_shift_changes_nothing(spec: str, size: Size) -> None:
    """If it declares shift_invariant."""
    head, given = build(spec, size), episodes(size)
    if not head.shift_invariant:
        return
    shift = 3 * torch.randn(size.features, generator=torch.Generator().manual_seed(0))
    moved = replace(given, support=given.support + shift, query=given.query + shift)
    assert _same(moved.solve(head), given.solve(head)), f"{spec}: declares shift_invariant, and is not, {size}"


def class_weights_point_towards_their_classes(spec: str, size: Size) -> None:
    """If it implements `fit`: moving a query along a class's weights raises that class's logit the most."""
    head, given = build(spec, size), episodes(size)
    if type(head).fit is Head.fit:
        return
    weights = head.class_weights(given.support, given.labels, size.ways)
    shape = (TASKS, size.ways, size.features)
    assert weights.shape == shape, f"{spec}: class weights of shape {tuple(weights.shape)}, not {shape}"
    assert weights.isfinite().all() and not weights.requires_grad, f"{spec}: class weights must be finite and detached"
    middle = given.support.mean(1, keepdim=True)
    towards = F.normalize(weights - weights.mean(1, keepdim=True), dim=2)  # (T, W, D)
    step = 0.1 * given.support.norm(dim=2).mean()
    logits = replace(given, query=torch.cat([middle, middle + step * towards], 1)).solve(head)
    gains = logits[:, 1:] - logits[:, :1]  # (T, W moves, W classes)
    assert (gains.argmax(2) == torch.arange(size.ways)).all(), f"{spec}: class weights are not in the logits' order"


def fitting_base_again_forgets(spec: str, size: Size) -> None:
    """If it declares needs_base: nothing of one evaluation's base classes is left in the next evaluation."""
    head, given = build(spec, size), episodes(size)
    if not head.needs_base:
        return
    expected = given.solve(head)
    head.fit_base(*_base(size, seed=4))
    head.fit_base(*_base(size))
    assert _same(given.solve(head), expected), f"{spec}: fit_base remembers what it was fitted on before, {size}"


LAWS: dict[Callable[[str, Size], None], tuple[Size, ...]] = {
    gives_finite_float32_logits: SIZES,
    is_deterministic: (WIDE,),
    permuting_classes_permutes_logits: SIZES,
    the_order_of_support_images_does_not_matter: SIZES,
    permuting_queries_permutes_logits: SIZES,
    each_task_is_solved_by_itself: SIZES,
    each_query_is_solved_by_itself: SIZES,
    solves_without_gradients_from_outside: (WIDE,),
    solves_in_float32_under_autocast: (WIDE, TALL),
    solves_in_float64: (WIDE, TALL),
    weights_hold_all_that_it_has_learned: (WIDE,),
    its_gradients_reach_everything: (WIDE, TALL),
    products_give_the_logits_of_embeddings: (LONG, WIDE),  # evaluation uses products only if there are enough features
    its_parts_give_the_logits_of_the_whole: (LONG, WIDE),
    a_common_shift_changes_nothing: SIZES,
    class_weights_point_towards_their_classes: (WIDE,),
    fitting_base_again_forgets: (WIDE,),
}
TABLE = [(law, size) for law, sizes in LAWS.items() for size in sizes]
