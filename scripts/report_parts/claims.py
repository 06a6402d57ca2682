"""The claims of the four papers that a study can decide, and what it decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from paper_rows import Table, tables
from reproduce_table3 import ROWS, SHOTS

from fewshot.core.components import parse
from fewshot.evaluation.comparison import corrected
from fewshot.evaluation.intervals import Interval
from fewshot.reports.sweep import markdown
from report_parts.effects import SIGNIFICANT, TOP1, Effect, Study, established, gains, holm_of, signed

CELL = "proto-conv4-"
"""The cells of TargetDrop's table 3 that have this study's network and head."""


@dataclass(frozen=True)
class Claim:
    """`better` has a higher accuracy than `worse`: two regularizers of one study.

    `printed`: a table of the paper, its row, and the row that this is compared with. Of those whose numbers we have,
    they are the nearest to ours in network and data.
    """

    said: str
    source: str
    better: str
    worse: str
    printed: tuple[str, str, str] | None = None


CLAIMS = (
    Claim("TargetDrop helps", "TargetDrop, tables 1 to 3", "targetdrop", "none",
          ("TD-2", "cifar-10+resnet20+targetdrop", "cifar-10+resnet20")),
    Claim("TargetDrop is better than DropBlock", "TargetDrop, tables 1 and 3", "targetdrop", "dropblock",
          ("TD-1-CIFAR-10", "cifar-10+targetdrop", "cifar-10+dropblock")),
    Claim("TargetDrop is better than Dropout", "TargetDrop, tables 1 to 3", "targetdrop", "dropout",
          ("TD-2", "cifar-10+resnet20+targetdrop", "cifar-10+resnet20+dropout")),
    Claim("TargetDrop is better than with channels drawn at random", "ours, after TargetDrop's section 3",
          "targetdrop", "targetdrop:attention=random"),
    Claim("TargetDrop is better than with the plain channel mean for attention", "ours, after TargetDrop's section 3",
          "targetdrop", "targetdrop:attention=gap"),
    Claim("a trained attention is better than the frozen one that the paper's equations give", "ours",
          "targetdrop:attention=ste", "targetdrop"),
    Claim("FocusedDropout helps", "FocusedDropout, tables 1 to 3", "focuseddropout", "none",
          ("FD-3", "tiny-imagenet+focuseddropout", "tiny-imagenet")),
    Claim("FocusedDropout is better than DropBlock", "FocusedDropout, tables 1 to 3", "focuseddropout", "dropblock",
          ("FD-3", "tiny-imagenet+focuseddropout", "tiny-imagenet+dropblock")),
    Claim("AttentionDrop helps", "AttentionDrop, tables 1 and 2", "attentiondrop", "none",
          ("AD-CIFAR-10", "cifar-10+ad", "cifar-10")),
    Claim("AttentionDrop is better than DropBlock", "AttentionDrop, tables 1 and 2", "attentiondrop", "dropblock",
          ("AD-CIFAR-10", "cifar-10+ad", "cifar-10+dropblock")),
    Claim("CamDrop helps", "CamDrop, table 1", "camdrop", "none", ("CD-1", "cifar-10+camdrop", "cifar-10")),
    Claim("CamDrop is better than DropBlock", "CamDrop, table 1", "camdrop", "dropblock",
          ("CD-1", "cifar-10+camdrop", "cifar-10+dropblock")),
    Claim("CamDrop helps where queries are guided by the class named", "ours", "camdrop:label=named", "none"),
    Claim("whole blocks are better than the blocks of the code that few-shot papers copied", "ours", "dropblock",
          "dropblock:variant=metaopt"),
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """What a study says about a claim, by test: the difference of the two, and the same by the pooled variance."""

    claim: Claim
    better: str
    worse: str
    effects: Mapping[str, Effect]

    @property
    def said(self) -> str:
        elsewhere = _sites(self.better) != _sites(self.worse) and self.worse != "none"
        return self.claim.said + " (at other sites)" * elsewhere

    @property
    def printed(self) -> dict[str, float]:
        """The gain that the paper prints, in points, by test: for classifiers, that of the nearest table."""
        if TOP1 not in self.effects:
            by_name = {row.name: row.paper for row in ROWS}
            pair = [by_name.get(CELL + name) for name in (self.claim.better, self.claim.worse)]
            if None in pair:
                return {}
            ours, theirs = pair
            return {f"{n}-shot": one - other for n, one, other in zip(SHOTS, ours, theirs, strict=True)}
        if self.claim.printed is None:
            return {}
        table = _printed(self.claim.printed[0])
        by_recipe = {row.recipe.partition("/")[2]: row.paper for row in table.rows}
        ours, theirs = (by_recipe[name] for name in self.claim.printed[1:])
        assert ours is not None and theirs is not None
        return {TOP1: ours - theirs if table.measure == "accuracy" else theirs - ours}

    @property
    def whose(self) -> str:
        """Who claims it, and the gain that the paper prints, if it prints one for tests like ours."""
        if not self.printed:
            return self.claim.source
        gain = ", ".join(f"{points:+.2f}" for points in self.printed.values())
        if TOP1 not in self.effects or self.claim.printed is None:
            return f"{self.claim.source}: {gain} (Conv-4 at 84 px)"
        name, row, _ = self.claim.printed
        network = "ResNet-20 on CIFAR-10" if "resnet20" in row else _printed(name).what
        return f"{self.claim.source}: {gain} ({network})"

    @property
    def verdict(self) -> str:
        """For each test; for all at once if they agree."""
        said = {test: self._verdict(test) for test in self.effects}
        if len(set(said.values())) == 1:
            return next(iter(said.values()))
        return "; ".join(f"{test}: {words}" for test, words in said.items())

    def _verdict(self, test: str) -> str:
        effect = self.effects[test]
        own = effect.interval("training anew")
        found = [each for each in (own, effect.pooled) if established(each)]
        if own is None and not found:
            return "not decided: one seed"
        if own is None:
            return f"{_word(found[0])} by the pooled variance (p = {found[0].p_value:.2g}); by itself one seed"
        if not found:
            outside = test in self.printed and 100 * own.high < self.printed[test]
            alone = own.unadjusted is not None and own.unadjusted < SIGNIFICANT
            p_values = f" (p = {own.p_value:.2g}; of this claim alone {own.unadjusted:.2g})" if alone else ""
            return f"not decided{p_values}" + "; the paper's gain is outside the interval" * outside
        word = _word(found[0])
        if found[0] is own:
            pooled = f"; pooled: {effect.pooled.p_value:.2g}" if effect.pooled else ""
            return f"{word} (p = {own.p_value:.2g}{pooled})"
        return f"{word} by the pooled variance (p = {found[0].p_value:.2g}), not by its own (p = {own.p_value:.2g})"


def table(found: Sequence[Finding]) -> str:
    """A line for each claim that a study can speak to."""
    tests = sorted({test for each in found for test in each.effects})
    lines = [
        (each.said, each.whose, *(_gain(each.effects[test]) for test in tests), each.verdict)
        for each in found
    ]  # fmt: skip
    return markdown(("claim", "whose", *(f"{test}, gain" for test in tests), "here"), lines) if lines else ""


def _gain(effect: Effect) -> str:
    """In points, with the half-widths of training anew: by the pair's own variance, and by the pooled one."""
    own = effect.interval("training anew")
    gain = f"{100 * effect.seen.estimate:+.2f}, one seed" if own is None else signed(own)
    return gain + (f" ({100 * effect.pooled.half_width:.2f})" if effect.pooled else "")


