"""python -m fewshot.compare: what it concludes, and what it refuses to compare."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from boards import edit, reseal, variant
from commands import SMALL, command, one_line_error
from scipy import stats

import fewshot
from fewshot import compare, train
from fewshot.config import TrainConfig
from fewshot.core import console
from fewshot.evaluation.comparison import QUESTIONS
from fewshot.evaluation.intervals import Interval
from fewshot.evaluation.records import Outcomes, Record, keep
from fewshot.reports.comparisons.conclusions import conclusions
from fewshot.runs import Run

EPISODES, CLASSES = 2000, 20
RANDOM = np.random.default_rng(0)
TASKS = RANDOM.random((EPISODES, CLASSES)).argsort(1)[:, :5]  # the classes of each episode
APART = np.concatenate([RANDOM.permutation(CLASSES).reshape(4, 5) for _ in range(37)])
NO_GAIN = np.zeros(CLASSES)
HARDNESS = RANDOM.normal(0.5, 0.1, CLASSES)


def run(*args) -> int:
    return console.run(compare.main, [str(arg) for arg in args])


def fabricate(folder, gain=NO_GAIN, noise=0.03, seed=0, old=False, shots=1, config=None, **changes):
    """A finished run: an episode's accuracy is the mean of hardness + gain over its classes, plus noise."""
    made = TrainConfig(seed=seed, **(config or {"reg": folder.name}))
    Run.create(made, str(folder), {"fingerprint": "f" * 64})
    return evaluated(folder, gain, noise, seed, old, shots=shots, **changes)


def evaluated(folder, gain=NO_GAIN, noise=0.03, seed=0, old=False, **changes):
    """One more result of a run; `changes` override fields of its row."""
    made = Run(folder)
    random = np.random.default_rng([seed, *folder.name.encode()])
    tasks, apart = (
        Outcomes((HARDNESS + gain)[classes].mean(1) + random.normal(0, noise, len(classes)), classes)
        for classes in (TASKS, APART)
    )
    row = {"dataset": "birds", "split": "test", "ways": 5, "shots": 1, "queries": 15, "episodes": EPISODES,
           "episodes_seed": 0, "episodes_digest": "d" * 64, "fingerprint": "f" * 64, "head": "proto"}  # fmt: skip
    row |= changes
    files = keep(made, f"birds-{row['split']}-5w{row['shots']}s15q", Record(tasks, apart))
    if old:
        del files["tasks_file"]
    made.write_result([files | row])
    return folder


def said(capsys) -> dict[str, list[str]]:
    """What was said about each question, in order."""
    lines = re.findall(rf"^  ({'|'.join(QUESTIONS)})  +(.*)$", capsys.readouterr().out, re.M)
    return {question: [text for name, text in lines if name == question] for question, _ in lines}


def test_each_question_has_its_own_answer(tmp_path, capsys):
    """B gains on average on these classes; by class, the gain is -8 to +12 points: it may lose on other classes."""
    gain = np.linspace(-0.08, 0.12, CLASSES)
    a, b = fabricate(tmp_path / "none"), fabricate(tmp_path / "targetdrop", gain)
    assert run(a, b) == 0
    answers = said(capsys)
    accuracies = [np.load(folder / "episodes-birds-test-5w1s15q.npy").astype(float) for folder in (a, b)]
    test = stats.ttest_rel(accuracies[1], accuracies[0])
    half = np.diff(test.confidence_interval(0.95)).item() / 2
    change = accuracies[1].mean() - accuracies[0].mean()
    expected = f"B is better than A by {100 * change:.2f} ± {100 * half:.2f} points (p < 0.001)"
    assert answers["this test set"] == [expected]
    assert answers["new images"][0].startswith("B is better than A by 2.")
    found = re.match(r"a difference is not established: B - A is (.*) \.\. (.*) points", answers["new classes"][0])
    expected = 2 + np.array([-1, 1]) * stats.t.ppf(0.975, 19) * 100 * gain.std(ddof=1) / 20**0.5
    assert (float(found[1]), float(found[2])) == pytest.approx(expected, abs=0.3)
    assert answers["training anew"] == ["nothing is known: that takes two training seeds or more, the same for all"]


