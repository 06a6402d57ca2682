"""The claims of the four papers that a study can decide, and what it decides."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fewshot.evaluation.power import Need
from report_parts.effects import SIGNIFICANT, TOP1, Effect, Study, gains, signed


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
    Claim("its attention matters: better than random channels", "TargetDrop, section 3", "targetdrop",
          "targetdrop:attention=random"),
    Claim("its attention matters: better than the plain channel mean", "TargetDrop, section 3", "targetdrop",
          "targetdrop:attention=gap"),
    Claim("trained attention is better than the frozen one that the paper's equations give", "ours",
          "targetdrop:attention=ste", "targetdrop"),
    Claim("FocusedDropout helps", "FocusedDropout, tables 1 to 3", "focuseddropout", "none"),
    Claim("FocusedDropout is better than DropBlock", "FocusedDropout, tables 1 to 3", "focuseddropout", "dropblock"),
    Claim("AttentionDrop helps", "AttentionDrop, tables 1 and 2", "attentiondrop", "none"),
    Claim("AttentionDrop is better than DropBlock", "AttentionDrop, tables 1 and 2", "attentiondrop", "dropblock"),
    Claim("CamDrop helps", "CamDrop, table 1", "camdrop", "none"),
    Claim("CamDrop is better than DropBlock", "CamDrop, table 1", "camdrop", "dropblock"),
    Claim("whole blocks are better than the blocks of the code that few-shot papers copied", "ours", "dropblock",
          "dropblock:variant=metaopt"),
)  # fmt: skip


def decided(study: Study) -> list[tuple[Claim, str, str, str]]:
    """For each claim whose regularizers the study has, and each test: the gain, and the verdict in words.

    The gain is the mean over seeds with Student's interval of training anew. Each claim is tested by itself: p-values
    are not corrected for the number of claims.
    """
    found = []
    for claim in CLAIMS:
        better, worse = (_named(study, name) for name in (claim.better, claim.worse))
        if better and worse:
            pair = Study(study.folder, {name: study.runs[name] for name in (better, worse)}, {})
            found += [(claim, effect.test, gain(effect), verdict(effect)) for effect in gains(pair, worse)]
    return found


def _named(study: Study, wanted: str) -> str | None:
    """The study's regularizer of that name; else the only one of that method, with whichever sites and options."""
    if wanted in study.runs:
        return wanted
    same = [reg for reg in study.runs if re.split("[@:]", reg)[0] == wanted]
    return same[0] if len(same) == 1 else None


def gain(effect: Effect) -> str:
    """In points, with the interval of training anew where there is one."""
    anew = effect.interval("training anew")
    if anew is None:
        return f"{100 * effect.seen.estimate:+.2f}"
    return signed(anew)


def verdict(effect: Effect) -> str:
    """What the interval of training anew says of a positive gain; where it says nothing, what it would take."""
    anew = effect.interval("training anew")
    if anew is None:
        return "not decided: one seed"
    assert anew.p_value is not None
    if anew.p_value < SIGNIFICANT:
        word = "holds" if anew.estimate > 0 else "the opposite holds"
        these = "images" if effect.test == TOP1 else "tasks"
        return f"{word} here, on these {these}{_wider(effect)}"
    return f"not decided by {len(effect.seeds)} seeds{_takes(effect.plan.get('training anew'))}"


def _takes(need: object) -> str:
    """How many seeds would establish a difference of the size that was seen, with 80% power."""
    if not isinstance(need, Need) or need.n is None:
        return ""
    most = "more" if need.high is None else f"{need.high:,}"
    return f"; a difference of that size takes about {need.n:,} seeds (95% interval: {need.low:,} to {most})"


def _wider(effect: Effect) -> str:
    """Whether it is established for new classes, too: of the mean of these networks. Of classifiers nothing."""
    classes = effect.interval("new classes") if "new classes" in effect.answers else None
    if classes is None or classes.p_value is None:
        return ""
    same_way = classes.p_value < SIGNIFICANT and classes.estimate * effect.seen.estimate > 0
    return ", and of these networks for new classes" if same_way else "; for new classes it is not established"
