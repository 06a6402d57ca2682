"""The first lines of the page: three questions that everybody has, and what each study says of its regularizers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from scipy import special

from report_parts.best import RECIPE
from report_parts.claims import named
from report_parts.effects import SIGNIFICANT, Effect, Study, accuracies, established, mean, signed
from report_parts.sections import Section

BETTER = ("better", "pooled better")


def answers(studies: Sequence[tuple[Section, Study]], recipes: Study, more: Study | None = None) -> str:
    """Does TargetDrop help, which regularizer is to be used, and what is the row to beat.

    `more`: TargetDrop and `none` with the seeds of two studies together, which is an estimate and no test.
    """
    effects = [effect for _, study in studies for effect in study.effects]
    lines = []
    ours = [(section, study, reg) for section, study in studies if (reg := named(study, "targetdrop"))]
    gained = [f"{_gains(study, reg)} ({section.title})" for section, study, reg in ours]
    if more:
        together = "all seeds of the first two together, the second decided on after a look at the first"
        gained.append(f"{_gains(more, 'targetdrop')} ({together})")
    if gained:
        helps = _helpful([effect for _, study, reg in ours for effect in study.effects if effect.reg == reg])
        said = "It is shown to in some" if helps else "Not shown in any"
        lines.append(
            f"- **Does TargetDrop help?** {said} of our studies. Gains over `none`, in points, ± of training anew:"
            f" {'; '.join(gained)}."
        )
    helpful = _codes(dict.fromkeys(effect.reg for effect in _helpful(effects)))
    use = f"Shown to help somewhere: {helpful}" if helpful else "None is shown to help here: begin without one"
    lines.append(f"- **Which regularizer should I use?** {use}.")
    if RECIPE in recipes.runs:
        scores = (f"{mean(accuracies(recipes, RECIPE, test))} at {test}" for test in recipes.tests)
        place = "[best recipe](#the-best-recipe-on-two-processor-cores)"
        chosen = "It was chosen at 5-shot, in part by these test accuracies: expect a little less."
        lines.append(f"- **What is the row to beat?** At 42 px {', '.join(scores)}: the {place}. {chosen}")
    return "\n".join(lines)


def short(section: Section, study: Study) -> str:
    """A line for each test."""
    return "\n".join(_line(section, study, test) for test in study.tests if _of(study, test))


def _line(section: Section, study: Study, test: str) -> str:
    effects = _of(study, test)
    by_word: dict[str, list[Effect]] = {"better": [], "worse": [], "pooled better": [], "pooled worse": [], "open": []}
    for effect in effects:
        by_word[_word(effect)].append(effect)
    said = []
    for title, word in (("Shown to help", "better"), ("Shown to hurt", "worse")):
        own, pooled = (_codes(effect.reg for effect in by_word[kind]) for kind in (word, f"pooled {word}"))
        also = f"with pooled seeds {'also ' * bool(own)}{pooled}" if pooled else ""
        said.append(f"{title}: {'; '.join(filter(None, (own, also))) or 'none'}.")
    apart = [effect for effect in by_word["open"] if effect.pooled is None and any(each.pooled for each in effects)]
    near = [effect for effect in by_word["open"] if effect not in apart]
    if intervals := [each for effect in near if (each := effect.interval("training anew"))]:
        low, high = min(each.low for each in intervals), max(each.high for each in intervals)
        which = f"all {len(near)}" if len(near) == len(effects) > 1 else _codes(effect.reg for effect in near)
        said.append(f"Open: {which}; gains from {100 * low:+.1f} to {100 * high:+.1f} points.")
    for effect in apart:
        each = ", ".join(f"{100 * gain:+.1f}" for gain in effect.each.values())
        own = effect.interval("training anew")
        alone = f", and are too few for its own (p = {own.p_value:.2g}, corrected)" if own and own.p_value else ""
        said.append(f"`{effect.reg}`: {each} points by seed. They differ too much for the pooled test{alone}.")
    if (least := _least(study, test, len(effects))) is not None:
        enough = math.ceil(1e4 * least) / 100
        said.append(f"A measured gain or loss of {enough:.2f} points is always shown by the pooled test.")
    seeds = " to ".join(map(str, dict.fromkeys(fold(len(effect.each) for effect in effects) for fold in (min, max))))
    return f"- **{section.title}, {test}** (regularizers: {len(effects)}, seeds: {seeds}). {' '.join(said)}"


def _least(study: Study, test: str, among: int) -> float | None:
    """The gain over `none` that Holm's method calls established where it is the largest of so many.

    None where there is no pooled variance, or regularizers have not the same number of seeds.
    """
    found = study.pooled[test] if among > 1 else None  # of one regularizer it is the paired t-test
    seeds = {len(runs) for reg, runs in study.runs.items() if found and reg in found.means}
    if found is None or not found.variance or len(seeds) > 1:
        return None
    error = (found.variance * 2 / seeds.pop()) ** 0.5
    return float(-special.stdtrit(found.freedom, SIGNIFICANT / among / 2)) * error


def _gains(study: Study, reg: str) -> str:
    """`-0.25 ± 0.52 at 1-shot, -0.35 ± 0.77 at 5-shot`, of training anew."""
    own = [(effect.test, effect.interval("training anew")) for effect in study.effects if effect.reg == reg]
    return ", ".join(f"{signed(gain)} at {test}" for test, gain in own if gain) or "one seed"


def _of(study: Study, test: str) -> list[Effect]:
    return [effect for effect in study.effects if effect.test == test]


def _helpful(effects: Sequence[Effect]) -> list[Effect]:
    return [effect for effect in effects if _word(effect) in BETTER]


def _word(effect: Effect) -> str:
    for interval, word in ((effect.interval("training anew"), ""), (effect.pooled, "pooled ")):
        if interval is not None and established(interval):
            return word + ("better" if interval.estimate > 0 else "worse")
    return "open"


def _codes(regs: Iterable[str]) -> str:
    return ", ".join(f"`{reg}`" for reg in regs)