def test_seeds_of_one_configuration_are_one_entry_and_are_paired(tmp_path, capsys):
    """C is better with every seed, by about as much each time; B is better with one seed only."""
    gains = {"none": (0, 0, 0), "dropout": (-0.03, 0, 0.05), "targetdrop": (0.03, 0.032, 0.031)}
    easy = (0.0, 0.04, -0.04)  # for every configuration, by seed
    folders = []
    for reg, by_seed in gains.items():
        for seed, gain in enumerate(by_seed):
            config = {"reg": reg, "device": "cpu" if seed else "auto", "threads": seed}
            folders.append(fabricate(tmp_path / f"{reg}{seed}", gain + easy[seed], seed=seed, config=config))
    assert run(*folders) == 0
    out = capsys.readouterr()
    assert "  C  reg=targetdrop, seeds 0 1 2\n" in out.out and "device=" not in out.out
    assert f"     {tmp_path}/targetdrop{{0,1,2}}\n" in out.out, "a line of its own, whole"
    print(out.out)
    answers = said(capsys)
    assert [text[:20] for text in answers["this test set"]] == ["C is better than B b", "C is better than A b"]
    assert answers["training anew"][0].startswith("a difference is not established: C - B is -")
    assert answers["training anew"][1].startswith("C is better than A by 3.1")


def test_runs_that_cannot_be_told_apart_share_a_rank(tmp_path, capsys):
    names = ("none", "dropout", "targetdrop")
    folders = [fabricate(tmp_path / name, gain) for name, gain in zip(names, (0, 0.0001, 0.05), strict=True)]
    assert run(*folders) == 0
    out = capsys.readouterr().out
    (first, best), (second, _), (third, _) = re.findall(r"^  (\d) +([ABC]) +\d", out, re.M)
    assert (first, best, second, third) == ("1", "C", "2", "2")
    assert "Holm's over all 3 pairs" in out


def test_it_ranks_by_the_leaderboards_rule(tmp_path, capsys):
    """On these tasks all three certainly differ; seeds that scatter leave open whether they would if trained again."""
    gains = {"none": (0.02,), "dropout": (-0.05, 0.05), "targetdrop": (0.2, 0.2001)}
    folders = [
        fabricate(tmp_path / f"{reg}{seed}", gain, seed=seed, config={"reg": reg})
        for reg, by_seed in gains.items()
        for seed, gain in enumerate(by_seed)
    ]
    assert run(*folders) == 0
    ranks = re.findall(r"^  (\d) +([ABC]) +\d", capsys.readouterr().out, re.M)
    assert ranks == [("1", "C"), ("1", "B"), ("2", "A")]


def test_old_runs_are_compared_as_far_as_they_go(tmp_path, capsys):
    assert run(fabricate(tmp_path / "none", old=True), fabricate(tmp_path / "dropout")) == 0
    answers = said(capsys)
    assert answers["new images"] == ["not kept by these runs: evaluate again for that"]
    # The episodes are the same, so one run's classes are the other's.
    assert answers["new classes"][0].startswith("a difference is not established")


def test_tasks_that_share_no_image_are_the_same_for_all(tmp_path, capsys):
    one, other = fabricate(tmp_path / "none"), fabricate(tmp_path / "dropout")
    kept = dict(np.load(other / "tasks-birds-test-5w1s15q.npz"))
    np.savez(other / "tasks-birds-test-5w1s15q.npz", **kept | {"disjoint_classes": kept["disjoint_classes"][::-1]})
    reseal(other)
    assert run(one, other) == console.USER_ERROR
    assert "these are not the same tasks" in one_line_error(capsys)


