"""Measure the training loop against its own limit, the field's plain step and learn2learn.

    python scripts/bench.py [--backbone conv4 resnet12] [--learn2learn PYTHON] [--json FILE]
    python scripts/bench.py --noise     # where there is no copy of mini-ImageNet

Contestants (scripts/bench_contestants.py) take turns, A B C, A B C, ..., each turn in a process of its own: settings
of the allocator hold for a whole process, and so does peak memory. A ratio is taken within a round, where both
sides met the same noise; what is reported is the median over the rounds.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewshot import config as configs
from fewshot.cli import Parser, people, run
from fewshot.config import TrainConfig
from fewshot.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
CONTESTANTS = Path(__file__).with_name("bench_contestants.py")
TRAINING = ("loop", "compiled", "bare", "plain", "learn2learn", "product")  # in the order of their turns
RATIOS = (("loop", "bare"), ("compiled", "loop"), ("loop", "plain"), ("bare", "plain"), ("loop", "learn2learn"))
MEMORY = {"VmHWM": "peak_bytes", "RssAnon": "own_bytes", "RssFile": "mapped_bytes"}  # as /proc/PID/status has them
LOOK_EVERY = 0.05  # seconds between looks at a contestant's memory

Figures = dict[str, Any]
Round = dict[str, Figures]


def parser() -> Parser:
    parser = Parser(prog="scripts.bench", description=__doc__.splitlines()[0])
    root = os.environ.get("FEWSHOT_DATA") or "data"
    parser.add_argument("--data-root", default=root, metavar="FOLDER", help="folder of prepared data sets")
    parser.add_argument("--dataset", default="mini-imagenet", metavar="NAME", help="its training split is learned from")
    parser.add_argument("--noise", action="store_true", help="random pixels in mini-ImageNet's stead: as fast")
    parser.add_argument("--backbone", nargs="+", default=["conv4"], metavar="NAME", help="one or more networks")
    for name, value in {"ways": 5, "shots": 1, "queries": 6, "episodes-per-batch": 8}.items():
        parser.add_argument(f"--{name}", type=int, default=value, metavar="N", help="of a training step")
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
    steps, repeats, noise, python, file = (
        flags.pop(name) for name in ("steps", "repeats", "noise", "learn2learn", "json")
    )
    for name, value, least in (("steps", steps, 0), ("repeats", repeats, 1)):
        if value < least:
            raise UserError(f"--{name} {value}: give at least {least}")
    if noise and flags["dataset"] != "mini-imagenet":
        raise UserError(f"--noise has the shape of mini-imagenet; leave out --dataset {flags['dataset']}")
    pythons = {"learn2learn": check_python(python)} if python else {}
    dataset, backbones = flags.pop("dataset"), dict.fromkeys(flags.pop("backbone"))

    from fewshot.files import write_json, writable_parent
    from fewshot.runs import environment

    if file:
        if file.is_dir():
            raise UserError(f"--json {file} is a folder; give a file in it")
        writable_parent(file)
        file.parent.mkdir(parents=True, exist_ok=True)
    console = people()
    with tempfile.TemporaryDirectory() as folder:
        if noise:
            flags["data_root"] = make_noise(Path(folder))
        settings = [configs.resolve(dataset, flags | {"backbone": backbone}) for backbone in backbones]
        machine = measure("machine", settings[0], steps)
        chosen = {name: machine[name] for name in ("device", "precision", "threads")}
        settings = [dataclasses.replace(config, **chosen) for config in settings]
        record = {"environment": environment(), "machine": machine, "repeats": repeats, "noise": noise}
        console.print(
            f"{machine['name']}, {machine['precision']}, {machine['threads']} threads; {dataset}{' (noise)' * noise};"
            f" {machine['images']} images a step, {machine['steps']} timed steps a turn."
        )
        rounds: dict[str, list[Round]] = {backbone: [] for backbone in backbones}
        for number in range(1, repeats + 1):
            for config in settings:
                console.print(f"round {number} of {repeats}, {config.backbone}")
                rounds[config.backbone].append(take_turns(TRAINING, config, machine["steps"], pythons, console))
    training = [summarise(config, rounds[config.backbone]) for config in settings]
    for summary in training:
        show(console, summary)
    if file:
        write_json(file, record | {"training": training})
        console.print(f"Every figure: {file}")


def make_noise(root: Path) -> str:
    """A store of random pixels in the shape of mini-ImageNet's training split; returns its data root."""
    import numpy as np

    from fewshot.data import store

    folder = root / "mini-imagenet"
    folder.mkdir()
    counts, side = [600] * 64, 84
    shape, draw = (sum(counts), side, side, 3), np.random.default_rng(0)
    blocks = (draw.integers(0, 256, (count, *shape[1:]), np.uint8) for count in counts)
    digest = store.write_array(folder / "train.npy", shape, blocks)
    classes = [f"noise{number:02d}" for number in range(len(counts))]
    entries = {"train": {"classes": classes, "counts": counts, "shape": list(shape), "sha256": digest}}
    store.write_record(folder, folder.name, entries, "noise", [], {})
    return str(root)


