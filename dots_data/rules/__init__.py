"""Rules: measures taken once from a prepared document, and thresholds of the recipe to judge them by.

One published set a file, each with the dataclass of its thresholds, its `measure` and its rules in the
published order. The sets are judged in FineWeb's order (Gopher repetition, Gopher quality, C4, FineWeb), the
paper's own first, RefinedWeb's after them, and decontamination last. Gopher and RefinedWeb measure the text as it came;
C4 removes lines; C4 and FineWeb measure what is left of it, as in FineWeb; the paper's own rules and decontamination
too, since what is left is what would be kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any, NamedTuple

from dots_data.judge import Rule, Verdict, judge
from dots_data.rules import c4, decontamination, fineweb, gopher, paper, refinedweb
from dots_data.rules.c4 import C4
from dots_data.rules.decontamination import Decontamination
from dots_data.rules.fineweb import FineWeb
from dots_data.rules.gopher import GopherQuality, GopherRepetition
from dots_data.rules.paper import Paper
from dots_data.rules.refinedweb import RefinedWeb
from dots_data.rules.ruleset import RuleSet
from dots_data.text import Document

STAGE = "rules"


@dataclass(frozen=True)
class RulesConfig:
    """The rule sets, by name; null switches a set off."""

    paper: Paper | None = dataclass_field(default_factory=Paper)
    gopher_repetition: GopherRepetition | None = dataclass_field(default_factory=GopherRepetition)
    gopher_quality: GopherQuality | None = dataclass_field(default_factory=GopherQuality)
    c4: C4 | None = dataclass_field(default_factory=C4)
    fineweb: FineWeb | None = dataclass_field(default_factory=FineWeb)
    refinedweb: RefinedWeb | None = dataclass_field(default_factory=RefinedWeb)
    decontamination: Decontamination | None = dataclass_field(default_factory=Decontamination)


class Cleaned(NamedTuple):
    """What the rules stage makes of a text: the text to keep, its measures, how many lines were taken out."""

    text: str
    measures: dict[str, float]
    removed_lines: int


class _Set(NamedTuple):
    """A rule set: the field of `RulesConfig` that holds its thresholds, its rules, its measure; what else of the
    measures a verdict tells."""

    field: str
    rules: tuple[Rule, ...]
    measure: Callable[[Document, Any], dict[str, float]]
    before_removal: bool = False
    detail: Callable[[Mapping[str, float], Any], str] | None = None


_SETS = (
    _Set("paper", paper.RULES, paper.measure),
    _Set("gopher_repetition", gopher.REPETITION_RULES, gopher.measure_repetition, before_removal=True),
    _Set("gopher_quality", gopher.QUALITY_RULES, gopher.measure_quality, before_removal=True),
    _Set("c4", c4.RULES, c4.measure),
    _Set("fineweb", fineweb.RULES, fineweb.measure),
    _Set("refinedweb", refinedweb.RULES, refinedweb.measure, before_removal=True),
    _Set("decontamination", decontamination.RULES, decontamination.measure, detail=decontamination.detail),
)


def clean_and_measure(text: str, language: str, config: RulesConfig) -> Cleaned:
    """Remove the lines that C4 removes, and take the measures of every set that is on.

    The measures are those of `measure`, and `c4.removed_lines`. Without `c4.remove_lines` the text stays as
    it is.
    """
    document = Document(text, language)
    if config.c4 is None or not config.c4.remove_lines:
        return Cleaned(text, measure(document, config), 0)
    kept = c4.clean(document, config.c4)
    # As in the published code no blank line is measured; that a paragraph ends is kept for the reader.
    left = document if kept.lines == text else Document(kept.lines, language, word_count=kept.words)
    measures = measure(left, config, before_removal=document)
    return Cleaned(kept.text, {**measures, "c4.removed_lines": float(kept.removed)}, kept.removed)


def measure(document: Document, config: RulesConfig, before_removal: Document | None = None) -> dict[str, float]:
    """The measures of every set that is on, in order; Gopher's of `before_removal`, if given."""
    original = before_removal or document
    measures: dict[str, float] = {}
    for rule_set in _SETS:
        thresholds = getattr(config, rule_set.field)
        if thresholds is not None:
            measures |= rule_set.measure(original if rule_set.before_removal else document, thresholds)
    return measures


def rules_in_order(config: RulesConfig) -> tuple[Rule, ...]:
    """The rules of every set that is on, in the order in which they are judged."""
    return tuple(rule for rule_set in _sets_on(config) for rule in rule_set.rules)


def decide(measures: Mapping[str, float], language: str, config: RulesConfig) -> Verdict | None:
    """The first rule that the measures fail, under the thresholds for `language`; None if all hold."""
    for rule_set in _sets_on(config):
        verdict = judge(STAGE, rule_set.rules, measures, _thresholds_of(rule_set, language, config))
        if verdict is not None:
            told = rule_set.detail(measures, getattr(config, rule_set.field)) if rule_set.detail else ""
            return dataclasses.replace(verdict, detail=told)
    return None


def thresholds(config: RulesConfig, language: str) -> list[tuple[Rule, float | None]]:
    """Each rule with its threshold for `language`, in order; None where the rule is not applied."""
    pairs: list[tuple[Rule, float | None]] = []
    for rule_set in _sets_on(config):
        values = _thresholds_of(rule_set, language, config)
        pairs += [(rule, values[rule.threshold]) for rule in rule_set.rules]
    return pairs


def threshold_of(name: str, language: str, config: RulesConfig) -> float | None:
    """The threshold of the rule `name` for `language`; None if it is not applied.

    Raises:
        KeyError: no rule has that name.
    """
    rule = RULES[name]
    return dict(thresholds(config, language)).get(rule)


RULES: dict[str, Rule] = {rule.name: rule for rule_set in _SETS for rule in rule_set.rules}


def _sets_on(config: RulesConfig) -> list[_Set]:
    return [rule_set for rule_set in _SETS if getattr(config, rule_set.field) is not None]


def _thresholds_of(rule_set: _Set, language: str, config: RulesConfig) -> dict[str, Any]:
    chosen: RuleSet = getattr(config, rule_set.field)
    return chosen.thresholds(language)
