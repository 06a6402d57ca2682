"""Measure training, what regularizers cost, and evaluation: against their limits, the field's way and learn2learn.

    python scripts/bench.py [--parts training cost evaluation] [--learn2learn PYTHON] [--json FILE]
    python scripts/bench.py --noise     # if there is no copy of mini-ImageNet
    python scripts/bench.py --parts training cost --dataset fashion-mnist --backbone resnet20 --regime supervised

Cases (scripts/bench_cases/) take turns, A B C, A B C, ..., each turn in a process of its own: settings of the
allocator hold for a whole process, and so does peak memory. A ratio is taken within a round, in which both sides met
the same noise; the median over the rounds is reported.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

from bench_turns import Round, check_python, measure, take_turns

from fewshot import recipes
from fewshot.core.console import Parser, run, terminal
from fewshot.core.errors import UserError

PARTS = {  # by part, its cases in the order of their turns
    "training": ("loop", "compiled", "bare", "plain", "learn2learn", "product"),
    "cost": ("cost",),
    "evaluation": ("evaluate_proto", "evaluate_r2d2", "evaluate_learn2learn"),
}


def parser() -> Parser:
    parser = Parser(prog="scripts.bench", description=__doc__.splitlines()[0])
    root = os.environ.get("FEWSHOT_DATA") or "data"
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS, help="what to measure")
    parser.add_argument("--data-root", default=root, metavar="FOLDER", help="folder of prepared data sets")
    parser.add_argument("--dataset", default="mini-imagenet", metavar="NAME", help="its images are used")
    parser.add_argument("--noise", action="store_true", help="random pixels in place of mini-ImageNet's: as fast")
    parser.add_argument("--backbone", nargs="+", default=["conv4"], metavar="NAME", help="one or more networks")
    parser.add_argument("--regime", default="episodic", help="how to train: episodic, or supervised:batch=128")
    for name, value in {"ways": 5, "shots": 1, "queries": 6, "episodes-per-batch": 8}.items():
        parser.add_argument(f"--{name}", type=int, default=value, metavar="N", help="of a training step")
    parser.add_argument("--test-episodes", type=int, default=10_000, metavar="N", help="of each number of shots")
    parser.add_argument("--steps", type=int, default=0, metavar="N", help="timed in a turn, in tens; 0: by the device")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="rounds")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads; 0: torch's choice")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"), help="of the network")
    parser.add_argument("--learn2learn", metavar="PYTHON", help="the Python that has it; without, this one is asked")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every figure there")
    return parser


def main(argv: list[str] | None = None) -> None:
    flags = vars(parser().parse_args(argv))
    parts, steps, repeats, noise, python, file = (
        flags.pop(name) for name in ("parts", "steps", "repeats", "noise", "learn2learn", "json")
    )
    for name, value, least in (("steps", steps, 0), ("repeats", repeats, 1)):
        if value < least:
            raise UserError(f"--{name} {value}: give at least {least}")
    if noise and flags["dataset"] != "mini-imagenet":
        raise UserError(f"--noise has the shape of mini-imagenet; leave out --dataset {flags['dataset']}")
    pythons = dict.fromkeys(("learn2learn", "evaluate_learn2learn"), check_python(python)) if python else {}
    dataset, backbones = flags.pop("dataset"), dict.fromkeys(flags.pop("backbone"))

    import bench_report

    from fewshot.core.files import writable_parent, write_json
    from fewshot.runs import environment

    if file:
        if file.is_dir():
            raise UserError(f"--json {file} is a folder; give a file in it")
        writable_parent(file)
        file.parent.mkdir(parents=True, exist_ok=True)
    console = terminal()
    with tempfile.TemporaryDirectory() as folder:
        if noise:
            flags["data_root"] = make_noise(Path(folder))
        settings = [recipes.resolve(dataset, flags | {"backbone": backbone}) for backbone in backbones]
        machine = measure("machine", settings[0], steps)
        chosen = {name: machine[name] for name in ("device", "precision", "threads")}
        settings = [dataclasses.replace(config, **chosen) for config in settings]
        console.print(
            f"{machine['name']}, {machine['precision']}, {machine['threads']} threads; {dataset}{' (noise)' * noise};"
            f" {machine['images']} images a step, {machine['steps']} timed steps a turn."
        )
        rounds: dict[tuple[str, str], list[Round]] = {}
        for number in range(1, repeats + 1):
            for config in settings:
                for part in parts:
                    console.print(f"round {number} of {repeats}, {config.backbone}, {part}")
                    turns = take_turns(PARTS[part], config, machine["steps"], pythons, console)
                    rounds.setdefault((config.backbone, part), []).append(turns)
    record: dict[str, Any] = {"environment": environment(), "machine": machine, "repeats": repeats, "noise": noise}
    for part in parts:
        report = getattr(bench_report, part)
        record[part] = [report(config, rounds[config.backbone, part]) for config in settings]
        for summary in record[part]:
            bench_report.show(console, summary)
    if file:
        write_json(file, record)
        console.print(f"Every figure: {file}")


def make_noise(root: Path) -> str:
    """A store of random pixels in the shape of mini-ImageNet; returns its data root."""
    import numpy as np

    from fewshot.data import dataset_json, store

    folder = root / "mini-imagenet"
    folder.mkdir()
    draw, side, entries = np.random.default_rng(0), 84, {}
    for split, classes in (("train", 64), ("val", 16), ("test", 20)):
        names, counts = [f"{split}{number:02d}" for number in range(classes)], [600] * classes
        shape = (sum(counts), side, side, 3)
        blocks = (draw.integers(0, 256, (count, *shape[1:]), np.uint8) for count in counts)
        digest = store.write_array(folder / f"{split}.npy", shape, blocks)
        entries[split] = {"classes": names, "counts": counts, "shape": list(shape), "sha256": digest}
    dataset_json.write(folder, folder.name, entries, "noise", [], {})
    return str(root)


if __name__ == "__main__":
    raise SystemExit(run(main))
