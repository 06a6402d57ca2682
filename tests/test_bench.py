"""scripts/bench.py measures what it says, on glyphs in seconds; the real figures are in results/bench.md."""

from __future__ import annotations

import json
import subprocess
import sys

from commands import NETWORK, ROOT

from fewshot import regularizers
from fewshot.recipes import resolve


def bench(*args) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / "bench.py"), "--threads", "1", "--device", "cpu", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_what_regularizers_cost_and_how_fast_episodes_are_solved(tmp_path):
    file = tmp_path / "new" / "bench.json"
    small = (
        "--dataset", "glyphs", "--backbone", NETWORK, "--repeats", 1, "--episodes-per-batch", 1, "--test-episodes", 60,
    )  # fmt: skip
    done = bench("--parts", "cost", "evaluation", *small, "--json", file)
    assert done.returncode == 0, done.stderr
    record = json.loads(file.read_text())
    (cost,), (evaluation,) = record["cost"], record["evaluation"]
    assert set(cost["medians"]) == set(regularizers.FAMILY.names()) - {"droppath", "stochasticdepth"}
    assert cost["medians"]["none"] == {
        "steps_of_none": 1.0, "seconds": cost["medians"]["none"]["seconds"], "added_parameters": 0
    }  # fmt: skip
    assert all(0.3 < figures["steps_of_none"] < 6 for figures in cost["medians"].values())
    for name in ("evaluate_proto", "evaluate_r2d2"):
        figures = evaluation["medians"][name]
        assert 119 < figures["episodes_per_second"] * figures["seconds"] < 121
        assert 1e8 < figures["peak_bytes"] < 4e9
    assert evaluation["bars"] == []  # they are mini-ImageNet's
    assert "evaluate_proto" in done.stdout and "steps of none" in done.stdout


def test_supervised_steps_are_counted_in_images_and_have_their_own_bars(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "bench_cases"))
    import bench_report
    import common

    for regime, images in (("supervised", 64), ("supervised:batch=32,rotation=true", 128), ("episodic", 8 * 5 * 7)):
        assert common.images_a_step(resolve("mini-imagenet", {"regime": regime})) == images
    config = resolve("glyphs", {"regime": "supervised:batch=32", "device": "cpu"})
    (found,) = bench_report.training_bars(config, {"loop/bare": 0.9}, None)
    assert (found["least"], found["passed"]) == (0.95, False)


def test_wrong_input_is_one_line():
    for flags, expected in (
        (("--repeats", 0), "--repeats 0: give at least 1"), (("--parts", "speed"), "invalid choice: 'speed'"),
        (("--dataset", "nowhere"), "'nowhere' is not prepared"), (("--learn2learn", "nowhere"), "No such file"),
    ):  # fmt: skip
        done = bench(*flags)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
        assert expected in done.stderr
