"""scripts/report.py: the page that it writes says what the run folders hold, and no more."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import report
from boards import variant
from commands import ROOT
from report_parts import again, effects, pooled
from scipy import stats

from fewshot import evaluate
from fewshot.core import console
from fewshot.core.errors import UserError
from fewshot.evaluation.statistics import holm
from fewshot.runs import Run

GAINS = {"none": 0.0, "targetdrop": 0.02, "dropblock": -0.01, "focuseddropout": 0.0005}  # as fractions of 1
SPREAD = {0: -0.001, 1: 0.0, 2: 0.001}  # what each seed adds to a gain
MORE = {3: 0.01, 4: 0.035}  # TargetDrop's gain with the seeds that came later


@pytest.fixture(scope="module")
def written(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a study of four regularizers and three seeds, with one more run that never ended."""
    results = tmp_path_factory.mktemp("results")
    lower = small_run.parent / "lower"  # accuracies of 0 or 100 % leave no room
    variant(small_run, lower, gain=-0.1)
    for split in ("train", "val"):
        assert console.run(evaluate.main, [str(lower), "--split", split, "--episodes", "20", "--threads", "1"]) == 0
    for turn, (reg, gain) in enumerate(GAINS.items()):
        for seed in SPREAD:
            more = SPREAD[(seed + turn) % len(SPREAD)]  # each regularizer meets the seeds in another order
            folder = results / report.FEW_SHOT.name / f"{reg}-seed{seed}"
            folder.parent.mkdir(exist_ok=True)
            variant(
                lower, folder, seed=seed, reg=reg, gain=gain + (more if reg != "none" else 0),
                each_shot=-0.0025 * (reg == "dropblock"),
            )  # fmt: skip
    for reg in ("none", "targetdrop"):
        for seed, gain in MORE.items():
            folder = results / report.AGAIN.name / f"{reg}-seed{seed}"
            folder.parent.mkdir(exist_ok=True)
            variant(lower, folder, seed=seed, reg=reg, gain=gain if reg != "none" else 0.0)
        for seed in (0, 1):
            folder = results / report.TENTH.name / f"{reg}-seed{seed}"
            folder.parent.mkdir(exist_ok=True)
            variant(lower, folder, seed=seed, reg=reg, gain=2 * GAINS[reg])
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


def lines(written: Path, begin: str) -> list[str]:
    return [line for line in (written / "README.md").read_text("utf-8").splitlines() if line.startswith(begin)]


def half_width(written: Path, shots: int) -> float:
    """In points, of a difference of two regularizers, from what neither regularizer nor seed explains."""
    runs = [[Run.open(written / report.FEW_SHOT.name / f"{reg}-seed{seed}") for seed in SPREAD] for reg in GAINS]
    found = [[row["accuracy"] for run in of_reg for row in run.own() if row["shots"] == shots] for of_reg in runs]
    scores = 100 * np.array(found)
    residuals = scores - scores.mean(1, keepdims=True) - scores.mean(0, keepdims=True) + scores.mean()
    freedom = (len(GAINS) - 1) * (len(SPREAD) - 1)
    return stats.t.ppf(0.975, freedom) * ((residuals**2).sum() / freedom * 2 / len(SPREAD)) ** 0.5


def test_gains_are_those_of_the_runs(written):
    one_shot, _ = lines(written, "| targetdrop | 3 |")
    # Student's t of -0.1, 0, +0.1 points around 2: 4.303 * 0.1 / sqrt(3).
    assert "| **+2.00 ± 0.25** |" in one_shot
    assert len(lines(written, "| none | 3 |")) == 2
    assert "| +0.05 ± 0.25 |" in lines(written, "| focuseddropout | 3 |")[0]


def test_verdicts_follow_from_the_intervals(written):
    cells = [line.strip("| ").split(" | ") for line in lines(written, "| ")]
    said = {row[0]: row[1:] for row in reversed(cells) if len(row) == 5}  # reversed, so that the first study's rows win
    assert said["TargetDrop helps"][1:3] == [f"+2.00 ± 0.25 ({half_width(written, shots):.2f})" for shots in (1, 5)]
    assert re.match(r"1-shot: holds \(p = 0\.00\d+; pooled: .+\); 5-shot: holds \(p = ", said["TargetDrop helps"][3])
    assert "+2.09, +1.09 (Conv-4 at 84 px)" in said["TargetDrop helps"][0], "the paper's table 3"
    better = said["TargetDrop is better than DropBlock"][3]
    assert re.match(r"1-shot: holds \(p = .+\); 5-shot: holds \(p = ", better)
    assert said["FocusedDropout helps"][3] == "not decided", "the same in both tests"
    assert not any("CamDrop" in claim for claim in said)


