"""The first lines of the page: what each study says of its regularizers."""

from __future__ import annotations

from collections.abc import Sequence

from report_parts.effects import Effect, Study, established
from report_parts.sections import Section


def short(section: Section, study: Study) -> str:
    """A line for each test."""
    tests = sorted({effect.test for effect in study.effects})
    by_test = {test: [effect for effect in study.effects if effect.test == test] for test in tests}
    return "\n".join(_line(section, test, effects) for test, effects in by_test.items())


def _line(section: Section, test: str, effects: Sequence[Effect]) -> str:
    counts = sorted({len(effect.each) for effect in effects})
    seeds = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))) + " seed" + "s" * (counts[-1] > 1)
    by_word: dict[str, list[Effect]] = {"better": [], "worse": [], "pooled better": [], "pooled worse": [], "open": []}
    for effect in effects:
        by_word[_word(effect)].append(effect)
    said = [f"of {len(effects)} regularizers {_codes(by_word['better']) or 'none'} is shown to be better than `none`"]
    if also := by_word["pooled better"]:
        said[0] += f" (with pooled seeds {_codes(also)})"
    worse, pooled = _codes(by_word["worse"]), _codes(by_word["pooled worse"])
    if worse or pooled:
        also = f" (with pooled seeds also {pooled})" if worse else f" with pooled seeds alone: {pooled}"
        said.append(f"worse: {worse}{also * bool(pooled)}" if worse else f"worse{also}")
    apart = [effect for effect in by_word["open"] if effect.pooled is None and any(each.pooled for each in effects)]
    near = [effect for effect in by_word["open"] if effect not in apart]
    if intervals := [each for effect in near if (each := effect.interval("training anew"))]:
        low, high = min(each.low for each in intervals), max(each.high for each in intervals)
        span = f"{100 * low:+.1f} to {100 * high:+.1f} points"
        said.append(f"no verdict on the other {len(near)}, whose intervals run from {span}")
    for effect in apart:
        each = ", ".join(f"{100 * gain:+.1f}" for gain in effect.each.values())
        own = effect.interval("training anew")
        alone = "" if own is None else f", by its own p = {own.p_value:.2g}, {own.unadjusted:.2g} before the correction"
        said.append(f"`{effect.reg}` has {each} points by seed, too unequal for pooling{alone}")
    return f"- **{section.title}, {test}** ({seeds}): {'; '.join(said)}."


def _word(effect: Effect) -> str:
    for interval, word in ((effect.interval("training anew"), ""), (effect.pooled, "pooled ")):
        if interval is not None and established(interval):
            return word + ("better" if interval.estimate > 0 else "worse")
    return "open"


def _codes(effects: Sequence[Effect]) -> str:
    return ", ".join(f"`{effect.reg}`" for effect in effects)
