"""python -m fewshot.compare of classification results, on fabricated records; `fewshot.difference` of the same."""

from __future__ import annotations

import re

import numpy as np
import pytest
from commands import one_line_error
from image_runs import CLASSES, IMAGES, TRUTH, fabricate, right
from scipy import stats

import fewshot
from fewshot import compare
from fewshot.core import console
from fewshot.evaluation.intervals import Units
from fewshot.evaluation.power import needed
from fewshot.evaluation.proportions import Pairs, newcombe


def run(*args) -> int:
    return console.run(compare.main, [str(arg) for arg in args])


def test_two_networks_are_paired_image_by_image(tmp_path, capsys):
    a, b = fabricate(tmp_path / "none", 0.88), fabricate(tmp_path / "targetdrop", 0.91)
    assert run(a, b) == 0
    out = capsys.readouterr().out
    one, other = right(b), right(a)
    first, second = (one & ~other).sum(), (other & ~one).sum()
    assert first + second >= 25
    p_value = stats.chi2.sf((first - second) ** 2 / (first + second), df=1)
    low, high = newcombe(Pairs.of(one, other))
    probability = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"
    by = f"{100 * (one.mean() - other.mean()):.2f} ({100 * low:.2f} .. {100 * high:.2f})"
    assert f"new images     B is better than A by {by} points ({probability})" in out
    assert f"B alone on {first}, A alone on {second}" in out
    wilson = stats.binomtest(int(one.sum()), IMAGES).proportion_ci(method="wilson")
    assert f"{100 * one.mean():.2f} ({100 * wilson.low:.2f} .. {100 * wilson.high:.2f})" in out
    assert "training anew  nothing is known" in out and "images of each class" in out
    assert "this test set" not in out


def test_few_discordant_images_are_not_enough(tmp_path, capsys):
    """Two networks that are right on every image: the test is exact, and nothing is established."""
    a, b = fabricate(tmp_path / "none", 1.2), fabricate(tmp_path / "dropout", 1.2)
    record = np.load(b / "images-birds-test.npz")
    assert (record["truth"] == record["predicted"]).all()
    assert run(a, b) == 0
    out = capsys.readouterr().out
    assert "a difference is not established" in out and "(p = 1)" in out and "No difference was seen" in out


def test_seeds_are_averaged_image_by_image_and_paired(tmp_path, capsys):
    groups = {
        reg: [fabricate(tmp_path / reg / f"seed{seed}", skill + seed / 500, seed) for seed in range(3)]
        for reg, skill in (("none", 0.88), ("targetdrop", 0.9))
    }
    assert run(*groups["none"], *groups["targetdrop"]) == 0
    out = capsys.readouterr().out
    each = {reg: np.array([right(folder) for folder in folders], float) for reg, folders in groups.items()}
    by_image = stats.ttest_1samp(each["targetdrop"].mean(0) - each["none"].mean(0), 0)
    by_seed = stats.ttest_rel(each["targetdrop"].mean(1), each["none"].mean(1))
    found = {line.split("  ")[1]: line for line in out.splitlines() if line.startswith(("  new im", "  training a"))}
    for question, test in (("new images", by_image), ("training anew", by_seed)):
        low, high = test.confidence_interval(0.95)
        half, gain = 50 * (high - low), 50 * (high + low)
        if test.pvalue < 0.05:
            assert f"B is better than A by {gain:.2f} ± {half:.2f} points" in found[question]
        else:
            assert f"B - A is {100 * low:+.2f} .. {100 * high:+.2f} points (p = {test.pvalue:.2g})" in found[question]
    (gain,) = fewshot.difference(groups["targetdrop"], groups["none"])
    assert gain.pairs is None and gain.answers["new images"].p_value == pytest.approx(by_image.pvalue)
    assert gain.answers["training anew"].p_value == pytest.approx(by_seed.pvalue)


def test_more_than_two_are_ranked_with_holms_p_values(tmp_path, capsys):
    skills = {"none": 0.8, "dropout": 0.9, "cutout": 0.901}
    assert run(*(fabricate(tmp_path / name, skill) for name, skill in skills.items())) == 0
    out = capsys.readouterr().out
    ranks = [line.split()[:2] for line in out.splitlines() if line.startswith("  1") or line.startswith("  3")]
    assert sorted(ranks) == [["1", "B"], ["1", "C"], ["3", "A"]]
    assert "Holm's over all 3 pairs" in out