def test_trained_runs_from_the_command_line(small_run, tmp_path):
    other = tmp_path / "none"
    assert console.run(train.main, [*SMALL, "--reg", "none", "--out", str(other)]) == 0
    done = command("compare", small_run, other)
    assert done.returncode == 0, done.stderr
    assert "glyphs test 5-way 1-shot, 15 queries a class, 50 episodes" in done.stdout
    means = [np.load(folder / "episodes-glyphs-test-5w5s15q.npy").mean() for folder in (small_run, other)]
    assert all(f"{100 * mean:.2f} ± " in done.stdout for mean in means)
    assert f"  B  reg=none, seed 0\n     {other}\n" in done.stdout, "names stay whole, however long"


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"shots": 5}, "under birds test 5-way 1-shot of 15 queries and birds test 5-way 5-shot"),
        ({"episodes_digest": "e" * 64}, "no tasks: their birds test 5-way 1-shot episodes differ (2,000 and 2,000"),
        ({"fingerprint": "0" * 64}, "pixels differ: "),
        ({"head": "r2d2"}, "scored under birds test 5-way 1-shot of 15 queries and nothing"),
        ({"episodes": 1999}, "episodes-birds-test-5w1s15q.npy is not what result.json says"),
        ({"episodes_file": "gone.npy"}, "gone.npy is missing"),
        ({"tasks_file": "config.json"}, "config.json is damaged"),
        ({"tasks_file": "episodes-birds-test-5w1s15q.npy"}, "damaged"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_compared_is_one_line(changes, expected, tmp_path, capsys):
    assert run(fabricate(tmp_path / "none"), fabricate(tmp_path / "dropout", **changes)) == console.USER_ERROR
    assert expected in one_line_error(capsys)


def test_a_protocol_that_is_not_compared_is_named(tmp_path, capsys):
    """The others are compared, and silence would suggest that all were."""
    one, other = fabricate(tmp_path / "none"), fabricate(tmp_path / "dropout")
    evaluated(one, shots=5)
    evaluated(other, shots=5, episodes_digest="e" * 64)
    evaluated(one, shots=10, fingerprint="0" * 64)
    evaluated(other, shots=10)
    evaluated(one, shots=20)
    assert run(one, other) == 0
    out = capsys.readouterr().out
    assert "birds test 5-way 1-shot, 15 queries a class" in out and "5-shot, 15" not in out and "10-shot, 15" not in out
    warnings = [line for line in out.splitlines() if line.startswith("warning: not compared: birds test 5-way ")]
    assert len(warnings) == 3
    assert f"5-shot of 15 queries: {one} and {other} share no tasks" in warnings[0] and "evaluate both" in warnings[0]
    assert "10-shot of 15 queries: pixels differ" in warnings[1] and "evaluate both on one copy" in warnings[1]
    assert f"20-shot of 15 queries: there is no such result of {other}; evaluate all alike" in warnings[2]
    with pytest.warns(UserWarning) as told:
        (found,) = fewshot.difference(one, other)
    assert found.shots == 1
    assert [f"warning: {each.message}" for each in told] == warnings and told[0].filename == __file__


def test_only_the_test_split_is_a_test(tmp_path, capsys):
    config = {name: {"reg": name, "dataset": "birds"} for name in ("none", "dropout")}
    runs = [fabricate(tmp_path / name, config=its) for name, its in config.items()]
    for folder in runs:
        evaluated(folder, split="val")
        evaluated(folder, split="train", seen_in_training={"classes": CLASSES, "images": 600})
    assert run(*runs) == 0
    out = capsys.readouterr().out
    assert "birds test" in out and "birds val" not in out and "birds train" not in out and "warning" not in out
    for split, said in (("val", "chose the weights: this is no test"), ("train", "were trained on these images")):
        assert run(*runs, "--split", split) == 0
        out = capsys.readouterr().out
        assert f"birds {split} 5-way 1-shot" in out and "birds test" not in out and said in out
        (found,) = fewshot.difference(*runs, split=split)
        assert found.split == split
    assert [found.split for found in fewshot.difference(*runs)] == ["test"]
    with pytest.raises(fewshot.UserError, match="split='all': give one of train, val, test"):
        fewshot.difference(*runs, split="all")


def test_runs_without_a_test_in_common_say_what_they_have(tmp_path, capsys):
    runs = [fabricate(tmp_path / name, split="val") for name in ("none", "dropout")]
    assert run(*runs) == console.USER_ERROR
    assert "nothing of the test split" in one_line_error(capsys)
    assert run(*runs, "--split", "train") == console.USER_ERROR
    assert "evaluate both by evaluate --split train" in one_line_error(capsys)


def test_heads_are_compared_on_the_same_networks(tmp_path, capsys):
    """The head's gain by seed is 4.0, 4.1 and 3.9 points: each network is paired with itself."""
    folders = []
    for seed, (easy, gain) in enumerate(((0.1, 0.04), (-0.1, 0.041), (0, 0.039))):
        folders.append(fabricate(tmp_path / f"none{seed}", easy, seed=seed, config={"reg": "none"}))
        evaluated(folders[-1], easy + gain, seed=seed, head="svm", transform="l2")
    assert run(*folders, "--head", "proto", "svm", "--transform", "none", "l2") == 0
    out = capsys.readouterr()
    assert "  A  solver=proto, seeds 0 1 2\n" in out.out and "  B  solver=svm after l2, seeds 0 1 2\n" in out.out
    assert "has no test result by svm (there are results by proto, svm after l2): make it by python -m" in out.out
    assert f"fewshot.evaluate {folders[1]} --head svm --transform none\n" in out.out
    print(out.out)
    answers = said(capsys)
    assert answers["this test set"][0].startswith("B is better than A by 4.0")
    assert answers["training anew"][0].startswith("B is better than A by 4.0")

    assert run(folders[0], "--head", "proto", "--transform", "none", "l2") == console.USER_ERROR
    assert f"evaluate {folders[0]} --head proto --transform l2" in one_line_error(capsys)
    evaluated(folders[0], head="proto", transform="l2")
    assert run(folders[0], "--head", "proto", "--transform", "none", "l2") == 0, "one run by two solvers"
    assert f"     {folders[0]}\n" in capsys.readouterr().out
    theirs = fabricate(tmp_path / "theirs", config={"reg": "none", "head": "somebodys.Head"})
    assert run(theirs, folders[0], "--transform", "l2") == console.USER_ERROR
    assert f"evaluate {theirs} --transform l2" in one_line_error(capsys), "what a folder names is not imported"
    assert run(folders[0], "--head", "proto") == console.USER_ERROR
    assert "or two heads after --head" in one_line_error(capsys)


def test_networks_are_compared_by_another_head_than_their_own(tmp_path, capsys):
    config = {"none": {"reg": "none"}, "r2d2": {"reg": "none", "head": "r2d2"}}
    one, other = (fabricate(tmp_path / name, config=its, head="svm") for name, its in config.items())
    assert run(one, other) == console.USER_ERROR
    assert "nothing of the test split" in one_line_error(capsys)
    assert run(one, other, "--head", "svm") == 0
    out = capsys.readouterr().out
    assert "  A  head=proto, seed 0\n" in out and "  B  head=r2d2, seed 0\n" in out
    (found,) = fewshot.difference(one, other, head="svm")
    assert (found.shots, found.queries) == (1, 15) and "this test set" in found.answers
    with pytest.raises(fewshot.UserError, match="--head logreg"):
        fewshot.difference(one, other, head="logreg")
    with pytest.raises(fewshot.UserError, match="unknown head 'svn'. Did you mean 'svm'?"):
        fewshot.difference(one, other, head="svn")


def test_a_result_in_another_precision_than_its_fellows_is_named(tmp_path, capsys):
    folders = []
    for reg, seed in (("none", 0), ("none", 1), ("dropout", 0)):
        odd = (reg, seed) == ("none", 1)
        by = {"precision": "fp32" if odd else "bf16", "device": "a processor"}
        name = tmp_path / f"{reg}{seed}"
        folders.append(fabricate(name, seed=seed, config={"reg": reg}, evaluated_by=by))
        Run(name).note_sitting("a processor", "bf16", 1)
    assert run(*folders) == 0
    out = capsys.readouterr().out
    (warning,) = [line for line in out.splitlines() if line.startswith("warning")]
    assert f"{folders[1]} was trained in bf16 and evaluated in fp32" in warning and "--precision bf16" in warning
    for folder in (folders[0], folders[2]):
        edit(folder / "result.json", lambda value: value["results"][0]["evaluated_by"].update(precision="fp32"))
    assert run(*folders) == 0
    assert "warning" not in capsys.readouterr().out, "all alike"


def test_a_run_has_nothing_to_say_of_itself(tmp_path, capsys):
    one = fabricate(tmp_path / "none")
    assert run(one, one.parent / "." / "none") == console.USER_ERROR
    assert "is one run: give another" in one_line_error(capsys)
    copy = shutil.copytree(one, tmp_path / "copy")
    assert run(one, copy) == console.USER_ERROR
    assert "are one training, seed included" in one_line_error(capsys)
    assert run(one, fabricate(tmp_path / "again", seed=1, config={"reg": "none"})) == console.USER_ERROR
    assert "nothing to compare" in one_line_error(capsys)


def test_a_foreign_or_damaged_result_is_one_line(tmp_path, capsys):
    one, other = fabricate(tmp_path / "none"), fabricate(tmp_path / "dropout")
    (other / "result.json").write_text(json.dumps({"results": [{"accuracy": 0.5}]}))
    reseal(other)
    assert run(one, other) == console.USER_ERROR
    assert "is not a result of ours" in one_line_error(capsys)
    (other / "result.json").unlink()
    assert run(one, other) == console.USER_ERROR
    assert "is missing" in one_line_error(capsys)
    assert run(one, tmp_path / "nowhere") == console.USER_ERROR
    assert "is not a run folder" in one_line_error(capsys)


def test_a_run_that_cannot_be_read_is_left_out_as_long_as_two_configurations_remain(tmp_path, capsys):
    folders = [fabricate(tmp_path / name) for name in ("none", "dropout", "cutout", "targetdrop")]
    (folders[2] / "result.json").unlink()  # as after a training that diverged
    np.save(folders[3] / "episodes-birds-test-5w1s15q.npy", np.full(EPISODES, np.nan))
    reseal(folders[3])
    assert run(*folders, tmp_path / "notes.txt") == 0
    out = capsys.readouterr().out
    warnings = [line for line in out.splitlines() if line.startswith("warning: left out: ")]
    assert len(warnings) == 3
    for warning, text in zip(
        warnings, ("cutout/result.json is missing", "is not what", "not a run folder"), strict=True
    ):
        assert text in warning
    assert "B against A" in out or "A against B" in out
    assert "  C  " not in out
    assert run(*folders[1:]) == console.USER_ERROR
    error = one_line_error(capsys)
    assert "result.json is missing" in error and "is not what result.json says" in error


def test_runs_of_different_code_are_separate_entries(tmp_path, capsys, monkeypatch):
    codes = {"a": "a" * 8, "b": "b" * 8, "c": ""}
    monkeypatch.setattr(Run, "code_digest", property(lambda run: codes[run.folder.name]))
    assert run(*(fabricate(tmp_path / name, config={"reg": "none"}, seed=seed) for seed, name in enumerate("abc"))) == 0
    out = capsys.readouterr().out
    for line in (f"  A  code={'a' * 8}, seed 0\n", f"  B  code={'b' * 8}, seed 1\n", "  C  code=unknown, seed 2\n"):
        assert line in out
    assert out.count("were trained by different code, so that they are not seeds of one entry") == 3


def test_another_recipe_name_is_the_same_configuration(tmp_path, capsys):
    config = {"reg": "none", "recipe": "glyphs"}
    one, other = fabricate(tmp_path / "a", config=config), fabricate(tmp_path / "b", config=config | {"recipe": "none"})
    assert run(one, other) == console.USER_ERROR
    assert "are one training, seed included" in one_line_error(capsys)


def test_transductive_results_are_not_compared_with_inductive_ones(tmp_path, capsys):
    folders = [fabricate(tmp_path / "none"), fabricate(tmp_path / "dropout", setting="transductive")]
    assert run(*folders) == console.USER_ERROR
    assert "birds test 5-way 1-shot, transductive of 15 queries" in one_line_error(capsys)
    assert run(folders[1], fabricate(tmp_path / "cutout", setting="transductive")) == 0
    assert "birds test 5-way 1-shot, transductive, 15 queries a class" in capsys.readouterr().out


def test_another_precision_is_another_configuration(tmp_path, capsys):
    for precision in ("fp32", "bf16"):
        Run(fabricate(tmp_path / precision, config={"reg": "none"})).note_environment(precision=precision)
    assert run(tmp_path / "fp32", tmp_path / "bf16") == 0
    assert "precision=bf16" in capsys.readouterr().out


# ---- what it would take


def takes(text: str) -> dict[str, str]:
    return dict(re.findall(r"^    (new images|new classes|training anew) +(.*)$", text, re.M))


def test_what_it_would_take_is_said_for_each_question(tmp_path, capsys):
    """Three seeds each; by seed, B's advantage is 1, 3 and 2 points, with normal noise of the tasks."""
    folders = [
        fabricate(tmp_path / f"{reg}{seed}", gain, seed=seed, config={"reg": reg})
        for reg, gains in (("none", (0, 0, 0)), ("targetdrop", (0.01, 0.03, 0.02))) for seed, gain in enumerate(gains)
    ]  # fmt: skip
    assert run(*folders) == 0
    out = capsys.readouterr().out
    by_seed = [
        np.load(tmp_path / f"targetdrop{seed}/episodes-birds-test-5w1s15q.npy").mean(dtype=float)
        - np.load(tmp_path / f"none{seed}/episodes-birds-test-5w1s15q.npy").mean(dtype=float)
        for seed in range(3)
    ]
    size, spread = np.mean(by_seed), np.std(by_seed, ddof=1)

    def power(n: int) -> float:
        critical, shift = stats.t.ppf(0.975, n - 1), size / (spread / n**0.5)
        return stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)

    seeds = next(n for n in range(2, 100) if power(n) >= 0.8)
    assert f"To establish {100 * size:.2f} points with 80% power, such a study takes" in out
    assert takes(out)["training anew"].startswith(f"about {seeds} training seeds each, {seeds - 3} more than now (95%")
    enough = "no more images of each class: the 592 that tasks without a common image use will do"
    assert takes(out)["new images"] == enough
    assert takes(out)["new classes"].startswith("no more test classes: the 20 there are will do")
    assert run(*folders, "--detect", "0.2") == 0
    out = capsys.readouterr().out
    assert "To establish 0.20 points" in out
    assert re.match(r"about [\d,]+ training seeds each, ", takes(out)["training anew"])
    assert run(*folders, "--detect", "0.0001") == 0
    out = capsys.readouterr().out
    assert takes(out)["training anew"] == "more training seeds each than can be had, or more episodes"


