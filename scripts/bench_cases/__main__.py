"""What scripts/bench.py measures, each in a process of its own: python scripts/bench_cases NAME CONFIG STEPS

A case is a function (config, steps) -> figures, marked by `@case`. It does its work `steps` times after a
warm-up, or raises Declined.
"""

from __future__ import annotations

import json
import sys

import cost  # noqa: F401  each import adds its cases to the registry
import evaluation  # noqa: F401
import torch
import training  # noqa: F401
from common import CASES, Declined

from fewshot import config as configs
from fewshot.config import TrainConfig
from fewshot.core import console


def main(argv: list[str] | None = None) -> None:
    """Prints the figures as one line of JSON, its last."""
    name, values, steps = argv or sys.argv[1:]
    config = TrainConfig(**configs.from_json(json.loads(values), "the settings"))
    try:
        figures = CASES[name](config, int(steps))
    except Declined as reason:
        figures = {"declined": str(reason)}
    if torch.cuda.is_initialized():
        figures["device_bytes"] = max(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count())))
    print(json.dumps(figures | {"torch": torch.__version__}))


if __name__ == "__main__":
    raise SystemExit(console.run(main, sys.argv[1:]))