def test_what_everybody_asks_is_answered_first(written):
    helps, use, beat = (line.partition("** ") for line in lines(written, "- **")[:3])
    assert helps[0] == "- **Does TargetDrop help?"
    assert helps[2].startswith("It is shown to in some of our studies. Gains over `none`, in points, ±")
    assert " of training anew: +2.00 ± 0.25 at 1-shot, " in helps[2]
    assert use[2] == "Shown to help somewhere: `targetdrop`."
    assert re.match(r"At 42 px \d+\.\d\d ± .+ at 1-shot, .+ at 5-shot: the \[best recipe\]", beat[2])


def test_a_study_is_told_in_a_line_for_each_test(written):
    one_shot, five_shot, *others = lines(written, "- **Conv-4")
    assert "1-shot** (regularizers: 3, seeds: 3). Shown to help: `targetdrop`. Shown to hurt: " in one_shot
    assert "Open: `focuseddropout`; gains from -0.2 to +0.3 points." in one_shot
    assert "Shown to hurt: `dropblock`." in five_shot and len(others) == 4
    # The largest of three is established if Bonferroni's interval excludes 0.
    error = half_width(written, shots=1) / stats.t.ppf(0.975, 6)
    least = math.ceil(100 * stats.t.ppf(1 - 0.05 / 6, 6) * error) / 100
    assert f"A measured gain or loss of {least:.2f} points is always shown by the pooled test" in one_shot


def test_more_seeds_of_a_regularizer_are_shown_alone_and_with_the_first(written):
    """p-values are Holm's over the three regularizers of the first study, and over the one of the second."""
    of_each = [
        [gain + SPREAD[(seed + turn) % len(SPREAD)] for seed in SPREAD]
        for turn, (reg, gain) in enumerate(GAINS.items()) if reg != "none"
    ]  # fmt: skip
    first, *_ = of_each
    p_values = [holm([stats.ttest_1samp(gains, 0).pvalue for gains in of_each])[0], None, None]
    said = []
    for gains, corrected in zip((first, list(MORE.values()), [*first, *MORE.values()]), p_values, strict=True):
        gains = 100 * np.array(gains)
        half, own = stats.t.ppf(0.975, len(gains) - 1) * stats.sem(gains), stats.ttest_1samp(gains, 0).pvalue
        p_value = f", p = {own if corrected is None else corrected:.2g})"
        said.append((f"{gains.mean():+.2f} ± {half:.2f}", f"({len(gains)} seeds", p_value))
    (gain, seeds, p_value), (new, new_seeds, new_p_value), (whole, all_seeds, _) = said
    cells = f"**{gain} {seeds}{p_value}** | {new} {new_seeds}{new_p_value} | {whole} {all_seeds})"
    assert f"| targetdrop | 1-shot | {cells} |" in lines(written, "| targetdrop | 1-shot |")
    (asked,) = lines(written, "- **Does TargetDrop help?")
    assert f"; {whole} at 1-shot, " in asked and " (all seeds of the first two together, " in asked


def test_a_seed_is_not_counted_in_both_studies(written, tmp_path):
    runs = {reg: {0: Run.open(written / report.FEW_SHOT.name / f"{reg}-seed0")} for reg in ("none", "targetdrop")}
    study = effects.Study(tmp_path, runs, {})
    with pytest.raises(UserError, match="none-seed0: .* has this seed, too; keep one"):
        again.joined(study, study)


def test_more_seeds_of_a_study_that_is_not_there_are_left_out(written, tmp_path):
    shutil.copytree(written / report.AGAIN.name, tmp_path / report.AGAIN.name)
    assert console.run(report.main, ["--results", str(tmp_path)]) == 0
    assert "more seeds" not in (tmp_path / "README.md").read_text("utf-8").partition("## All files")[0]


def test_the_commit_is_named_with_what_was_not_committed(written):
    folder = written / report.FEW_SHOT.name
    runs = {reg: [Run.open(folder / f"{reg}-seed0")] for reg in GAINS}
    usual = "abcdef0" + "1" * 5
    for (run,), commit in zip(runs.values(), (usual, usual + "-dirty", "1234567" + "8" * 5, usual), strict=True):
        run.environment["commit"] = commit
    assert effects.commits({}) == ""
    assert effects.commits(runs) == "code of commit abcdef0, in 1 of 4 runs `-dirty` (`dropblock`: 1234567)"


def test_the_pooled_interval_is_that_of_a_two_way_analysis_of_variance(written):
    half = half_width(written, shots=1)
    assert f"| **+2.00 ± {half:.2f}** |" in lines(written, "| targetdrop | 3 |")[0]
    assert f"| +0.05 ± {half:.2f} |" in lines(written, "| focuseddropout | 3 |")[0]


