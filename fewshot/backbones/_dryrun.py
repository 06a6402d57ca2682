"""One image through a network without a description: what its modules return, and how often."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fewshot.core.errors import UserError
from fewshot.core.modes import evaluating

DOUBLINGS = 4  # of the image's side, in the search for the smallest size that a network takes


class DryRun:
    """What a network in evaluation mode does with one image of noise.

    It leaves no trace: batch-norm statistics, each module's mode and torch's random state do not change.
    """

    outputs: dict[str, list[object]]
    """By module name: what it returned, call by call."""
    ended: list[str]
    """The modules' names in the order in which their calls ended."""
    embedding: object
    """What the network returned."""
    windows_meet: bool
    """Whether the windows of a max pool overlap, as those of 3x3 with stride 2 do."""

    def __init__(self, run: Callable[[Tensor], object], modules: Mapping[str, nn.Module], image_size: int) -> None:
        self.outputs = {name: [] for name in modules}
        self.ended = []
        image = torch.randn(1, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
        hooks = [module.register_forward_hook(self._catch(name)) for name, module in modules.items()]
        try:
            self.embedding = run(image)
        finally:
            for hook in hooks:
                hook.remove()

    def _catch(self, name: str) -> Callable[[nn.Module, object, object], None]:
        def catch(_module: nn.Module, _inputs: object, output: object) -> None:
            # A copy: the next layer may work in place.
            self.outputs[name].append(output.clone() if isinstance(output, Tensor) else output)
            self.ended.append(name)

        return catch

    def map_of(self, name: str, where: str) -> Tensor:
        """The module's one map (1, C, H, W). Raises UserError, starting with `where`, if it returned none or more."""
        found = self.outputs[name]
        if len(found) != 1:
            times = f"{len(found)} times" if found else "not at all"
            raise UserError(f"{where}: {name!r} is called {times} in a pass; take a module that is called once")
        (output,) = found
        if not _is_map(output):
            what = f"a tensor {_shape(output)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise UserError(f"{where}: {name!r} gives no map (N, C, H, W) but {what}; show sites lists what does")
        assert isinstance(output, Tensor)
        return output

    def gives_map(self, name: str) -> bool:
        """Whether the module was called once, and returned a map (N, C, H, W)."""
        found = self.outputs[name]
        return len(found) == 1 and _is_map(found[0])


def _is_map(output: object) -> bool:
    """Whether it has the form (N, C, H, W). Maps are square, as images are: that tells it from (N, H, W, C)."""
    if not (isinstance(output, Tensor) and output.ndim == 4):
        return False
    _, first, second, third = output.shape
    return second == third or first != second


def _shape(output: Tensor) -> str:
    return "(" + ", ".join(["N", *map(str, output.shape[1:])]) + ")"


@torch.no_grad()
def dry_run(
    network: nn.Module,
    run: Callable[[Tensor], object],
    modules: Mapping[str, nn.Module],
    image_size: int,
    replaced: str = "",
) -> DryRun:
    """`run` one image (1, 3, S, S) through `network`, and watch some of its modules.

    `replaced`: one of `modules`. Its output is replaced by noise of its shape and signs, and all weights after it by
    others. This shows what the network makes of that output, however faint the output was, and whatever is still to be
    learned: batch norm that has learned nothing is nearly the identity.

    Raises UserError if larger images pass, but not these; any other error of the network is passed on.
    """
    with evaluating(network), torch.random.fork_rng(devices=[]), _Thin() as thin, _one_thread(), ExitStack() as hooked:
        if replaced:

            def replace(_module: nn.Module, _inputs: object, output: object) -> object:
                thin.shake(network)
                return _noise(output) if isinstance(output, Tensor) else output

            hooked.callback(modules[replaced].register_forward_hook(replace).remove)
        try:
            seen = DryRun(run, modules, image_size)
            seen.windows_meet = thin.windows_meet
            return seen
        except RuntimeError:
            least = _least(run, image_size)
            if least is None:
                raise
    raise UserError(f"images of {image_size} px are too small for this network; give {least} or more")


def _noise(like: Tensor) -> Tensor:
    """Noise of a tensor's shape: positive, unless the tensor has negative entries."""
    drawn = torch.rand(like.shape, generator=torch.Generator().manual_seed(1)) + 0.1
    return (drawn - 0.6 if bool((like < 0).any()) else drawn).to(like)


class _Thin(TorchFunctionMode):
    """Convolutions that compute one channel and scale it for the others: shapes are right, and cost next to nothing.

    A pass through the whole network would take as long as drawing its weights. (The meta device would cost a second of
    imports.) It also notes what max pools do.
    """

    windows_meet = False
    """Whether a max pool looks at a position more than once."""
    _shaken: Container[int] = ()

    def shake(self, network: nn.Module) -> None:
        """From now on, functions see other weights; the network's own do not change."""
        held = [*network.parameters(), *network.buffers()]
        self._shaken = {id(weight) for weight in held if weight.is_floating_point()}

    def _other(self, given: object) -> object:
        """Another weight for a weight, positive if that was, as variances are; anything else unchanged."""
        return 1.5 * given + 0.1 if isinstance(given, Tensor) and id(given) in self._shaken else given

    def __torch_function__(self, function, types, args=(), kwargs=None):
        """See torch.overrides: called instead of each of torch's functions."""
        kwargs = kwargs or {}
        if self._shaken:
            args, kwargs = [self._other(each) for each in args], {k: self._other(each) for k, each in kwargs.items()}
        if function in _MAX_POOLS:
            self.windows_meet |= _windows_meet(*args, **kwargs)
        return (_thin_convolution if function is F.conv2d else function)(*args, **kwargs)


_MAX_POOLS = (torch.max_pool2d, F.max_pool2d, F.max_pool2d_with_indices)  # F's are called first where they are used


def _windows_meet(input: Tensor, kernel_size, stride=None, padding=0, dilation=1, *_, **__) -> bool:
    """Whether windows of these sizes overlap. Each size is an integer, or one for each of two directions."""
    kernels, strides, steps = (_pair(each) for each in (kernel_size, stride or kernel_size, dilation))
    return any((kernel - 1) * step >= s for kernel, s, step in zip(kernels, strides, steps, strict=True))


def _pair(value: int | Sequence[int]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else (*value, *value)[:2]


def _thin_convolution(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride=1, padding=0, dilation=1, groups: int = 1
) -> Tensor:
    if input.shape[-3] != weight.shape[1] * groups:  # the network is wrong: let torch say so
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    one = F.conv2d(input[..., :1, :, :], weight[:1, :1], None, stride, padding, dilation)
    # Channels differ, so that those of two maps are not taken for one another.
    return one * torch.linspace(1, 2, len(weight), dtype=one.dtype)[:, None, None]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: work as small as this waits longer for a second thread than it computes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _least(run: Callable[[Tensor], object], too_small: int) -> int | None:
    """The smallest images, in pixels, that pass, if those of `too_small` do not; None if larger ones do not, either."""
    passes = next((large for n in range(DOUBLINGS) if _passes(run, large := too_small * 2 ** (n + 1))), None)
    while passes is not None and passes - too_small > 1:
        middle = (too_small + passes) // 2
        too_small, passes = (too_small, middle) if _passes(run, middle) else (middle, passes)
    return passes


def _passes(run: Callable[[Tensor], object], image_size: int) -> bool:
    try:
        DryRun(run, {}, image_size)
    except RuntimeError:
        return False
    return True