def check_python(python: str) -> str:
    """The interpreter given with --learn2learn; UserError where it has no learn2learn."""
    try:
        done = subprocess.run([python, "-c", "import numpy, torchvision, learn2learn"], capture_output=True)
    except OSError as error:
        raise UserError(f"--learn2learn {python}: {error.strerror}; give the path of a Python") from None
    if done.returncode:
        raise UserError(
            f"--learn2learn {python}: it cannot import learn2learn; run sh scripts/install_learn2learn.sh {python}"
        )
    return python


def take_turns(
    names: Iterable[str], config: TrainConfig, steps: int, pythons: dict[str, str], console: Console
) -> Round:
    """One round: every contestant once, by name. `pythons`: those that have an interpreter of their own."""
    figures = {}
    for name in names:
        figures[name] = measure(name, config, steps, pythons.get(name, sys.executable))
        speed = figures[name].get("images_per_second")
        console.print(f"  {name}" + (f" {speed:,.1f} images/s" if speed else ""))
    return figures


def measure(name: str, config: TrainConfig, steps: int, python: str = sys.executable) -> Figures:
    """A contestant's figures, from a process of its own; the most memory that it held; the time that it took.

    Much less processor time than wall time times threads means that others wanted the processor.
    UserError where that process found the user's input wrong.
    """
    command = [python, str(CONTESTANTS), name, json.dumps(configs.to_json(config)), str(steps)]
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    before = os.times()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": paths}
    ) as process:
        try:
            out, err, memory = watch(process)
        except BaseException:
            process.terminate()  # not killed: it tidies up after itself
            raise
    after = os.times()
    if process.returncode == 2:
        raise UserError(err.splitlines()[-1].removeprefix("error: "))
    if process.returncode:
        raise RuntimeError(f"{name} ended with status {process.returncode}:\n{err}")
    spent = {
        "user_seconds": after.children_user - before.children_user,
        "system_seconds": after.children_system - before.children_system,
        "wall_seconds": after.elapsed - before.elapsed,
    }
    return json.loads(out.splitlines()[-1]) | memory | spent


def watch(process: subprocess.Popen) -> tuple[str, str, dict[str, int]]:
    """What a process printed on its two streams until its end, and the most memory of each kind that was seen."""
    most: dict[str, int] = {}
    while True:
        try:
            return *process.communicate(timeout=LOOK_EVERY), most
        except subprocess.TimeoutExpired:
            for kind, held in resident(process.pid).items():
                most[kind] = max(held, most.get(kind, 0))


def resident(pid: int) -> dict[str, int]:
    """Bytes of a process in memory, as far as the system tells: the peak so far; its own and mapped files' now."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return {kind: int(fields[name].split()[0]) * 1024 for name, kind in MEMORY.items() if name in fields}


def summarise(config: TrainConfig, rounds: list[Round]) -> dict[str, Any]:
    """The settings, the medians over the rounds, the ratios within them, the bars, and every round's figures."""
    for turn in rounds:
        for name in ("loop", "bare"):
            turn[name]["flops_per_second"] = turn[name]["images_per_second"] * turn["bare"]["flops_per_image"]
    pairs = [(*pair, "images_per_second") for pair in RATIOS]
    pairs += [(name, "product", "flops_per_second") for name in ("loop", "bare")]
    ratios = {
        f"{one}/{other}": statistics.median(turn[one][key] / turn[other][key] for turn in rounds)
        for one, other, key in pairs
        if key in rounds[0][one] and key in rounds[0][other]
    }
    medians = {
        name: {
            key: statistics.median(turn[name][key] for turn in rounds)
            for key, value in figures.items()
            if isinstance(value, (int, float))
        }
        for name, figures in rounds[0].items()
    }
    excess = None
    if "own_bytes" in medians["bare"]:
        excess = statistics.median(turn["loop"]["own_bytes"] - turn["bare"]["own_bytes"] for turn in rounds) / 1e9
    return {
        "config": configs.to_json(config), "medians": medians, "ratios": ratios, "bars": bars(config, ratios, excess),
        "declined": {name: figures["declined"] for name, figures in rounds[0].items() if "declined" in figures},
        "rounds": rounds,
    }  # fmt: skip


def bars(config: TrainConfig, ratios: dict[str, float], excess: float | None) -> list[dict[str, Any]]:
    """What the loop is to reach on mini-ImageNet; `excess` is its own memory over the bare step's, in GB."""
    if config.dataset != "mini-imagenet":
        return []
    if config.device == "cpu":
        found = [
            bar("loop / bare", ratios["loop/bare"], least=0.88, ambition=0.97),
            bar("loop's own memory over bare's, in GB", excess, most=1.0),
        ]
        if config.backbone == "conv4":
            found.append(bar("loop / learn2learn", ratios.get("loop/learn2learn"), least=2.8, ambition=4.0))
        return found
    found = [bar("loop / bare", ratios["loop/bare"], least=0.95)]
    if config.backbone.startswith("resnet12"):
        found.append(bar("loop's arithmetic / that of matrix products", ratios["loop/product"], least=0.35))
    return found


def bar(
    what: str, value: float | None, *, least: float | None = None, most: float | None = None,
    ambition: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A figure and its bar; `passed` is None where the figure was not measured."""
    passed = None if value is None else value >= least if most is None else value <= most
    return {"what": what, "value": value, "least": least, "most": most, "ambition": ambition, "passed": passed}


def show(console: Console, summary: dict[str, Any]) -> None:
    """The medians as a table (memory: in all, the process's own, mapped files), ratios, bars, who declined and why."""
    from rich import box
    from rich.table import Table

    def cell(figures: Figures, key: str, unit: float = 1.0, digits: int = 1) -> str:
        return f"{figures[key] / unit:,.{digits}f}" if key in figures else ""

    table = Table(title=f"{summary['config']['backbone']}, medians", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("")
    for column in ("images/s", "GFLOP/s", "peak GB", "own GB", "files' GB"):
        table.add_column(column, justify="right")
    for name, figures in summary["medians"].items():
        if name not in summary["declined"]:
            memory = (cell(figures, kind, 1e9, 2) for kind in MEMORY.values())
            table.add_row(name, cell(figures, "images_per_second"), cell(figures, "flops_per_second", 1e9), *memory)
    console.print(table)
    console.print("   ".join(f"{pair} {ratio:.3f}" for pair, ratio in summary["ratios"].items()))
    for each in summary["bars"]:
        verdict = {True: "pass", False: "MISS", None: "not measured"}[each["passed"]]
        value = "" if each["value"] is None else f" {each['value']:.2f}"
        bound = f"at most {each['most']:g}" if each["least"] is None else f"at least {each['least']:g}"
        hope = f", hoped for {each['ambition']:g}" if each["ambition"] else ""
        console.print(f"{verdict}: {each['what']}{value} ({bound}{hope})")
    for name, reason in summary["declined"].items():
        console.print(f"{name} did not take part: {reason}")


if __name__ == "__main__":
    raise SystemExit(run(main))
