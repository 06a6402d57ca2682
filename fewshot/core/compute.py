"""Where and how to compute: device, precision, threads, memory."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from fewshot.core.crew import ALONE, Crew
from fewshot.core.errors import UserError

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_ROOM_TO_KEEP_HEAP = 12 * 2**30  # bytes of memory from which holding on to some is harmless
_MOST_THREADS = 4096
_HEAP_SHARE = 0.25  # of the machine's memory
T = TypeVar("T")
_cudnn: Any = torch.backends.cudnn  # torch's stubs know less of it than there is


@dataclass(frozen=True)
class Compute:
    """A device and the precision of the network's products there."""

    device: torch.device
    precision: str
    """"fp32", or "bf16": autocast, with weights, statistics, masks and heads in float32."""
    crew: Crew = ALONE
    """The processes that share the work."""

    def autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")


def choose(device: str = "auto", precision: str = "auto", crew: Crew = ALONE) -> Compute:
    """Resolve the flags; `auto` is the GPU if there is one, and bf16 if it is native.

    Each of several processes on a machine takes the GPU with its own number. Raises UserError for a device that is not
    there.
    """
    chosen = _own_device(device, crew) if crew.several else _device(device)
    if precision == "auto":
        precision = "bf16" if _native_bf16(chosen) else "fp32"
    return Compute(chosen, precision, crew)


def settle(where: Compute, threads: int = 0, deterministic: bool = False, tuned: bool = True) -> None:
    """Make the settings of the whole process that computes there: commands and experiments call it, nothing else does.

    `threads` of the CPU; 0 leaves torch's choice. `deterministic` asks CUDA for kernels that repeat to the bit; those
    of a CPU always do. `tuned`: whether cuDNN may try which of its kernels is fastest; that is not always the same one.
    Raises UserError for a number of threads that cannot be.
    """
    if not 0 <= threads <= _MOST_THREADS:
        raise UserError(f"--threads {threads}: give 0 to {_MOST_THREADS}")
    if threads:
        torch.set_num_threads(threads)
    where.crew.use(where.device)
    if where.device.type == "cuda":
        _ieee()
        torch.backends.cudnn.benchmark = tuned and not deterministic
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS's condition for repeating
        torch.use_deterministic_algorithms(deterministic, warn_only=True)


@contextmanager
def trusting_pools(windows_meet: bool) -> Iterator[None]:
    """Deterministic training without torch's warning about max pools on CUDA, unless their windows meet.

    If they do not, as in pools of 2x2 with stride 2, no position gets two gradients, whose sum depends on the order.
    """
    with warnings.catch_warnings():
        if not windows_meet:
            warnings.filterwarnings("ignore", "max_pool2d_with_indices_backward_cuda")
        yield


@contextmanager
def full_fp32() -> Iterator[None]:
    """For a while, convolutions and products in fp32 really are in fp32, whatever the process has chosen."""
    legacy, products = _read(lambda: _cudnn.allow_tf32), _read(torch.get_float32_matmul_precision)
    before = _cudnn.conv.fp32_precision, _cudnn.rnn.fp32_precision
    _ieee()
    if products:
        torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        if products:
            torch.set_float32_matmul_precision(products)
        if legacy is not None:
            _cudnn.allow_tf32 = legacy
        _cudnn.conv.fp32_precision, _cudnn.rnn.fp32_precision = before


def _ieee() -> None:
    """Make fp32 mean fp32 in convolutions: cuDNN's own choice is TF32. torch's two ways of setting this must agree."""
    _cudnn.allow_tf32 = False
    _cudnn.conv.fp32_precision = _cudnn.rnn.fp32_precision = "ieee"


def _read(setting: Callable[[], T]) -> T | None:
    """One of torch's older settings; None if newer ones contradict it, so that torch raises."""
    try:
        return setting()
    except RuntimeError:
        return None


