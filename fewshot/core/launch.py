"""A command in several processes of this machine, by torch's own launcher, which torchrun uses."""

from __future__ import annotations

import logging
import os
import signal
import sys

from fewshot.core.errors import INTERRUPTED
from fewshot.core.process import STOPS, processors


def launch(module: str, argv: list[str], processes: int) -> int:
    """Run `python -m MODULE ARGV` in this many processes, and return their exit status.

    A failure is reported only by the process that fails, in its own words. Unless OMP_NUM_THREADS is set, the processes
    share the processors evenly.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, processors() // processes)))

    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    before = {number: signal.getsignal(number) for number in map(signal.Signals, STOPS)}
    heard = [number.name for number, handler in before.items() if handler != signal.SIG_IGN]
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id="fewshot", rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", local_addr="127.0.0.1", max_restarts=0, signals_to_handle=",".join(heard),
    )  # fmt: skip
    logging.disable()  # of the launcher, in this process, which does nothing else meanwhile
    try:
        elastic_launch(config, sys.executable)("-u", "-m", module, *argv)
    except ChildFailedError as error:
        return max(1, error.get_first_failure()[1].exitcode)  # negative: a signal's
    except (SignalException, KeyboardInterrupt):
        return INTERRUPTED
    finally:
        logging.disable(logging.NOTSET)
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0