def test_pooled_differences_of_a_study_with_gaps_are_those_of_least_squares():
    draw = np.random.default_rng(0)
    scores = {name: {seed: draw.normal(0.5, 0.01) for seed in range(5)} for name in "abcd"}
    del scores["a"][0], scores["c"][3], scores["c"][4]
    design, values = [], []
    for i, by_seed in enumerate(scores.values()):
        for seed, score in by_seed.items():
            design.append([*(np.arange(4) == i), *(np.arange(5) == seed)])
            values.append(score)
    x, y = np.array(design, float), np.array(values)
    fitted, *_ = np.linalg.lstsq(x, y)
    freedom = len(y) - np.linalg.matrix_rank(x)
    contrast = np.array([1, 0, -1, 0, 0, 0, 0, 0, 0])
    variance = ((y - x @ fitted) ** 2).sum() / freedom * (contrast @ np.linalg.pinv(x.T @ x) @ contrast)
    found = pooled.pool(scores).difference("a", "c")
    assert found.estimate == pytest.approx(contrast @ fitted)
    assert found.half_width == pytest.approx(stats.t.ppf(0.975, freedom) * variance**0.5)
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(found.estimate) / variance**0.5, freedom))


def test_pooling_holds_what_it_says_and_sets_apart_what_varies_more():
    draw, held, apart = np.random.default_rng(1), 0, 0
    for _ in range(300):
        noise = draw.normal(0, 0.002, (8, 3)) + draw.normal(0, 0.01, 3)
        found = pooled.pool({str(i): dict(enumerate(row)) for i, row in enumerate(noise)})
        apart += bool(found.apart)
        held += (interval := found.difference("0", "1")) is not None and interval.low < 0 < interval.high
    assert 0.92 <= held / 300 <= 0.98
    assert apart <= 10, "1% is the rule"
    noise = draw.normal(0, 0.002, (8, 3))
    noise[3] *= 20
    assert pooled.pool({str(i): dict(enumerate(row)) for i, row in enumerate(noise)}).apart == ("3",)
    assert pooled.pool({"a": {0: 0.5}, "b": {0: 0.6}}) is None, "one seed tells nothing of its noise"


def test_pooling_is_misled_by_a_baseline_that_varies_twice_as_much():
    """As the page says: its intervals then hold in about 83% of studies."""
    draw, held = np.random.default_rng(2), []
    for _ in range(400):
        noise = draw.normal(0, 0.002, (15, 3))
        noise[0] *= 2
        found = pooled.pool({str(i): dict(enumerate(row)) for i, row in enumerate(noise)})
        if (interval := found.difference("0", "1")) is not None:
            held.append(interval.low < 0 < interval.high)
    assert 0.79 <= np.mean(held) <= 0.87


def test_one_study_in_ten_without_differences_has_one_shown_by_either_analysis():
    """As the page says; each analysis by itself shows one in 5% of studies."""
    draw, shown = np.random.default_rng(3), np.zeros(2)
    for _ in range(400):
        noise = draw.normal(0, 0.002, (15, 3))
        own = holm(stats.ttest_1samp(noise[1:] - noise[0], 0, axis=1).pvalue)
        both = pooled.against(pooled.pool({str(i): dict(enumerate(row)) for i, row in enumerate(noise)}), "0")
        either = min(own) < 0.05, min([each.p_value for each in both.values()], default=1.0) < 0.05
        shown += any(either), either[1]
    assert 0.06 <= shown[0] / 400 <= 0.13 and shown[1] / 400 <= 0.08


def test_a_run_that_did_not_finish_is_named(written):
    assert lines(written, "- camdrop-seed0: ")


def test_gains_stand_beside_the_gap_between_training_and_validation(written):
    none = Run.open(written / report.FEW_SHOT.name / "none-seed0")
    train, val = ({row["shots"]: row["accuracy"] for row in none.own(split)} for split in ("train", "val"))
    for shots in (1, 5):
        gap = f"{100 * (train[shots] - val[shots]):.2f}"
        assert f"| {shots}-shot | all images | {gap} | **+2.00 ± 0.25** |" in lines(written, f"| {shots}-shot | all")
        fewer, more = lines(written, f"| {shots}-shot | a tenth")
        assert fewer.startswith(f"| {shots}-shot | a tenth | {gap} | **+4.00 ± ")
        # Seeds 0 and 1 gain 2.0 and 2.1 points with all images (or in another order), 4.0 with a tenth.
        half = stats.t.ppf(0.975, 1) * 0.05
        assert more == f"| {shots}-shot | a tenth, more than all images | +0.00 | **+1.95 ± {half:.2f}** |"
    cells = [100 * each for n in (1, 5) for each in (train[n], val[n], train[n] - val[n])]
    expected = " | ".join(f"{cell:.2f}" for cell in cells)
    assert len(lines(written, f"| none | {expected} |")) == 3, "of all three studies"


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
    assert line == f"| jitter=0 | {' | '.join(f'{100 * chosen[shots]:.2f}' for shots in ('5shot', '1shot'))} |"


def test_a_head_stands_with_its_validation_accuracy(written):
    run = Run.open(written / "best-42" / "pilots" / "jitter=0-seed0")
    one, five = (f"{100 * row['accuracy']:.2f} ± {100 * row['ci95']:.2f}" for row in run.own("val"))
    assert lines(written, "| proto | inductive |") == [f"| proto | inductive | {five} | {one} |"]


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