def _printed(name: str) -> Table:
    (table,) = (each for each in tables() if each.name == name)
    return table


def _word(interval: Interval) -> str:
    return "holds" if interval.estimate > 0 else "the opposite holds"


def decided(study: Study) -> list[Finding]:
    """What the study says about each claim whose regularizers it has.

    p-values are Holm's over all claims of the study, separately in each test and analysis.
    """
    found: list[Finding] = []
    for claim in CLAIMS:
        better, worse = (named(study, name) for name in (claim.better, claim.worse))
        if better and worse:
            pair = Study(study.folder, {name: study.runs[name] for name in (better, worse)}, {})
            found.append(Finding(claim, better, worse, {each.test: each for each in gains(pair, worse)}))
    for test in {test for each in found for test in each.effects}:
        found = _corrected(study, test, found)
    return found


def _corrected(study: Study, test: str, found: Sequence[Finding]) -> list[Finding]:
    """The same with Holm's p-values for this test, and with the pooled differences of the whole study."""
    own = iter(holm_of([each.effects[test] for each in found if test in each.effects]))
    whole = study.pooled[test]
    differences = {place: whole.difference(each.better, each.worse) for place, each in enumerate(found) if whole}
    pooled = corrected(differences)
    return [
        replace(each, effects={**each.effects, test: replace(next(own), pooled=pooled.get(place))})
        if test in each.effects else each
        for place, each in enumerate(found)
    ]  # fmt: skip


def named(study: Study, wanted: str) -> str | None:
    """The study's regularizer of that name; otherwise the only one of that method at other sites or of another size."""
    if wanted in study.runs:
        return wanted
    same = []
    for reg in study.runs:
        spec, *more = parse(reg)
        if not more and spec.name == wanted and spec.options.keys() <= {"block_size", "size"}:
            same.append(reg)
    return same[0] if len(same) == 1 else None


def _sites(reg: str) -> str:
    return reg.partition(":")[0].partition("@")[2]
