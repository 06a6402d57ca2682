"""Several processes that train one model together: which of them this one is, and all that they tell each other.

torch.distributed is used here and nowhere else. Small things go by gloo, whatever the device, so that nobody waits for
a device; gradients and embeddings on CUDA go by nccl. A process that is alone pays for none of it. Every method that
says "together" must be called by all processes of a crew, in the same order.
"""

from __future__ import annotations

import os
import pickle
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from fewshot.core.errors import FAILED, INTERRUPTED, USER_ERROR, USERS_TO_MEND, UserError
from fewshot.core.process import STOPS
from fewshot.core.pulse import Pulse

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # as torchrun sets it
_PATIENCE = timedelta(hours=6)  # with one that is alive: it may solve many tasks, or write to a slow disk
_JOINING = timedelta(minutes=5)
_ANSWER = 5.0  # seconds that a process about to end waits for the store
_LINGER = 2.0  # seconds that a failed process keeps the store, if it hosts it, for the others to ask

Value = TypeVar("Value")


class Lost(Exception):
    """Another process has ended, or cannot be reached."""


class Crew:
    """One of `size` processes, the `rank`-th from 0, and on its machine the `local_rank`-th."""

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self._store: Any = None
        self._pulse: Pulse | None = None
        self.devices: Any = None
        """torch's group of the CUDA devices, if they are used."""

    @classmethod
    def of_environment(cls) -> Crew:
        """As torchrun's environment variables say; alone if torchrun did not start this process."""
        if not all(name in os.environ for name in ENVIRONMENT):
            return ALONE
        try:
            rank, size, local_rank, *_ = (int(os.environ[name]) for name in ENVIRONMENT if name != "MASTER_ADDR")
        except ValueError:
            raise UserError(f"{', '.join(ENVIRONMENT)} are not as torchrun sets them: unset them, or use it") from None
        return cls(rank, size, local_rank) if size > 1 else ALONE

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    def share(self, count: int) -> slice:
        """Which of `count` things are this process's: consecutive ones; the first processes get one more."""
        each, more = divmod(count, self.size)
        start = self.rank * each + min(self.rank, more)
        return slice(start, start + each + (self.rank < more))

    def weight(self, count: int) -> float:
        """Which fraction of `count` things that is."""
        mine = self.share(count)
        return (mine.stop - mine.start) / count

    def purpose(self, what: str) -> str:
        """The purpose of random numbers that each process draws for itself; the first draws those of one alone."""
        return what if self.first else f"{what} of process {self.rank}"

    # ---- coming and going

    def join(self) -> None:
        """Meet the others, together. Raises Lost if they do not come."""
        if not self.several or self._store is not None:
            return
        import torch.distributed as dist

        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")

        def store(master: bool = False) -> Any:
            made = dist.TCPStore(address, port, None, master, _JOINING, wait_for_workers=False)
            return dist.PrefixStore(f"fewshot/{restarts}", made)

        with _reaching():
            self._store = store(self._hosts)
            self._store.set(f"here/{self.rank}", "")
            self._store.wait([f"here/{rank}" for rank in range(self.size)], _JOINING)
            dist.init_process_group("gloo", store=self._store, rank=self.rank, world_size=self.size, timeout=_PATIENCE)
            self._pulse = Pulse(store(), self.rank, self.size, self._fallen_silent)

    @property
    def _hosts(self) -> bool:
        """Whether the store is in this process: torchrun keeps it in its own process."""
        return self.first and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"

    def leave(self) -> None:
        """All is done, together: the first process may still be at work."""
        if self._store is not None:
            import torch.distributed as dist

            self.most(0)
            if self._pulse:
                self._pulse.leave()
            dist.destroy_process_group()
            self._store = None

    def end_for(self, error: BaseException) -> None:
        """End this process in silence; but if it is the first that fails, return, so that it raises the error.

        The error says why. The others end because of it, and with its status.
        """
        if threading.current_thread() is threading.main_thread():
            for number in STOPS:  # if one has ended, torchrun stops the others: they are about to end
                signal.signal(number, signal.SIG_IGN)
        speaks, status = self._first_to_end(_status(error))
        if self._pulse:
            self._pulse.stop()
        if self._hosts and self._store is not None:
            time.sleep(_LINGER)
        if self.devices is not None:
            with suppress(Exception):  # torch warns about a group that is left open, and leaving it would wait
                self.devices.abort()
        if speaks and not isinstance(error, Lost):
            return
        if speaks:
            print(
                f"error: one of the {self.size} processes has ended, and the others with it ({error}); go on from the"
                " last checkpoint by --resume",
                file=sys.stderr,
            )
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # without leaving the group: one that has lost a process may wait for it

    def _first_to_end(self, status: int) -> tuple[bool, int]:
        """Whether no other process has failed before, and the status of the first that failed."""
        if self._store is None:  # not joined: all are to fail alike
            return self.first, status
        told: list[str] = []

        def ask() -> None:
            with suppress(RuntimeError):  # the store has ended with its process
                told.extend(self._store.compare_set("ended", "", f"{self.rank} {status}").decode().split())

        asking = threading.Thread(target=ask, daemon=True)  # a store whose machine is gone may never answer
        asking.start()
        asking.join(_ANSWER)
        return (told[0] == str(self.rank), int(told[1])) if told else (True, status)

    def _fallen_silent(self, rank: int, seconds: float) -> None:
        """End this process: another gives no sign of life."""
        speaks, status = self._first_to_end(FAILED)
        if speaks:
            print(
                f"error: process {rank} of {self.size} has given no sign of life for {seconds:.0f} seconds: is its"
                " machine gone? Go on from the last checkpoint by --resume",
                file=sys.stderr,
                flush=True,
            )
        os._exit(status)

    # ---- what is done together

    def most(self, value: int) -> int:
        """The largest of the processes' values, together."""
        if not self.several:
            return value
        import torch
        import torch.distributed as dist

        values = torch.tensor(value)
        with _reaching():
            dist.all_reduce(values, dist.ReduceOp.MAX)
        return int(values)

    def any(self, flag: bool) -> bool:
        """Whether it holds for any of the processes, together."""
        return bool(self.most(flag)) if self.several else flag

    def tell(self, find: Callable[[], Value]) -> Value:
        """What the first process finds, together. The others call nothing."""
        if not self.several:
            return find()
        import torch
        import torch.distributed as dist

        data = pickle.dumps(find()) if self.first else b""
        length = self.most(len(data))
        buffer = torch.empty(length, dtype=torch.uint8)
        if self.first:
            buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        with _reaching():
            dist.broadcast(buffer, 0)
        return pickle.loads(buffer.numpy().tobytes())

    def check_alike(self, facts: dict[str, Any]) -> None:
        """Raises UserError if one of these facts differs between this process and the first, together."""
        for name, value in self.tell(lambda: facts).items():
            if facts[name] != value:
                raise UserError(
                    f"process {self.rank} of {self.size} has {name} {facts[name]}, and the first {value}: they must"
                    " have the same"
                )

    def add_up(self, tensors: Sequence[Tensor], weight: float = 1.0, dtype: torch.dtype | None = None) -> None:
        """Each tensor becomes the processes' sum of weight * tensor, together, in one flat buffer of `dtype`."""
        if not self.several or not tensors:
            return
        import torch
        import torch.distributed as dist

        with torch.no_grad():
            flat = torch.cat([each.reshape(-1).to(dtype or each.dtype) for each in tensors])
            if weight != 1.0:
                flat *= weight
            with _reaching():
                dist.all_reduce(flat, group=self._group(flat))
            for each, part in zip(tensors, flat.split([each.numel() for each in tensors]), strict=True):
                each.copy_(part.view_as(each))

    def unite(self, model: nn.Module, weight: float) -> None:
        """Gradients become their sum over the processes, buffers their mean by `weight`: all models are the same again.

        Together. Gradients are already of the loss times `weight`. Buffers, such as the running statistics of batch
        norm, are averaged in float64, so that equal ones stay the same, to the bit.
        """
        if self.several:
            import torch

            self.add_up([each.grad for each in model.parameters() if each.grad is not None])
            moving = [each for each in model.buffers() if each.is_floating_point() and each.dtype != torch.float64]
            self.add_up(moving, weight, torch.float64)

    def complete(self, rows: Tensor, mine: Callable[[Crew], slice]) -> Tensor:
        """Complete rows of which each process has made its own slice, `mine(crew)`: together, in place."""
        import torch.distributed as dist

        for rank in range(self.size if self.several else 0):
            part = rows[mine(Crew(rank, self.size))]
            if len(part):
                with _reaching():
                    dist.broadcast(part, rank, group=self._group(rows))
        return rows

    def use(self, device: torch.device) -> None:
        """Compute on this device, together: a CUDA device is this process's own."""
        if self.several and device.type == "cuda" and self.devices is None:
            import torch
            import torch.distributed as dist

            torch.cuda.set_device(device)
            with _reaching():
                self.devices = dist.new_group(backend="nccl", timeout=_PATIENCE, device_id=device)

    def _group(self, tensor: Tensor) -> Any:
        """The group by which a tensor goes; None: the default, gloo."""
        return self.devices if tensor.is_cuda else None


ALONE = Crew()


@contextmanager
def _reaching() -> Iterator[None]:
    """Lost if torch.distributed cannot do its work, which it says by RuntimeErrors."""
    try:
        yield
    except RuntimeError as error:
        reason = re.sub(r"^\[/[^]]*\] ", "", str(error)).splitlines() or [type(error).__name__]  # [its source file]
        raise Lost(reason[0].partition(". ")[0]) from None


@contextmanager
def member() -> Iterator[Crew]:
    """This process's crew, not yet joined. If one process fails within the block, all end, and that one says why."""
    crew = Crew.of_environment()
    try:
        yield crew
        crew.leave()
    except SystemExit:
        raise
    except BaseException as error:
        if crew.several:
            crew.end_for(error)
        raise


def _status(error: BaseException) -> int:
    if isinstance(error, UserError) or (isinstance(error, OSError) and error.errno in USERS_TO_MEND):
        return USER_ERROR
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED
