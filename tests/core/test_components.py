"""The component grammar, and what a wrong component says."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fewshot import backbones, heads, regularizers
from fewshot.core.components import parse
from fewshot.core.errors import UserError
from fewshot.regularizers import Site

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
    ["", "+", "1drop", "dropout@", "dropout@3,", "dropout@a..b", "dropout@a-b", "dropout:rate", "dropout:a=1,a=2", "x y"],
)
def test_what_is_not_in_the_grammar_is_refused(text):
    with pytest.raises(UserError):
        parse(text)


@pytest.mark.parametrize(
    "spec, expected",
    [
        ("targetdop", f"Did you mean 'targetdrop'? Valid: {', '.join(sorted([*regularizers.FAMILY.names(), 'original']))}"),
        ("original", "'original' stands for what a backbone was published with: it cannot be built by itself"),
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
