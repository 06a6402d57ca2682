"""The claims of the four papers that a study can decide, and what it decides."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fewshot.core.components import parse
from fewshot.evaluation.comparison import needs
from fewshot.evaluation.power import Need
from report_parts.effects import SIGNIFICANT, TOP1, Effect, Study, gains, holm_of, signed

MANY = 100
"""Seeds that nobody trains of one small study."""


@dataclass(frozen=True)
class Claim:
    """`better` has the higher accuracy than `worse`: two regularizers of one study."""

    said: str
    source: str
    better: str
    worse: str


CLAIMS = (
    Claim("TargetDrop helps", "TargetDrop, tables 1 to 3", "targetdrop", "none"),
    Claim("TargetDrop is better than DropBlock", "TargetDrop, tables 1 and 3", "targetdrop", "dropblock"),
    Claim("TargetDrop is better than Dropout", "TargetDrop, tables 1 to 3", "targetdrop", "dropout"),
    Claim("TargetDrop's attention matters: better than random channels", "ours, after TargetDrop's section 3",
          "targetdrop", "targetdrop:attention=random"),
    Claim("TargetDrop's attention matters: better than the plain channel mean", "ours, after TargetDrop's section 3",
          "targetdrop", "targetdrop:attention=gap"),
    Claim("trained attention is better than the frozen one that the paper's equations give", "ours",
          "targetdrop:attention=ste", "targetdrop"),
    Claim("FocusedDropout helps", "FocusedDropout, tables 1 to 3", "focuseddropout", "none"),
    Claim("FocusedDropout is better than DropBlock", "FocusedDropout, tables 1 to 3", "focuseddropout", "dropblock"),
    Claim("AttentionDrop helps", "AttentionDrop, tables 1 and 2", "attentiondrop", "none"),
    Claim("AttentionDrop is better than DropBlock", "AttentionDrop, tables 1 and 2", "attentiondrop", "dropblock"),
    Claim("CamDrop helps", "CamDrop, table 1", "camdrop", "none"),
    Claim("CamDrop is better than DropBlock", "CamDrop, table 1", "camdrop", "dropblock"),
    Claim("CamDrop helps where queries are guided by the class named", "ours", "camdrop:label=named", "none"),
    Claim("whole blocks are better than the blocks of the code that few-shot papers copied", "ours", "dropblock",
          "dropblock:variant=metaopt"),
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """What a study says of a claim in one test."""

    claim: Claim
    effect: Effect
    better: str
    worse: str

    @property
    def said(self) -> str:
        return self.claim.said + " (at other sites)" * (
            _sites(self.better) != _sites(self.worse) and "none" != self.worse
        )

    @property
    def gain(self) -> str:
        """In points, with the interval of training anew where there is one."""
        anew = self.effect.interval("training anew")
        return f"{100 * self.effect.seen.estimate:+.2f}" if anew is None else signed(anew)

    @property
    def verdict(self) -> str:
        """What training anew says, and of these networks other images or classes; what it would take, where nothing."""
        anew = self.effect.interval("training anew")
        if anew is None:
            return "not decided: one seed"
        assert anew.p_value is not None
        if anew.p_value < SIGNIFICANT:
            word = "holds" if anew.estimate > 0 else "the opposite holds"
            these = "images" if self.effect.test == TOP1 else "tasks"
            return f"{word} here, on these {these} (p = {anew.p_value:.2g}){self._wider()}"
        alone = f", {anew.unadjusted:.2g} by itself" * (anew.unadjusted is not None and anew.unadjusted < SIGNIFICANT)
        takes = _takes(self.effect.plan.get("training anew"))
        return f"not decided by {len(self.effect.seeds)} seeds (p = {anew.p_value:.2g}{alone}){takes}"

    def _wider(self) -> str:
        """Whether the mean of these networks is established more widely, too."""
        asked = "new images" if self.effect.test == TOP1 else "new classes"
        wide = self.effect.interval(asked)
        if wide is None or wide.p_value is None:
            return ""
        same_way = wide.p_value < SIGNIFICANT and wide.estimate * self.effect.seen.estimate > 0
        return f", and of these networks for {asked}" if same_way else f"; for {asked} it is not established"


def decided(study: Study) -> list[Finding]:
    """For each claim whose regularizers the study has, and each test, what it says.

    p-values are Holm's over all claims of the study in that test, for each question.
    """
    found = []
    for claim in CLAIMS:
        better, worse = (_named(study, name) for name in (claim.better, claim.worse))
        if better and worse:
            pair = Study(study.folder, {name: study.runs[name] for name in (better, worse)}, {})
            found += [Finding(claim, effect, better, worse) for effect in gains(pair, worse)]
    corrected = {}
    for test in {each.effect.test for each in found}:
        places = [place for place, each in enumerate(found) if each.effect.test == test]
        effects = holm_of([found[place].effect for place in places])
        level = SIGNIFICANT / max(1, sum(effect.interval("training anew") is not None for effect in effects))
        corrected |= {place: _planned(effect, level) for place, effect in zip(places, effects, strict=True)}
    return [replace(each, effect=corrected[place]) for place, each in enumerate(found)]


def _planned(effect: Effect, level: float) -> Effect:
    """The same with a plan for tests at `level`, that of each claim where there are several."""
    size = abs(effect.seen.estimate)
    return replace(effect, plan=needs(effect.answers, size, level) if size else {})


def _named(study: Study, wanted: str) -> str | None:
    """The study's regularizer of that name; else the only one of that method at other sites or of another size."""
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


def _takes(need: object) -> str:
    """How many seeds would establish a difference of the size that was seen, with 80% power."""
    if not isinstance(need, Need):
        return ""
    if need.n is None or need.n > MANY:
        return f"; a difference as small as that takes more than {MANY} seeds"
    most = f"more than {MANY}" if need.high is None or need.high > MANY else f"{need.high}"
    return f"; a difference of that size takes about {need.n} seeds ({need.low} to {most})"
