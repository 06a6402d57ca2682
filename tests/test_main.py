"""fewshot: one command for all, the list of what there is, and the description of each."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from commands import ROOT, one_line_error

import fewshot
from fewshot import __main__ as main
from fewshot import catalogue, describe, recipes
from fewshot import list as listing
from fewshot.core import console


def run(*argv: str) -> int:
    return main.main(list(argv))


def listed(capsys, *kinds: str) -> str:
    assert console.run(listing.main, list(kinds)) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["--help"]])
def test_without_a_command_it_lists_them(argv, capsys):
    assert run(*argv) == 0
    out = capsys.readouterr().out
    assert all(re.search(rf"^  fewshot {name} ", out, re.M) for name in main.COMMANDS)


def test_a_command_is_called_by_its_name(capsys):
    assert run("list", "heads") == 0
    assert "proto" in capsys.readouterr().out
    assert run("list", "haeds") == 2
    assert "Did you mean 'heads'?" in one_line_error(capsys)
    assert run("trian") == 2
    assert "unknown command 'trian'. Did you mean 'train'?" in one_line_error(capsys)


def test_it_says_its_version(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"fewshot {fewshot.__version__}\n"
    with pytest.raises(SystemExit):
        run("train", "--version")
    assert capsys.readouterr().out == f"fewshot {fewshot.__version__}\n"


def test_every_command_answers_help_without_torch():
    probe = "import sys, fewshot.__main__ as m; m.parser(); m.main(['list']); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", probe], stdout=subprocess.DEVNULL).returncode == 0


def test_finished_runs_are_reported_without_torch():
    """Torch takes seconds to import."""
    runs = "results/conv4-mini-imagenet"
    probe = f"""
import sys
import fewshot.__main__ as main
assert main.main("leaderboard --runs {runs} --csv none".split()) == 0
assert main.main("compare {runs}/none {runs}/targetdrop".split()) == 0
assert main.main("watch {runs}/none".split()) == 0
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_list_has_everything(capsys):
    out = listed(capsys)
    for kind in catalogue.KINDS:
        assert f"{kind}:" in out
        assert all(re.search(rf"^  {re.escape(name)} ", out, re.M) for name in catalogue.names(kind)), kind


@pytest.mark.parametrize("kind", catalogue.FAMILIES)
def test_a_component_is_described_with_every_option(kind, capsys):
    for name in catalogue.names(kind):
        assert console.run(describe.main, [name]) == 0
        out = capsys.readouterr().out
        family = __import__(f"fewshot.{catalogue.FAMILIES[kind].replace('/', '.')}", fromlist=["FAMILY"]).FAMILY
        assert f"{family.kind} {name}\n" in out
        assert all(re.search(rf"^  {option} ", out, re.M) for option in family.options(family.find(name)))


def test_options_have_their_types_and_defaults(capsys):
    assert console.run(describe.main, ["targetdrop"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^  drop_prob +number +0\.15$", out, re.M)
    assert re.search(r"^  ties +lowest or all +lowest$", out, re.M)


@pytest.mark.parametrize("name", ["glyphs", "mini-imagenet", "table3/quick", "glyphs-test-5w1s15q"])
def test_data_sets_recipes_and_task_lists_are_described(name, capsys):
    assert console.run(describe.main, [name]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 3


def test_what_stands_for_another_is_described_as_that(capsys):
    assert console.run(describe.main, ["original"]) == 0
    assert "regularizer original: what a backbone was published with" in capsys.readouterr().out


def test_what_is_joined_is_described_together(capsys):
    assert console.run(describe.main, ["targetdrop/cifar-10+vgg16+targetdrop"]) == 0
    out = capsys.readouterr().out
    assert '  dataset = "cifar-10"' in out and '  backbone = "vgg16"' in out and '  reg = "targetdrop' in out
    assert console.run(describe.main, ["dropout@1,2+dropblock:block_size=3"]) == 0
    out = capsys.readouterr().out
    assert "regularizer dropout\n" in out and "regularizer dropblock\n" in out


def test_a_name_of_several_kinds_is_described_in_each(capsys):
    assert console.run(describe.main, ["glyphs"]) == 0
    out = capsys.readouterr().out
    assert "data set glyphs" in out and "recipe glyphs" in out


@pytest.mark.parametrize(
    "name, expected",
    [
        ("targetdop", "Did you mean 'targetdrop'?"), ("my.Drop", "my"), (".Drop", "is no class"),
        ("my..Drop", "is no class"),
    ],
)  # fmt: skip
def test_an_unknown_name_is_one_line(name, expected, capsys):
    assert console.run(describe.main, [name]) == 2
    assert expected in one_line_error(capsys)


def test_of_very_many_names_those_most_like_the_wrong_one_are_listed(capsys):
    assert console.run(describe.main, ["table3/proto-conv4"]) == 2
    error = one_line_error(capsys)
    assert "table3/proto-conv4-none-1shot" in error and len(error) < 700


def test_every_recipe_says_what_it_is():
    assert all(recipes.about(name) != "(no comment)" for name in recipes.names())


def test_what_is_public_is_there():
    assert dir(fewshot) == sorted(fewshot.__all__)
    assert all(getattr(fewshot, name) is not None for name in fewshot.__all__)


@pytest.mark.parametrize("module, left_alone", [("fewshot.train", False), ("pytest", True)])
def test_ctrl_c_ends_a_command_before_it_has_begun_and_no_other_program(module, left_alone):
    """From our first line on; what comes before is Python's own."""
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"  # nohup may have it ignored
        f" sys.argv, sys.orig_argv = ['-m'], ['python', '-W', 'error', '-m', {module!r}];"
        " import fewshot; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == (f"{left_alone}\n", "")
