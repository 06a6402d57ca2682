"""The component grammar, and the messages for wrong components."""

from __future__ import annotations

import subprocess
import sys

import pytest
from commands import SMALL

import fewshot
from fewshot import backbones, heads, regularizers, train
from fewshot.core import console
from fewshot.core.components import parse
from fewshot.core.errors import UserError
from fewshot.regularizers import Site

NAMES = sorted([*regularizers.FAMILY.names(), "original"])
SITE = Site(channels=64, height=10, width=10, depth=3, depths=4)


def test_reads_names_sites_and_options():
    first, second = parse("dropout@1,2:drop_prob=0.1+dropblock@4,3:drop_prob=1e-1,block_size=3")
    assert (first.name, first.sites, first.options) == ("dropout", (1, 2), {"drop_prob": "0.1"})
    assert (second.name, second.sites) == ("dropblock", (3, 4))
    assert second.options == {"drop_prob": "1e-1", "block_size": "3"}


def test_a_plus_inside_a_number_does_not_split():
    assert [spec.name for spec in parse("dropout:drop_prob=1e+0")] == ["dropout"]


@pytest.mark.parametrize(
    "text",
    [
        "", "+", "1drop", "dropout@", "dropout@3,", "dropout@a..b", "dropout@a-b", "dropout:a=1,rate",
        "dropout:a=1,a=2", "x y",
    ],
)  # fmt: skip
def test_what_is_not_in_the_grammar_is_refused(text):
    with pytest.raises(UserError):
        parse(text)


@pytest.mark.parametrize(
    "spec, expected",
    [
        ("targetdop", f"Did you mean 'targetdrop'? Valid: {', '.join(NAMES)}."),
        ("original", "'original' stands for what a backbone was published with: it cannot be built by itself"),
        ("targetdrop:rate", "cannot read option 'rate' of 'targetdrop:rate': write key=value"),
        ("targetdrop:dropprob=0.2", "Did you mean 'drop_prob'? Valid: attention, block_size"),
        ("targetdrop:attention=frosen", "Did you mean 'frozen'? Valid: frozen, gap"),
        ("targetdrop:drop_prob=much", "targetdrop:drop_prob=much is not a number"),
        ("targetdrop:block_size=2.5", "targetdrop:block_size=2.5 is not an integer"),
        ("targetdrop:drop_prob=1.5", "drop_prob=1.5 is not within 0..1"),
        ("targetdrop:drop_prob=nan", "drop_prob=nan is not within 0..1"),
        ("dropblock:block_size=11", "block_size=11 is larger than the 10x10 map at site 3; give at most 10"),
        ("no.such.module.Drop", "cannot import regularizer 'no.such.module.Drop'"),
    ],
)
def test_a_wrong_regularizer_names_the_thing_and_the_remedy(spec, expected):
    with pytest.raises(UserError) as error:
        regularizers.build(spec, SITE)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "flags, expected",
    [
        (["--reg", "targetdrop:attention=gap,reduction=16"], "targetdrop:reduction has no effect with attention=gap."),
        (["--reg", "cutout+attentiondrop:top_percent=5,mode=sm"], "attentiondrop:top_percent has no effect with mode"),
        (["--reg", "focuseddropout:drops=false,low=0.2"], "focuseddropout:low has no effect with drops=false."),
        (["--head", "anil:init=zero,ways=5"], "anil:ways has no effect with init=zero."),
        (["--regime", "supervised:magnitude=9"], "supervised:magnitude has no effect with randaugment=0."),
    ],
)
def test_options_that_do_nothing_are_named_and_change_nothing(flags, expected, tmp_path, capsys):
    """Such a run can be read as any other: an option is no mistake in what is there already."""
    out = tmp_path / "run"
    assert console.run(train.main, [*SMALL, "--epochs", "1", "--test-episodes", "5", *flags, "--out", str(out)]) == 0
    assert f"Warning: {expected}" in " ".join(capsys.readouterr().out.split())
    assert fewshot.load(out, device="cpu")


def test_values_arrive_in_their_declared_types():
    method = regularizers.build("targetdrop:drop_prob=0.5,block_size=3,attention=gap", SITE)
    assert (method.count, method.block_size, method.attention) == (32, 3, "gap")


def test_sites_that_the_backbone_lacks_are_refused():
    with pytest.raises(UserError, match="there is no site 5; this backbone has 1, 2, 3, 4"):
        backbones.build("conv4", reg="dropout@5")


def test_families_refuse_what_belongs_elsewhere():
    for build, spec in ((backbones.build, "conv4@3"), (heads.build, "proto+proto"), (heads.build, "prot")):
        with pytest.raises(UserError):
            build(spec)


def test_a_users_own_regularizer_is_imported(tmp_path, monkeypatch):
    (tmp_path / "my_drops.py").write_text(
        "from fewshot.regularizers import Regularizer\n"
        "class Half(Regularizer):\n"
        "    def __init__(self, site, *, factor: float = 0.5):\n"
        "        super().__init__(site)\n"
        "        self.factor = factor\n"
        "    def multiplier(self, x, guide=None):\n"
        "        return x.new_full((1, 1, 1, 1), self.factor)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    network = backbones.build("conv4", reg="my_drops.Half@1:factor=0.25")
    (method,) = network.regularizers
    assert method.factor == 0.25 and method.site.depth == 1


def test_an_option_without_a_default_must_be_given(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from fewshot.regularizers import Regularizer\n"
        "class Needy(Regularizer):\n"
        "    def __init__(self, site, *, rate: float):\n"
        "        super().__init__(site)\n"
        "    def forward(self, x, guide=None):\n"
        "        return x\n"
        "class Stranger:\n"
        "    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    site = Site(64, 10, 10)
    with pytest.raises(UserError, match="'mine.Needy' needs its option 'rate': write mine.Needy:rate=VALUE"):
        regularizers.build("mine.Needy", site)
    assert isinstance(regularizers.build("mine.Needy:rate=1", site), regularizers.Regularizer)
    with pytest.raises(UserError, match="'mine.Stranger' is no regularizer"):
        regularizers.build("mine.Stranger", site)


def test_families_are_there_after_importing_the_package_alone():
    code = "import fewshot; fewshot.heads.build('r2d2:lam=50'); fewshot.backbones.build('conv4', reg='targetdrop')"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_sites_are_numbers_and_names_sorted_and_once():
    (spec,) = parse("targetdrop@layer3,4,blocks.2.conv,layer3,3:block_size=3")
    assert spec.sites == (3, 4, "blocks.2.conv", "layer3")
    assert str(spec) == "targetdrop@3,4,blocks.2.conv,layer3:block_size=3"
    assert parse(str(spec)) == [spec]


@pytest.fixture
def users_module(tmp_path, monkeypatch):
    """A function that writes a user's module, which can then be imported by its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, text: str) -> None:
        path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return write


@pytest.mark.parametrize(
    "text, error",
    [
        ("import math\nmath.no_such_thing\n", AttributeError), ("import no_such_package\n", ModuleNotFoundError),
        ("from math import no_such_thing\n", ImportError), ("1 / 0\n", ZeroDivisionError), ("def\n", SyntaxError),
    ],
)  # fmt: skip
def test_what_goes_wrong_within_a_users_module_is_seen_as_it_is(users_module, text, error):
    module = f"faulty_{error.__name__.lower()}"
    users_module(module, text)
    with pytest.raises(error) as raised:
        regularizers.build(f"{module}.Drop", SITE)
    assert not isinstance(raised.value, UserError)


def test_a_module_or_a_name_that_is_not_there_is_one_line(users_module):
    users_module("there.inside", "class Here:\n    pass\n")
    for path, expected in {
        "nowhere.Drop": "No module named 'nowhere'", "there.other.Drop": "No module named 'there.other'",
        "there.inside.Drop": "module there.inside has no Drop; is the name right?",
    }.items():  # fmt: skip
        with pytest.raises(UserError) as error:
            regularizers.build(path, SITE)
        assert f"cannot import regularizer {path!r}" in str(error.value) and expected in str(error.value)


def test_options_of_every_type_are_read_or_refused_in_one_line(users_module):
    users_module(
        "typed",
        "from typing import Literal\n"
        "from fewshot.regularizers import Regularizer\n"
        "class Drop(Regularizer):\n"
        "    def __init__(self, site, *, level: Literal[1, 2] = 1, size: int | float | None = None,\n"
        "                 how: Literal['all'] | int = 'all', on: bool = False, pair: tuple[int, int] = (1, 2),\n"
        "                 text: str | None = None, either: float | bool = 1.0):\n"
        "        super().__init__(site)\n"
        "        self.given = dict(level=level, size=size, how=how, on=on, text=text, either=either)\n"
        "    def forward(self, x, guide=None):\n"
        "        return x\n",
    )
    for text, expected in {
        "level=2": 2, "size=3": 3, "size=2.5": 2.5, "size=None": None, "how=all": "all", "how=7": 7, "on=True": True,
        "text=none": None, "text=3": "3", "either=true": True, "either=2": 2.0,
    }.items():  # fmt: skip
        value = regularizers.build(f"typed.Drop:{text}", SITE).given[text.split("=")[0]]
        assert value == expected and type(value) is type(expected), text
    for text, expected in {
        "level=3": "unknown value of typed.Drop:level: '3'.", "size=wide": "is not an integer or a number or none",
        "how=some": "Valid: all, an integer", "on=1": "typed.Drop:on=1 is not true or false",
        "pair=1": "typed.Drop:pair cannot be given as text: it is declared as tuple[int, int]",
    }.items():  # fmt: skip
        with pytest.raises(UserError) as error:
            regularizers.build(f"typed.Drop:{text}", SITE)
        assert expected in str(error.value) and "\n" not in str(error.value)


def test_nothing_behind_the_colon_is_no_component():
    with pytest.raises(UserError, match="write key=value after the colon"):
        parse("targetdrop@3:")
