"""From every round's figures to medians, ratios within rounds, bars, and tables."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from bench_turns import Round

from fewshot import config as configs
from fewshot.config import TrainConfig

if TYPE_CHECKING:
    from rich.console import Console

RATIOS = (("loop", "bare"), ("compiled", "loop"), ("loop", "plain"), ("bare", "plain"), ("loop", "learn2learn"))


def training(config: TrainConfig, rounds: list[Round]) -> dict[str, Any]:
    """Images a second: medians over the rounds, ratios within them, bars, and every round's figures."""
    for turn in rounds:
        for name in ("loop", "bare"):
            turn[name]["flops_per_second"] = turn[name]["images_per_second"] * turn["bare"]["flops_per_image"]
    pairs = [(*pair, "images_per_second") for pair in RATIOS]
    pairs += [(name, "product", "flops_per_second") for name in ("loop", "bare")]
    summary = summarise(config, rounds, pairs)
    excess = None
    if "own_bytes" in summary["medians"]["bare"]:
        excess = statistics.median(turn["loop"]["own_bytes"] - turn["bare"]["own_bytes"] for turn in rounds) / 1e9
    return summary | {"bars": training_bars(config, summary["ratios"], excess)}


def cost(config: TrainConfig, rounds: list[Round]) -> dict[str, Any]:
    """Each regularizer's step in steps of `none`, within a turn's rounds, and the parameters that it adds."""
    seconds = [turn["cost"]["seconds"] for turn in rounds]
    parameters = rounds[0]["cost"]["parameters"]
    medians = {
        name: {
            "steps_of_none": statistics.median(
                one / none for turn in seconds for one, none in zip(turn[name], turn["none"], strict=True)
            ),
            "seconds": statistics.median(one for turn in seconds for one in turn[name]),
            "added_parameters": parameters[name] - parameters["none"],
        }
        for name in seconds[0]
    }
    found, supervised = [], _supervised(config)
    if supervised or config.dataset == "mini-imagenet" and config.device == "cpu" and config.backbone == "conv4":
        for name, figures in medians.items():
            if name != "none":
                most = 1.6 if name == "camdrop" and not supervised else 1.15  # there support images pass twice
                found.append(bar(f"step with {name} / none", figures["steps_of_none"], most=most))
    return {"config": configs.to_json(config), "medians": medians, "bars": found, "rounds": rounds}


def evaluation(config: TrainConfig, rounds: list[Round]) -> dict[str, Any]:
    """Episodes a second, embedding included: medians, ratios within rounds, bars, and every round's figures."""
    pair = ("evaluate_proto", "evaluate_learn2learn", "episodes_per_second")
    summary = summarise(config, rounds, [pair])
    found = []
    if config.dataset == "mini-imagenet" and config.backbone == "conv4" and config.test_episodes == 10_000:
        medians = summary["medians"]
        ratio = summary["ratios"].get("evaluate_proto/evaluate_learn2learn")
        found.append(bar("episodes/s / learn2learn's", ratio, least=300, ambition=1000))
        if config.device == "cpu":
            for name, most in (("evaluate_proto", 25.0), ("evaluate_r2d2", 40.0)):
                found.append(bar(f"seconds of {name}, 2 x 10,000 episodes", medians[name]["seconds"], most=most))
            peak = medians["evaluate_proto"].get("peak_bytes")
            found.append(bar("its peak memory, in GB", peak and peak / 1e9, most=2.5))
    return summary | {"bars": found}


def _supervised(config: TrainConfig) -> bool:
    return config.regime.partition(":")[0] == "supervised"


def summarise(config: TrainConfig, rounds: list[Round], pairs: list[tuple[str, str, str]]) -> dict[str, Any]:
    """The settings, medians of all figures over the rounds, and of the ratios of `pairs` (one, other, figure)."""
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
    declined = {name: figures["declined"] for name, figures in rounds[0].items() if "declined" in figures}
    return {
        "config": configs.to_json(config), "medians": medians, "ratios": ratios, "declined": declined, "rounds": rounds
    }  # fmt: skip


def training_bars(config: TrainConfig, ratios: dict[str, float], excess: float | None) -> list[dict[str, Any]]:
    """What the loop is to reach, of episodes on mini-ImageNet; `excess`: its own memory over the bare step's, in GB."""
    if _supervised(config):
        return [bar("loop / bare", ratios["loop/bare"], least=0.95)]
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
    """A figure and its bar; `passed` is None if the figure was not measured."""
    passed = None if value is None else value >= least if most is None else value <= most
    return {"what": what, "value": value, "least": least, "most": most, "ambition": ambition, "passed": passed}


FIGURES = {  # by its key: heading, unit, digits; those that a part has are its table's columns
    "images_per_second": ("images/s", 1, 1), "episodes_per_second": ("episodes/s", 1, 1), "seconds": ("s", 1, 2),
    "steps_of_none": ("steps of none", 1, 3), "added_parameters": ("added parameters", 1, 0),
    "flops_per_second": ("GFLOP/s", 1e9, 1), "peak_bytes": ("peak GB", 1e9, 2), "own_bytes": ("own GB", 1e9, 2),
    "mapped_bytes": ("files' GB", 1e9, 2),
}  # fmt: skip


def show(console: Console, summary: dict[str, Any]) -> None:
    """The medians as a table (memory: in all, the process's own, mapped files), ratios, bars, who declined and why."""
    from rich import box
    from rich.table import Table

    declined = summary.get("declined", {})
    medians = {name: figures for name, figures in summary["medians"].items() if name not in declined}
    columns = {key: shape for key, shape in FIGURES.items() if any(key in figures for figures in medians.values())}
    table = Table(title=f"{summary['config']['backbone']}, medians", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("")
    for heading, _, _ in columns.values():
        table.add_column(heading, justify="right")
    for name, figures in medians.items():
        cells = (
            f"{figures[key] / unit:,.{digits}f}" if key in figures else "" for key, (_, unit, digits) in columns.items()
        )
        table.add_row(name, *cells)
    console.print(table)
    console.print("   ".join(f"{pair} {ratio:.3f}" for pair, ratio in summary.get("ratios", {}).items()))
    for each in summary["bars"]:
        verdict = {True: "pass", False: "MISS", None: "not measured"}[each["passed"]]
        value = "" if each["value"] is None else f" {each['value']:.2f}"
        bound = f"at most {each['most']:g}" if each["least"] is None else f"at least {each['least']:g}"
        hope = f", hoped for {each['ambition']:g}" if each["ambition"] else ""
        console.print(f"{verdict}: {each['what']}{value} ({bound}{hope})")
    for name, reason in declined.items():
        console.print(f"{name} did not take part: {reason}")