def test_one_seed_shows_no_spread_and_no_difference_needs_a_size(tmp_path, capsys):
    one, other = fabricate(tmp_path / "none"), fabricate(tmp_path / "dropout", 0.001)
    assert run(one, other) == 0
    assert takes(capsys.readouterr().out)["training anew"] == (
        "not known: that takes two training seeds or more, the same for all"
    )
    assert run(*(fabricate(tmp_path / name, noise=0) for name in ("cutout", "dropblock"))) == 0
    assert "No difference was seen. What it takes to establish one of 0.5 points: --detect 0.5" in (
        capsys.readouterr().out
    )
    assert run(tmp_path / "cutout", tmp_path / "dropblock", "--detect", "0.5") == 0
    assert takes(capsys.readouterr().out) == {
        "new images": "not known: no spread between images was measured",
        "new classes": "not known: no spread between classes was measured",
        "training anew": "not known: that takes two training seeds or more, the same for all",
    }
    seeds = [fabricate(tmp_path / f"{name}-{seed}", gain, noise=0, seed=seed, config={"reg": name})
             for name, gain in (("gone", 0), ("come", 0.01)) for seed in (0, 1, 2)]  # fmt: skip
    assert run(*seeds, "--detect", "0.5") == 0
    assert takes(capsys.readouterr().out)["training anew"] == "not known: no spread between seeds was measured"
    for wrong in ("0", "-1", "101", "nan"):
        assert run(one, other, f"--detect={wrong}") == console.USER_ERROR
        assert "a difference in points, above 0 and at most 100" in one_line_error(capsys)


