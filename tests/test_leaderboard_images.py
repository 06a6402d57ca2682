"""python -m fewshot.leaderboard of classification results: a table of their own, in every form."""

from __future__ import annotations

import csv
import json
import shutil

import image_runs
import numpy as np
import pytest
from boards import edit
from commands import one_line_error
from image_runs import IMAGES, fabricate, right
from scipy import stats

from fewshot import leaderboard
from fewshot.core import console


def board(runs, out, *flags) -> list[dict[str, str]]:
    """The classification rows that the command writes."""
    assert console.run(leaderboard.main, ["--runs", str(runs), "--csv", str(out), *map(str, flags)]) == 0
    with open(out.with_name(f"{out.stem}-classification.csv"), newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    for reg, skill in (("none", 0.8), ("dropout", 0.9), ("cutout", 0.902)):
        fabricate(folder / reg, skill)
    return folder


def test_among_five_classes_the_first_five_say_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(image_runs, "CLASSES", 5)
    fabricate(tmp_path / "runs" / "cutout", truth=np.arange(IMAGES) // (IMAGES // 5))
    (row,) = board(tmp_path / "runs", tmp_path / "l.csv")
    assert (row["classes"], row["top5"]) == ("5", "")


def test_rows_are_ranked_by_mcnemars_test(runs, tmp_path, capsys):
    rows = board(runs, tmp_path / "l.csv")
    assert not (tmp_path / "l.csv").exists()  # there is no few-shot row
    assert [(row["rank"], row["regularizer"]) for row in rows] in (
        [("1", "cutout"), ("1", "dropout"), ("3", "none")], [("1", "dropout"), ("1", "cutout"), ("3", "none")],
    )  # fmt: skip
    for row in rows:
        accuracy = right(runs / row["run"])
        interval = stats.binomtest(int(accuracy.sum()), IMAGES).proportion_ci(method="wilson")
        figures = (accuracy.mean(), interval.low, interval.high, 1 - accuracy.mean(), 1.0)
        names = ("top1", "ci95_low", "ci95_high", "error", "top5")
        assert [row[name] for name in names] == [f"{100 * figure:.2f}" for figure in figures]
        assert (row["rank_by"], row["tasks"], row["classifier"]) == ("paired differences", "common", "linear")
    out = capsys.readouterr().out
    assert "birds, 10 classes" in out and "1,000 test images" in out and "McNemar's test" in out


def test_they_never_stand_among_few_shot_rows(runs, small_run, tmp_path, capsys):
    """The few-shot CSV is the same to the byte as without them; Markdown and page have both, in separate places."""
    shutil.copytree(small_run, tmp_path / "few" / "small")
    alone = ["--runs", str(tmp_path / "few"), "--csv", str(tmp_path / "few.csv")]
    assert console.run(leaderboard.main, alone) == 0
    assert not (tmp_path / "few-classification.csv").exists()
    shutil.copytree(small_run, runs / "small")
    files = ["--markdown", tmp_path / "l.md", "--html", tmp_path / "l.html"]
    rows = board(runs, tmp_path / "l.csv", *files)
    assert len(rows) == 3 and (tmp_path / "l.csv").read_bytes() == (tmp_path / "few.csv").read_bytes()
    markdown, page = (tmp_path / "l.md").read_text(), (tmp_path / "l.html").read_text()
    assert markdown.index("5-way 1-shot") < markdown.index("## birds, 10 classes") < markdown.index("McNemar")
    tasks, _, images = page.partition("</main>")
    assert "5-way 1-shot" in tasks and "birds" not in tasks.partition("<main")[2]
    assert "birds, 10 classes" in images and 'href="l-classification.csv"' in images
    assert "birds" not in page.partition('id="data">')[2].partition("</script>")[0]
    assert console.run(leaderboard.main, ["--runs", str(runs), "--csv", str(tmp_path / "l-classification.csv")]) == 2
    assert "is not a leaderboard of ours" in one_line_error(capsys)


def test_the_page_names_the_runs_where_nothing_else_tells_rows_apart(runs, tmp_path):
    board(runs, tmp_path / "l.csv", "--html", tmp_path / "l.html")
    assert "cutout-strong" not in (tmp_path / "l.html").read_text()
    edit(fabricate(runs / "cutout-strong", 0.9) / "config.json", lambda config: config.update(reg="cutout", lr=0.3))
    board(runs, tmp_path / "l.csv", "--html", tmp_path / "l.html")
    assert ">cutout-strong<" in (tmp_path / "l.html").read_text()


def test_seeds_are_one_row_and_append_merges_them(tmp_path, capsys):
    for part, seeds in (("one", (0, 1)), ("two", (2,))):
        for seed in seeds:
            fabricate(tmp_path / part / "cutout" / f"seed{seed}", 0.85 + 0.02 * seed, seed)
    out = tmp_path / "l.csv"
    assert len(board(tmp_path / "one", out)) == 1
    (row,) = board(tmp_path / "two", out, "--append")
    assert (row["seeds"], row["seed"], row["rank_by"]) == ("3", "0 1 2", "ci95")
    folders = [tmp_path / part / "cutout" / f"seed{seed}" for seed, part in enumerate(("one", "one", "two"))]
    each = np.array([right(folder).mean() for folder in folders])
    interval = stats.ttest_1samp(each, 0).confidence_interval(0.95)
    assert float(row["top1"]) == pytest.approx(100 * each.mean(), abs=0.006)
    assert float(row["ci95_low"]) == pytest.approx(100 * interval.low, abs=0.006)
    assert [run["top1"] for run in json.loads(row["each_run"])] == each.tolist()
    damaged = out.with_name("l-classification.csv")
    damaged.write_text(damaged.read_text().replace(row["top1"], "99.99"))
    assert console.run(leaderboard.main, ["--runs", str(tmp_path / "two"), "--csv", str(out), "--append"]) == 2
    assert "top1 of row 1 does not follow from its each_run" in one_line_error(capsys)


def test_a_negative_number_is_a_number(tmp_path):
    """Of two seeds far apart, the interval reaches below 0. Older files, which had an apostrophe there, are read."""
    for seed, accuracy in enumerate((0.1, 0.3)):
        fabricate(tmp_path / "runs" / f"seed{seed}", accuracy, seed, config={"reg": "none"})
    out = tmp_path / "l.csv"
    (row,) = board(tmp_path / "runs", out)
    assert float(row["ci95_low"]) < 0
    file = out.with_name("l-classification.csv")
    file.write_text(file.read_text().replace(f",{row['ci95_low']},", f",'{row['ci95_low']},"))
    assert board(tmp_path / "runs", out, "--append")[0]["ci95_low"] == row["ci95_low"]


def test_several_seeds_are_told_apart_image_by_image(tmp_path):
    for reg, skill in (("none", 0.85), ("cutout", 0.9)):
        for seed in range(2):
            fabricate(tmp_path / "runs" / reg / f"seed{seed}", skill, seed)
    fabricate(tmp_path / "runs" / "dropout", 0.901)
    rows = board(tmp_path / "runs", tmp_path / "l.csv")
    ranks = {row["regularizer"]: row["rank"] for row in rows}
    assert ranks["cutout"] == ranks["dropout"] == "1" and set(ranks) == {"none", "cutout", "dropout"}


def test_a_damaged_run_is_left_out(runs, tmp_path, capsys):
    record = runs / "none" / "images-birds-test.npz"
    record.write_bytes(record.read_bytes()[:-5])
    rows = board(runs, tmp_path / "l.csv")
    assert [row["regularizer"] for row in rows if row["regularizer"] == "none"] == [] and len(rows) == 2
    assert "none is left out" in capsys.readouterr().out


def test_other_pixels_are_another_board(runs, tmp_path):
    fabricate(runs / "targetdrop", 0.99, pixels="e" * 64)
    rows = board(runs, tmp_path / "l.csv")
    (alone,) = [row for row in rows if row["regularizer"] == "targetdrop"]
    assert (alone["tasks"], alone["rank"]) == ("other pixels", "1") and sum(row["rank"] == "1" for row in rows) == 3


def test_rows_that_were_trained_on_these_images_have_a_board_of_their_own(runs, tmp_path):
    result = runs / "cutout" / "result.json"
    edit(result, lambda value: value["classification"][0].update(seen_in_training={"images": 5}))
    rows = board(runs, tmp_path / "l.csv", "--markdown", tmp_path / "l.md")
    assert [row["rank"] for row in rows] == ["1", "2", "1"]
    assert rows[2]["regularizer"] == "cutout" and rows[2]["trained_on"].endswith(" (5 images of what is tested)")
    assert "## birds, 10 classes, trained on what is tested\n" in (tmp_path / "l.md").read_text()


def test_a_row_one_seed_of_which_guesses_is_marked(tmp_path):
    for reg, skills in (("none", (0.0, 0.9)), ("cutout", (0.9, 0.91))):
        for seed, skill in enumerate(skills):
            fabricate(tmp_path / "runs" / reg / f"seed{seed}", skill, seed)
    board(tmp_path / "runs", tmp_path / "l.csv", "--markdown", tmp_path / "l.md", "--html", tmp_path / "l.html")
    (marked,) = [line for line in (tmp_path / "l.md").read_text().splitlines() if "at chance" in line]
    assert " none " in marked and (tmp_path / "l.html").read_text().count("at chance") == 1


def test_a_file_of_runs_that_are_gone_does_not_look_like_those_of_now(runs, small_run, tmp_path):
    shutil.copytree(small_run, runs / "small")
    assert len(board(runs, tmp_path / "l.csv")) == 3
    assert (tmp_path / "l.csv").read_text().count("\n") == 3
    shutil.rmtree(runs / "small")
    board(runs, tmp_path / "l.csv")
    assert (tmp_path / "l.csv").read_text().count("\n") == 1, "the header"
