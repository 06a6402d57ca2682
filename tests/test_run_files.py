"""Entries of a run folder that are no files, or promise more than they hold: one line, no wait, bounded memory."""

from __future__ import annotations

import json
import os
import shutil
import socket
import zipfile

import numpy as np
import pytest
import torch
from boards import edit, reseal, variant
from commands import SMALL, one_line_error
from run_readers import read_it_all

from fewshot import compare, leaderboard, recipes, show, train
from fewshot.core import console, sealed
from fewshot.core.errors import UserError
from fewshot.runs import Run

FILES = (
    "environment.json", "result.json", "metrics.jsonl", "episodes-glyphs-test-5w1s15q.npy",
    "tasks-glyphs-test-5w5s15q.npz", "checkpoint.pt", "best.safetensors",
)  # fmt: skip


def plug(path):
    with socket.socket(socket.AF_UNIX) as made:
        here = os.getcwd()
        os.chdir(path.parent)  # the whole path would be too long for a socket
        made.bind(path.name)
        os.chdir(here)


PLANTS = {
    "pipe": os.mkfifo, "loop": lambda path: path.symlink_to(path), "folder": lambda path: path.mkdir(),
    "dangling link": lambda path: path.symlink_to(path.parent / "nothing"), "socket": plug,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "sparse": lambda path: path.touch() or os.truncate(path, 2**40),
}  # fmt: skip


@pytest.mark.parametrize("plant", PLANTS)
def test_what_is_no_file_is_refused_and_not_waited_for(small_run, tmp_path, plant):
    for name in FILES:
        folder = shutil.copytree(small_run, tmp_path / name / "run")
        (folder / name).unlink()
        PLANTS[plant](folder / name)
        refused = read_it_all(folder)
        unread = name == "checkpoint.pt" and plant in ("loop", "dangling link")
        assert (refused or unread) and not any("\n" in line for line in refused), name


def promise(path):
    """A header for 8 TB, and nothing after it."""
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (2 * 10**12,)})


def bomb(path):
    """A third of a gigabyte of zeros in as many kilobytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("classes", "disjoint", "disjoint_classes"):
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array_header_1_0(
                    member, {"descr": "<u2", "fortran_order": False, "shape": (150 << 20,)}
                )
                for _ in range(300 if name == "disjoint" else 0):
                    member.write(bytes(1 << 20))


def objects(path):
    np.save(path, np.array([{}], object), allow_pickle=True)


def words(path):
    with open(path, "wb") as file:
        np.save(file, np.array(["0.5"] * 50))


@pytest.mark.parametrize(
    "name, spoil, expected",
    [
        ("episodes-glyphs-test-5w1s15q.npy", promise, "is damaged"),
        ("episodes-glyphs-test-5w1s15q.npy", objects, "is damaged"),
        ("episodes-glyphs-test-5w1s15q.npy", words, "is damaged"),
        ("episodes-glyphs-test-5w1s15q.npy", lambda path: np.save(path, np.full(50, 2.0)), "outside 0 to 1"),
        ("tasks-glyphs-test-5w1s15q.npz", bomb, "unpacks to more than 268,435,456 bytes"),
        ("tasks-glyphs-test-5w1s15q.npz", promise, "is damaged"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_an_array_file_that_lies_is_named(small_run, tmp_path, capsys, name, spoil, expected):
    a, b, c = (
        shutil.copytree(small_run, tmp_path / "a"),
        *(variant(small_run, tmp_path / reg, reg=reg) for reg in ("none", "dropout")),
    )
    spoil(a / name)
    reseal(a)
    assert console.run(compare.main, [str(a), str(b)]) == console.USER_ERROR
    assert name in (error := one_line_error(capsys)) and expected in error
    assert console.run(compare.main, list(map(str, (a, b, c)))) == 0
    assert expected in capsys.readouterr().out


ODD = [None, True, -1, 10**400, 1.5, float("nan"), "x", [], ["x"], {}, {"x": "y"}]


@pytest.mark.parametrize("value", ODD, ids=repr)
def test_a_value_of_another_type_is_named(small_run, tmp_path, value):
    """Each field of config.json and of a result's row, one by one. The fuzz test does the same at any depth."""
    folder = shutil.copytree(small_run, tmp_path / "runs" / "run")
    for name, within in (("config.json", ()), ("config.json", ("resolved",)), ("result.json", ("results", 0))):
        before = (folder / name).read_text()
        holder = json.loads(before)
        for key in within:
            holder = holder[key]
        for field in list(holder):

            def change(whole, field=field, within=within):
                for key in within:
                    whole = whole[key]
                whole[field] = value

            edit(folder / name, change)
            if name == "result.json" or field in ("resolved", "reg", "format"):  # else only the configuration
                read_it_all(folder)
            else:
                refuse(lambda: (Run.open(folder).config, Run.open(folder).images))
            (folder / name).write_text(before)