def test_more_pairs_take_more(tmp_path, capsys):
    folders = [fabricate(tmp_path / name, gain) for name, gain in (("none", 0), ("dropout", 0.02), ("cutout", 0.01))]
    numbers = []
    for some in (folders[:2], folders):
        assert run(*some, "--detect", "0.3") == 0
        out = capsys.readouterr().out
        numbers.append(int(re.search(r"new images +about ([\d,]+) images", out)[1].replace(",", "")))
    assert numbers[1] > numbers[0] and "What it would take is for a test at 5% / 3." in out
    headings = re.compile(r"^[A-C] against [A-C]$", re.M)
    assert headings.findall(out) == ["B against C", "B against A"]
    assert run(*folders, "--all-pairs") == 0
    assert headings.findall(capsys.readouterr().out) == ["B against C", "B against A", "C against A"]


def test_only_seeds_that_both_have_tell_of_training_anew(tmp_path, capsys):
    def seeds(reg: str, *numbers: int) -> list:
        return [fabricate(tmp_path / f"{reg}{n}", seed=n, config={"reg": reg}) for n in numbers]

    ours, theirs, others = seeds("none", 0, 1), seeds("dropout", 1, 2), seeds("cutout", 5)
    expected = "nothing is known: that takes two training seeds or more, the same for all; these share"
    for some, shared in ((theirs, "seed 1 alone"), (others, "none")):
        assert run(*ours, *some) == 0
        assert said(capsys)["training anew"] == [f"{expected} {shared}"]