def _device(name: str) -> torch.device:
    if name == "auto":
        return _numbered(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name} is unknown; give auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name} is not supported; give auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(f"--device {name}: this machine shows {count} CUDA devices; use --device cpu")
    return _numbered(device)


def _own_device(name: str, crew: Crew) -> torch.device:
    """The device of one of several processes."""
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {name}: of several processes each takes a device of its own; give cuda, or cpu")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if crew.local_rank >= (count := torch.cuda.device_count()):
        raise UserError(
            f"process {crew.local_rank + 1} of this machine finds no CUDA device of its own, and sees {count}: start as"
            " many processes as there are devices, or give --device cpu"
        )
    return torch.device("cuda", crew.local_rank)


def _numbered(device: torch.device) -> torch.device:
    """With its index: a tensor on "cuda" says "cuda:0", and the two do not compare equal."""
    return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device


def _native_bf16(device: torch.device) -> bool:
    """Whether the hardware does bf16 products: emulated, they cost several times as much as in fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)


def _libc() -> ctypes.CDLL | None:
    """glibc, if it is there, and there is enough memory to hold on to some."""
    if not sys.platform.startswith("linux") or _memory() < _ROOM_TO_KEEP_HEAP:
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None


@functools.cache
def _memory() -> int:
    """Bytes that this process may use: the machine's, or its container's if that is less."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            memory = min(memory, int(Path(limit).read_text()))
        except (OSError, ValueError):  # no container, or one with the limit "max"
            continue
    return memory


def keep_heap() -> None:
    """Let glibc reuse freed blocks instead of giving each back to the kernel (Linux, CPU).

    Otherwise, every large activation is mapped and zeroed afresh, page by page, at every step, which
    costs a third of the step. Elsewhere, or with little memory, nothing is done. It holds for the whole
    process, so the training loop and the commands call it, but nothing that a user imports does.
    """
    if libc := _libc():
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)  # never


def tidy_heap() -> None:
    """Give the heap back if it has outgrown its share of memory: call it between steps.

    A heap that never shrinks becomes fragmented, and grows to several times what a step needs.
    """
    if libc := _libc():
        with open("/proc/self/statm", encoding="ascii") as file:
            _, resident, shared, *_ = map(int, file.read().split())
        if (resident - shared) * os.sysconf("SC_PAGE_SIZE") > _HEAP_SHARE * _memory():
            libc.malloc_trim(0)


@contextmanager
def room_for(remedy: str) -> Iterator[None]:
    """Raises UserError with the remedy if a device's or the machine's memory does not suffice."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _no_room(error, remedy) from None
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # torch's own allocator on a CPU
            raise
        raise _no_room(error, remedy) from None


def _no_room(error: Exception, remedy: str) -> UserError:
    said = re.sub(r"^\[enforce fail.*?DefaultCPUAllocator: ", "", str(error))
    what = said.partition(". ")[0] or "out of memory"
    return UserError(f"there is not enough memory ({what}): try {remedy}, or --precision bf16 where that is native")


def more_room(device: torch.device) -> str:
    """A remedy for `room_for` where nothing can be made smaller: a device with more memory."""
    return "a machine with more memory" if device.type == "cpu" else "--device cpu"


def check_compiler() -> None:
    """Raises UserError if torch.compile would not find the compiler that builds its kernels."""
    compiler = os.environ.get("CXX", "").strip() or {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
    if shutil.which(compiler.split()[0]) is None:
        missing = f"--compile needs a C++ compiler, and there is no {compiler}"
        raise UserError(f"{missing}: install it, or leave --compile out")


def near(values: np.ndarray, device: torch.device) -> Tensor:
    """An array as a tensor on the device, without waiting for it."""
    here = torch.from_numpy(values)
    return here if device.type == "cpu" else here.pin_memory().to(device, non_blocking=True)


def describe(device: torch.device) -> str:
    """The processor's name, for the record."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"CPU {model} ({os.cpu_count()} cores)"