def refuse(read) -> None:
    try:
        read()
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "text, expected",
    [
        ('epochs = "many"', "recipe odd: epochs is 'many', not an integer"),
        ("lr = true", "recipe odd: lr is True, not a number"),
        ("test_shots = 5", "recipe odd: test_shots is 5, not a list, each item an integer"),
        ('embed = "both"', "recipe odd: embed is 'both', not 'joint' or 'separate'"),
        ("epochs = ", "recipe odd is not TOML"),
        ("no_such = 1", "unknown field in recipe odd: 'no_such'"),
    ],
)
def test_a_recipe_of_wrong_types_is_one_line(tmp_path, monkeypatch, capsys, text, expected):
    (tmp_path / "odd.toml").write_text(text)
    monkeypatch.setattr(recipes, "FOLDER", tmp_path)
    assert console.run(train.main, [*SMALL, "--recipe", "odd", "--out", str(tmp_path / "run")]) == console.USER_ERROR
    assert expected in one_line_error(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["../glyphs", "a/../glyphs", "..", "a\\..\\b", "gly\x1bphs", "a/b"])
def test_a_data_sets_name_that_is_a_path_is_found_before_training(tmp_path, capsys, name):
    assert console.run(train.main, ["--dataset", name, "--out", str(tmp_path / "run")]) == console.USER_ERROR
    assert "give a name" in one_line_error(capsys)
    assert not (tmp_path / "run").exists()


def test_a_components_name_of_two_dots_is_found_before_training(tmp_path, capsys):
    for part in ("--reg", "--head", "--backbone", "--transform", "--regime"):
        assert console.run(train.main, [*SMALL, part, "a..B", "--out", str(tmp_path / "run")]) == console.USER_ERROR
        one_line_error(capsys)
    assert not (tmp_path / "run").exists()


def test_a_damaged_log_is_one_line(small_run, tmp_path, capsys):
    folder = shutil.copytree(small_run, tmp_path / "run")
    odd = ('{"step": "a"}', '{"step": 1, "validation": [1]}', '{"step": 1, "loss": "x"}')
    for line in ("{", "[]", "[" * 100_000, *odd):
        (folder / "metrics.jsonl").write_text(line + "\n")
        out = str(tmp_path / "p.png")
        assert console.run(show.main, ["curves", str(folder), "--out", out]) == console.USER_ERROR
        assert "metrics.jsonl is damaged" in one_line_error(capsys)
    board = ["--runs", str(tmp_path), "--csv", str(tmp_path / "b.csv")]
    assert console.run(leaderboard.main, board) == 0, "which needs no log"


def group(state):
    state["optimizer"]["param_groups"][0]["momentum"] = "x"


def buffer(state):
    state["optimizer"]["state"][0]["momentum_buffer"] = torch.ones(3, 2)


def number(state):
    state["optimizer"]["state"][0]["momentum_buffer"] = 5


def step(state):
    state["progress"]["step"] = "3"


def missing(state):
    del state["model"]


def listed(state):
    state["optimizer"]["state"] = [1]


@pytest.mark.parametrize("spoil", [group, buffer, number, step, missing, listed])
def test_a_checkpoint_that_is_not_the_runs_is_one_line(small_run, tmp_path, capsys, spoil):
    folder = shutil.copytree(small_run, tmp_path / "run")
    (folder / "result.json").unlink()
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    spoil(state)
    torch.save(state, folder / "checkpoint.pt")
    data = (folder / "checkpoint.pt").read_bytes()
    (folder / "checkpoint.pt").write_bytes(data + sealed.seal_line(data))
    assert console.run(train.main, ["--out", str(folder), "--resume"]) == console.USER_ERROR
    assert "checkpoint.pt cannot be read" in one_line_error(capsys)
