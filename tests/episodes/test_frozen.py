"""Frozen task lists: what they define is regenerated and verified; other data and damaged lists are refused."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re

import numpy as np
import pytest
from commands import ROOT

from fewshot.core.console import USER_ERROR, run
from fewshot.core.errors import UserError
from fewshot.data import Dataset, Split, open_dataset, specs
from fewshot.data.members import without_images
from fewshot.episodes import EpisodeSampler, Protocol, frozen

GLYPHS = open_dataset("glyphs")
NAME = "glyphs-test-5w5s15q"


def test_every_protocol_of_the_papers_has_a_list():
    datasets = ("cifar-fs", "fashion-mnist", "fc100", "glyphs", "mini-imagenet", "mini-imagenet-42", "omniglot")
    expected = {f"{d}-{s}-5w{n}s15q" for d in datasets for s in ("val", "test") for n in (1, 5)}
    expected |= {f"omniglot-test-20w{n}s15q" for n in (1, 5)}
    expected |= {f"{d}-test-5w{n}s{3 if d == 'glyphs' else 15}q-dirichlet2" for d in datasets[3:6] for n in (1, 5)}
    assert set(frozen.names()) == expected


@pytest.mark.parametrize("name", frozen.names())
def test_each_regenerates_on_any_pixels(name):
    """Membership needs no images: names and counts of classes are in the specifications."""
    tasks = frozen.read(name)
    assert (tasks.episodes, tasks.seed, tasks.name) == (10_000, 0, name)
    spec = specs.get(tasks.dataset)
    dataset = GLYPHS if spec.load else dataclasses.replace(without_images(spec), fingerprint="none")
    assert tasks.tasks(dataset).digest == tasks.digest
    warning = frozen.pixel_warning(dataset, [tasks.tasks(dataset)])
    if dataset is GLYPHS or tasks.dataset in ("cifar-fs", "fc100", "omniglot"):  # no reference copy of these
        assert warning is None
    else:
        assert f"fingerprint none, not {tasks.fingerprint[:12]}" in warning


def test_fewer_episodes_are_its_first_and_more_go_on():
    whole = frozen.read(NAME).tasks(GLYPHS)
    for episodes in (50, 12_000):
        part = frozen.standard_tasks(GLYPHS, "test", Protocol(5, 5, 15), episodes)
        assert part.frozen == frozen.read(NAME) and part.episodes == episodes
        assert (part.sampler.draw(0, 50) == whole.sampler.draw(0, 50)).all()
    assert part.digest != whole.digest


def test_other_protocols_have_no_list_and_the_same_seed():
    tasks = frozen.standard_tasks(GLYPHS, "test", Protocol(7, 2, 3), 10)
    assert tasks.frozen is None
    assert tasks.digest == EpisodeSampler(GLYPHS["test"], Protocol(7, 2, 3), 0).digest(10)


def changed(split: Split, **values) -> Dataset:
    return Dataset("glyphs", {split.name: dataclasses.replace(split, **values)}, GLYPHS.fingerprint, "changed")


def test_other_members_are_refused():
    split = GLYPHS["test"]
    for values in ({"classes": ("other", *split.classes[1:])}, {"counts": (*split.counts[1:], split.counts[0] - 1)}):
        with pytest.raises(UserError, match=f"{NAME}: the classes or image counts .*membership"):
            frozen.standard_tasks(changed(split, **values), "test", Protocol(5, 5, 15), 10)


def test_another_data_sets_list_is_refused():
    with pytest.raises(UserError, match="mini-imagenet-test-5w1s15q is for data set mini-imagenet, not glyphs"):
        frozen.read("mini-imagenet-test-5w1s15q").tasks(GLYPHS)


def test_a_damaged_list_is_refused(tmp_path):
    values = json.loads((frozen.LISTS / f"{NAME}.json").read_text())
    path = tmp_path / "mine.json"
    for spoiled, complaint in (
        (values | {"digest": "0" * 64}, f"{NAME}: its episodes have the digest {values['digest'][:12]}"),
        (values | {"seed": 3}, f"{NAME}-seed3: its episodes have the digest"),
        (values | {"shots": "5"}, "not a task list"),
        (values | {"query_alpha": "2"}, "not a task list"),
        (values | {"query_alpha": 2.0}, f"{NAME}-dirichlet2: its episodes have the digest|images a class"),
        (values | {"episodes": 10**12}, "more than 10,000,000 episodes"),
        (values | {"ways": 1}, "mine.json: --ways 1: give at least 2"),
        ({"dataset": "glyphs"}, "not a task list"),
        ([1], "not a task list"),
    ):
        path.write_text(json.dumps(spoiled))
        with pytest.raises(UserError, match=complaint):
            frozen.read(str(path)).tasks(GLYPHS)
    with pytest.raises(UserError, match="no task list 'nowhere': give a file, or one that `fewshot list tasks` names$"):
        frozen.read("nowhere")
    with pytest.raises(UserError, match="did you mean 'glyphs-test-5w1s15q'"):
        frozen.read("glyphs-test-5w1s5q")


def test_the_script_writes_the_lists_that_are_here(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    freeze_episodes = importlib.import_module("freeze_episodes")
    unbalanced = "--splits test --queries 3 --query-alpha 2".split()
    for flags in ([], unbalanced):
        assert run(freeze_episodes.main, ["--dataset", "glyphs", "--folder", str(tmp_path), *flags]) == 0
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_bytes() for path in (ROOT / "episodes").glob("glyphs-*.json")}
    whole = ["--dataset", "cifar-fs", "fc100", "omniglot", "--without-images", "--folder", str(tmp_path / "others")]
    assert run(freeze_episodes.main, whole) == 0
    assert run(freeze_episodes.main, [*whole[:1], *whole[3:], "--splits", "test", "--ways", "20"]) == 0
    for path in (tmp_path / "others").iterdir():
        assert path.read_bytes() == (ROOT / "episodes" / path.name).read_bytes()
    assert run(freeze_episodes.main, ["--dataset", "cub", "--without-images", "--folder", str(tmp_path)]) == USER_ERROR
    flags = "--splits val --ways 4 --shots 2 --queries 3 --episodes 30 --seed 7".split()
    assert run(freeze_episodes.main, ["--dataset", "glyphs", "--folder", str(tmp_path / "mine"), *flags]) == 0
    mine = frozen.read(str(tmp_path / "mine/glyphs-val-4w2s3q-seed7.json"))
    assert mine == frozen.freeze(GLYPHS, "val", Protocol(4, 2, 3), 30, 7) and mine.tasks(GLYPHS).episodes == 30


def test_the_readme_explains_every_field_of_a_list():
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "episodes/README.md").read_text(), re.MULTILINE)
    assert re.findall(r"`(\w+)`", " ".join(rows)) == [field.name for field in dataclasses.fields(frozen.TaskList)]


def test_mini_imagenet_at_42_px_has_the_same_tasks():
    tasks = [f"{split}-5w{shots}s15q" for split in ("val", "test") for shots in (1, 5)]
    for each in (*tasks, "test-5w1s15q-dirichlet2", "test-5w5s15q-dirichlet2"):
        lists = [frozen.read(f"{name}-{each}") for name in ("mini-imagenet", "mini-imagenet-42")]
        assert lists[0].digest == lists[1].digest and lists[0].membership == lists[1].membership
        assert lists[0].fingerprint != lists[1].fingerprint


def test_the_warning_is_about_any_of_the_lists():
    """Also if the first tasks have none."""
    other = dataclasses.replace(GLYPHS, fingerprint="f" * 64, former_fingerprint="")
    tasks = [frozen.standard_tasks(other, "test", Protocol(5, shots, 15), 2) for shots in (2, 5)]
    assert [each.frozen is None for each in tasks] == [True, False]
    assert "reference copy's (fingerprint ffffffffffff, not " in frozen.pixel_warning(other, tasks)
    assert frozen.pixel_warning(other, tasks[:1]) is None


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff", b"null", b"[" * 100_000], ids=["empty", "cut", "binary", "null", "deep"]
)
def test_what_is_no_json_object_is_no_list(data, tmp_path):
    (tmp_path / "mine.json").write_bytes(data)
    with pytest.raises(UserError, match="mine.json is not a task list: it must be a JSON object with dataset, split"):
        frozen.read(str(tmp_path / "mine.json"))


def test_the_fewest_and_the_most_tasks_of_a_list(tmp_path):
    path, made = tmp_path / "mine.json", frozen.freeze(GLYPHS, "val", Protocol(4, 2, 3), 2)
    for episodes in (2, 10_000_000):
        path.write_text(json.dumps(made.to_json() | {"episodes": episodes}))
        assert frozen.read(str(path)).episodes == episodes
    for episodes in (1, 10_000_001):
        path.write_text(json.dumps(made.to_json() | {"episodes": episodes}))
        with pytest.raises(UserError, match="an interval needs at least 2|more than 10,000,000 episodes"):
            frozen.read(str(path))
    assert frozen.task_name("a", "test", Protocol(5, 1, 3, 0.5), 7) == "a-test-5w1s3q-dirichlet0.5-seed7"


def test_a_list_that_is_not_read_is_not_called_something_else(tmp_path):
    (tmp_path / "mine.json").touch()
    os.truncate(tmp_path / "mine.json", 2**21)
    with pytest.raises(UserError, match="mine.json has 2,097,152 bytes, and such a file at most 1,048,576: is it"):
        frozen.read(str(tmp_path / "mine.json"))


def test_numpys_numbers_make_a_list_that_can_be_written_and_read(tmp_path):
    protocol = Protocol(np.int64(5), np.int64(1), np.int64(3), np.float32(2))
    made = frozen.freeze(GLYPHS, "val", protocol, np.int64(20), np.int64(7))
    assert made == frozen.freeze(GLYPHS, "val", Protocol(5, 1, 3, 2), 20, 7)
    (tmp_path / "mine.json").write_text(json.dumps(made.to_json()))
    assert frozen.read(str(tmp_path / "mine.json")) == made


@pytest.mark.parametrize("episodes", [1, 0, 2.5, 10_000_001])
def test_no_list_is_made_that_nobody_could_read(episodes):
    with pytest.raises(UserError, match="episodes="):
        frozen.freeze(GLYPHS, "val", Protocol(5, 1, 3), episodes)