def test_seeds_that_scatter_leave_the_rank_open(tmp_path, capsys):
    """On these images `none` is certainly worse; its two seeds do not say whether it would be if trained again."""
    folders = [fabricate(tmp_path / "none" / f"seed{seed}", skill, seed) for seed, skill in enumerate((0.8, 0.95))]
    assert run(*folders, fabricate(tmp_path / "dropout", 0.93)) == 0
    ranks = [line.split()[:2] for line in capsys.readouterr().out.splitlines() if line.startswith(("  1 ", "  2 "))]
    assert ranks == [["1", "B"], ["1", "A"]]


def test_from_python(tmp_path):
    a, b = fabricate(tmp_path / "none", 0.88), fabricate(tmp_path / "targetdrop", 0.91)
    (found,) = fewshot.difference(b, a, detect=1.0, names=("new", "old"))
    assert found.pairs == Pairs.of(right(b), right(a)) and found.size == 0.01 and found.images == IMAGES
    assert found.needs["new images"].have == IMAGES / CLASSES
    assert "new is better than old" in str(found) and "new alone on" in str(found)


def test_other_images_are_refused(tmp_path, capsys):
    a = fabricate(tmp_path / "none")
    assert run(a, fabricate(tmp_path / "cutout", pixels="e" * 64)) == 2
    assert "pixels differ" in one_line_error(capsys)
    assert run(a, fabricate(tmp_path / "dropout", truth=TRUTH[::-1])) == 2  # its images have other true classes
    assert "these are not the same images" in one_line_error(capsys)


def test_images_of_validation_are_compared_where_they_are_asked_for(tmp_path, capsys):
    runs = [fabricate(tmp_path / name, split="val") for name in ("none", "cutout")]
    assert run(*runs) == 2
    assert "nothing of the test split" in one_line_error(capsys)
    assert run(*runs, "--split", "val") == 0
    assert "birds val, 1,000 images of 10 classes" in capsys.readouterr().out
    assert run(*runs, "--split", "val", "--head", "proto") == 2
    assert "has no val result by proto (there are none by any head)" in one_line_error(capsys)
    seen = [fabricate(tmp_path / name, split="train", seen_in_training={"images": 9}) for name in ("dropout", "l1")]
    assert run(*seen, "--split", "train") == 2
    said = "saw the train images: classifiers are not compared on what they were trained on"
    assert f"the training of {seen[0]} {said}" in one_line_error(capsys)


def test_a_run_that_was_only_scored_on_tasks_shares_nothing(tmp_path, small_run, capsys):
    a = fabricate(tmp_path / "none")
    assert run(a, small_run) == 2
    assert "birds test images" in (error := one_line_error(capsys)) and "5-way 1-shot" in error


def test_the_better_one_may_be_the_second(tmp_path):
    worse, better = fabricate(tmp_path / "none", 0.88), fabricate(tmp_path / "targetdrop", 0.91)
    (found,) = fewshot.difference(worse, better)
    low, high = newcombe(Pairs.of(right(better), right(worse)))
    gain = right(better).mean() - right(worse).mean()
    assert f"B is better than A by {100 * gain:.2f} ({100 * low:.2f} .. {100 * high:.2f})" in str(found)


def test_a_plan_for_three_networks_is_at_holms_level(tmp_path, capsys):
    skills = {"none": 0.88, "dropout": 0.9, "cutout": 0.901}
    folders = [fabricate(tmp_path / name, skill) for name, skill in skills.items()]
    assert run(*folders, "--detect", "0.5") == 0
    best, second, _ = sorted(map(right, folders), key=lambda each: -each.mean())
    variance = np.var(1.0 * best - second, ddof=1)
    images = needed(0.005, Units(IMAGES, variance), level=0.05 / 3)
    planned = re.search(r"new images +about ([\d,]+) images", capsys.readouterr().out)[1]
    assert int(planned.replace(",", "")) == -(-images // CLASSES)
