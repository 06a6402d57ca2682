"""scripts/report.py: the page that it writes says what the run folders hold, and no more."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import report
from boards import variant
from commands import ROOT
from scipy import stats

from fewshot import evaluate
from fewshot.core import console
from fewshot.runs import Run

GAINS = {"none": 0.0, "targetdrop": 0.02, "dropblock": -0.01, "focuseddropout": 0.0005}  # of fractions of 1
SPREAD = {0: -0.001, 1: 0.0, 2: 0.001}  # what each seed adds to a gain


@pytest.fixture(scope="module")
def written(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a study of four regularizers and three seeds, one run of which never ended."""
    results = tmp_path_factory.mktemp("results")
    lower = small_run.parent / "lower"  # accuracies of 100 % leave no room for a gain
    variant(small_run, lower, gain=-0.2)
    for split in ("train", "val"):
        assert console.run(evaluate.main, [str(lower), "--split", split, "--episodes", "20", "--threads", "1"]) == 0
    for reg, gain in GAINS.items():
        for seed, more in SPREAD.items():
            folder = results / report.FEW_SHOT.name / f"{reg}-seed{seed}"
            folder.parent.mkdir(exist_ok=True)
            variant(lower, folder, seed=seed, reg=reg, gain=gain + (more if reg != "none" else 0))
    for reg in ("none", "targetdrop"):
        folder = results / report.TENTH.name / f"{reg}-seed0"
        folder.parent.mkdir(exist_ok=True)
        variant(lower, folder, reg=reg, gain=2 * GAINS[reg])
    for recipe, gain, rate in (("", 0.02, 0.1), ("+linear", 0.0, 0.2), ("+constant", -0.03, 0.3)):
        for seed, more in SPREAD.items():
            named = {"recipe": report.best.RECIPE + recipe, "lr": rate}  # another training
            folder = results / "best-42" / f"recipe{recipe}-seed{seed}"
            folder.parent.mkdir(exist_ok=True)
            variant(lower, folder, seed=seed, gain=gain + (more if recipe else 0), config=named)
    variant(lower, results / "best-42" / "pilots" / "jitter=0-seed0", config={"jitter": 0.0})
    shutil.rmtree(lower)
    unfinished = results / report.FEW_SHOT.name / "camdrop-seed0"
    shutil.copytree(results / report.FEW_SHOT.name / "none-seed0", unfinished)
    (unfinished / "result.json").unlink()
    assert console.run(report.main, ["--results", str(results)]) == 0
    return results


def power_of_t(shift: float, freedom: int, level: float) -> float:
    critical = stats.t.ppf(1 - level / 2, freedom)
    return stats.nct.sf(critical, freedom, shift) + stats.nct.cdf(-critical, freedom, shift)


def lines(written: Path, begin: str) -> list[str]:
    return [line for line in (written / "README.md").read_text("utf-8").splitlines() if line.startswith(begin)]


def test_gains_are_those_of_the_runs(written):
    one_shot, _ = lines(written, "| targetdrop | 3 |")
    # Student's t of -0.1, 0, +0.1 points around 2: 4.303 * 0.1 / sqrt(3).
    assert "| **+2.00 ± 0.25** |" in one_shot
    assert len(lines(written, "| none | 3 |")) == 2
    assert "| +0.05 ± 0.25 |" in lines(written, "| focuseddropout | 3 |")[0]


def test_verdicts_follow_from_the_intervals(written):
    cells = [line.strip("| ").split(" | ") for line in lines(written, "| ")]
    verdicts = {(row[0], row[2]): row[4] for row in reversed(cells) if len(row) == 5}  # the first study's, last
    assert verdicts["TargetDrop helps", "1-shot"].startswith("holds here")
    assert verdicts["TargetDrop is better than DropBlock", "1-shot"].startswith("holds here")
    undecided = verdicts["FocusedDropout helps", "1-shot"]
    assert undecided.startswith("not decided by 3 seeds (p = 0.4")
    decided = {claim for claim, test in verdicts if test == "1-shot"}
    mean, spread = 100 * GAINS["focuseddropout"], 0.1  # points: the gains of the seeds are -0.05, 0.05 and 0.15
    seeds = next(n for n in range(2, 100) if power_of_t(mean / spread * n**0.5, n - 1, 0.05 / len(decided)) >= 0.8)
    said = int(undecided.partition("a difference of that size takes about ")[2].split()[0])
    assert abs(said - seeds) <= 1  # accuracies are float32
    assert not any("CamDrop" in claim for claim, _ in verdicts)


def test_a_run_that_did_not_finish_is_named(written):
    assert lines(written, "- camdrop-seed0: ")


def test_gains_stand_beside_the_gap_between_training_and_validation(written):
    none = Run.open(written / report.FEW_SHOT.name / "none-seed0")
    train, val = ({row["shots"]: row["accuracy"] for row in none.own(split)} for split in ("train", "val"))
    for shots in (1, 5):
        gap = f"{100 * (train[shots] - val[shots]):.2f}"
        assert f"| {shots}-shot | all images | {gap} | **+2.00 ± 0.25** |" in lines(written, f"| {shots}-shot | all")
        assert f"| {shots}-shot | a tenth | {gap} | +4.00 (one seed) |" in lines(written, f"| {shots}-shot | a tenth")
    header = "| regularizer | seeds | accuracy (%) | gain on this test set | training anew | new classes | training - "
    assert len(lines(written, header)) == 4, "of both studies, at 1 and at 5 shots"


def test_what_each_ingredient_adds_is_what_the_recipe_loses_without_it(written):
    *_, classifier = lines(written, "| the cosine classifier: a linear one | 3 |")
    assert "| **-2.00 ± 0.25** |" in classifier
    (rate,) = lines(written, "| the falling learning rate: a constant one | 3 |")
    assert "| **-5.00 ± 0.25** |" in rate
    order = [line.split(" | ")[0] for line in lines(written, "| ") if line.split(" | ")[1:2] == ["3"]]
    assert order.index("| nothing") < order.index(rate.split(" | ")[0]) < order.index(classifier.split(" | ")[0])


def test_a_pilot_stands_with_its_best_validation(written):
    run = Run.open(written / "best-42" / "pilots" / "jitter=0-seed0")
    (chosen,) = [row["validation"] for row in run.metrics() if row.get("best")][-1:]
    (line,) = lines(written, "| jitter=0 |")
    assert line == f"| jitter=0 | {' | '.join(f'**{100 * chosen[shots]:.2f}**' for shots in ('5shot', '1shot'))} |"


def test_the_same_files_give_the_same_bytes(written):
    before = {path: path.read_bytes() for path in written.rglob("*") if path.suffix in (".md", ".png")}
    assert len(before) == 4
    assert console.run(report.main, ["--results", str(written)]) == 0
    assert {path: path.read_bytes() for path in before} == before


def test_the_page_in_the_checkout_is_the_one_that_its_runs_give(tmp_path):
    committed = ROOT / "results"
    for name in {*report.ORDER} & {path.name for path in committed.iterdir()}:
        shutil.copytree(committed / name, tmp_path / name)
    assert console.run(report.main, ["--results", str(tmp_path)]) == 0
    assert (tmp_path / "README.md").read_bytes() == (committed / "README.md").read_bytes()