def test_a_method_without_effect_is_pointed_out(tmp_path, capsys):
    one, other = fabricate(tmp_path / "none"), fabricate(tmp_path / "dropout")
    record = "episodes-birds-test-5w1s15q.npy"
    assert not np.array_equal(np.load(one / record), np.load(other / record))
    assert run(one, other) == 0
    assert "They scored the same" not in capsys.readouterr().out
    same = fabricate(tmp_path / "a", noise=0), fabricate(tmp_path / "b", noise=0, config={"reg": "cutout"})
    assert run(*same) == 0
    assert "They scored the same in every task: what differs between them may have no effect" in capsys.readouterr().out


def test_difference_is_compare_from_python(tmp_path, capsys):
    ours, theirs = (
        [fabricate(tmp_path / f"{reg}{seed}", gain, seed=seed, config={"reg": reg}) for seed in range(2)]
        for reg, gain in (("targetdrop", 0.02), ("none", 0))
    )
    (found,) = fewshot.difference(ours, [Run.open(folder) for folder in theirs])
    assert run(*ours, *theirs) == 0
    out = capsys.readouterr().out
    lines = str(found).splitlines()
    assert lines[0] in out and "\n".join(lines[1:]) in out, "A is the first, and the better one"
    assert found.answers["this test set"].estimate == found.size == pytest.approx(0.02, abs=0.002)
    assert (found.dataset, found.ways, found.shots, found.episodes) == ("birds", 5, 1, EPISODES)
    (turned,) = fewshot.difference(theirs, ours, detect=0.5, names=("plain", "drop"))
    assert turned.answers["new classes"].estimate == pytest.approx(-found.answers["new classes"].estimate)
    assert turned.size == 0.005 and "drop is better than plain" in str(turned)
    assert fewshot.difference(ours[0], theirs[0])[0].needs["training anew"].startswith("nothing is known")
    for wrong, why in (
        ((ours, [*theirs, fabricate(tmp_path / "dropout")]), "some here are of a third"),
        (([ours[0], theirs[0]], [ours[1], theirs[1]]), "here both are mixed"),
    ):
        with pytest.raises(fewshot.UserError, match=f"the runs of one configuration, and then those of another: {why}"):
            fewshot.difference(*wrong)
    with pytest.raises(fewshot.UserError, match="nothing to compare"):
        fewshot.difference(ours[0], ours[1])
    edit(theirs[1] / "config.json", lambda config: config["resolved"].update(code={"ours": {}, "users": {"a.py": "1"}}))
    with pytest.raises(fewshot.UserError, match=f"different code trained {theirs[0]} and {theirs[1]}"):
        fewshot.difference(ours, theirs)
    with pytest.raises(fewshot.UserError, match="above 0"):
        fewshot.difference(ours, theirs, detect=-1)


def test_classes_that_training_saw_tell_nothing_of_new_ones(tmp_path, capsys):
    saw = fabricate(tmp_path / "dropout", 0.02, seen_in_training={"classes": 3})
    assert run(fabricate(tmp_path / "none"), saw) == 0
    out = capsys.readouterr().out
    print(out)
    answers = said(capsys)
    assert answers["new classes"] == ["nothing is known: training saw these classes"]
    assert answers["new images"][0].startswith("B is better than A"), "it saw none of the images"
    assert f"warning: {saw} was trained on 3 classes of birds test: its accuracy is not one on new ones\n" in out
    assert takes(out)["new classes"] == "not known: training saw these classes"


def test_results_on_a_list_of_ones_own_are_told_from_those_on_the_usual_one(tmp_path, capsys):
    runs = [fabricate(tmp_path / name) for name in ("none", "dropout")]
    for each in runs:
        evaluated(each, seed=1, episodes_seed=7, episodes_digest="e" * 64)
    assert run(*runs) == 0
    titles = re.findall("birds test 5-way 1-shot(.*), 15 queries", capsys.readouterr().out)
    assert sorted(titles) == ["", ", tasks of seed 7"]
    assert {found.episodes_seed for found in fewshot.difference(*runs)} == {0, 7}


@pytest.mark.parametrize(
    ("p_value", "shown"),
    [(0.0496, "0.0496"), (0.0504, "0.05"), (0.05, "0.05"), (0.049999, "0.049999"), (0.0123, "0.012")],
)
def test_a_p_value_is_shown_on_its_side_of_the_threshold(p_value, shown):
    gain = Interval(0.01, -0.01, 0.03, 0.95, "", "", p_value)
    (line,) = conclusions("A", "B", {"training anew": gain})[1:]
    assert line.endswith(f"(p = {shown})") and ("better" in line) == (p_value < 0.05)


def test_a_loop_of_links_is_one_line(tmp_path, capsys):
    (tmp_path / "loop").symlink_to("loop")
    assert run(tmp_path / "loop", tmp_path / "other") == console.USER_ERROR
    assert "loop" in one_line_error(capsys)


def test_the_number_of_processes_is_said_also_where_it_is_one(small_run, tmp_path, capsys):
    one, two = (variant(small_run, tmp_path / name) for name in ("one", "two"))
    edit(two / "environment.json", lambda facts: facts["sittings"][0].update(processes=2))
    assert run(one, two) == 0
    out = capsys.readouterr().out
    assert "processes=1" in out and "processes=2" in out
