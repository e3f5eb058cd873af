"""Decontamination: documents that hold passages of evaluation sets, found by n-grams of words.

GPT-3 (Brown et al. 2020, appendix C) and Llama (Touvron et al. 2023) look for 13-grams of lower-case words without
punctuation; a text of an evaluation set that is shorter is looked for as a whole, from 8 words on as in GPT-3's. What
differs here: a document is judged as a whole, not cut; two Chinese or Japanese characters, and four of Thai, Lao, Khmer
or Burmese, count as a word; and an n-gram that many texts of the sets have in common is a template of theirs
("Which of the following ..."), no content.

Four things are measured, so that a recipe can be strict (any shared n-gram) or ask for a large part of an item.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from dots_data import console
from dots_data.judge import Rule
from dots_data.rules.evaluations import Evaluations, Settings, opened
from dots_data.rules.ruleset import Overrides, RuleSet
from dots_data.text import Document
from dots_data.typed_yaml import ConfigError

MOST_WORDS = 64


@dataclass(frozen=True)
class Decontamination(RuleSet):
    """What is looked for, and how much of it a document may hold.

    evaluations: files (JSON Lines, JSON, Parquet, plain text; compressed or not) or folders of them; none: off.
    fields: the fields of a row that are looked for; null: all its strings.
    words: the n of the n-grams (GPT-3, Llama: 13).
    min_words: texts of fewer words are not looked for (GPT-3: 8).
    max_items: an n-gram that stands in more items than so many is not looked for.
    max_ngrams: places of a document where an n-gram of the sets may begin (GPT-3: none).
    max_longest: words of the longest stretch of it that such n-grams may cover.
    max_share: of its words, those that such n-grams may cover.
    max_coverage: of the n-grams of any one item, those that it may hold.
    """

    LANGUAGE_DEFAULTS: ClassVar[Overrides] = {}

    evaluations: tuple[str, ...] = ()
    fields: tuple[str, ...] | None = None
    words: int = 13
    min_words: int = 8
    max_items: int = 10
    max_ngrams: int | None = 0
    max_longest: float | None = None
    max_share: float | None = None
    max_coverage: float | None = None
    by_language: dict[str, dict[str, float | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.min_words <= self.words <= MOST_WORDS:
            raise ConfigError(
                f"min_words {self.min_words}, words {self.words}: must be 1 <= min_words <= words <= {MOST_WORDS}"
            )
        if not 1 <= self.max_items <= 1000:
            raise ConfigError(f"max_items: {self.max_items} is not 1 to 1,000")

    def check(self) -> None:
        """Compile the evaluation sets, if there are any, and say on the screen what is looked for.

        Raises ConfigError for what cannot be read.
        """
        if self.evaluations:
            counts = self.opened().facts
            console.console.print(
                f"decontamination: {counts['ngrams']:,} n-grams of {counts['texts']:,} texts; not looked for: "
                f"{counts['short_texts']:,} texts of fewer than {self.min_words} words, "
                f"{counts['common_ngrams']:,} n-grams of more than {self.max_items} items"
            )

    def opened(self) -> Evaluations:
        """The evaluation sets, compiled. Raises ConfigError for what cannot be read."""
        return opened(Settings(self.evaluations, self.fields, self.words, self.min_words, self.max_items))


RULES = (
    Rule("decontamination.ngrams", "decontamination.ngrams", "<=", "max_ngrams"),
    Rule("decontamination.longest", "decontamination.longest", "<=", "max_longest"),
    Rule("decontamination.share", "decontamination.share", "<=", "max_share"),
    Rule("decontamination.coverage", "decontamination.coverage", "<=", "max_coverage"),
)


def measure(document: Document, config: Decontamination) -> dict[str, float]:
    """What the document shares with the evaluation sets (evaluations.Overlap), and the number of the item hit most, if
    any; nothing where there are no sets."""
    if not config.evaluations:
        return {}
    found = config.opened().overlap(document.codes)
    measures = {f"decontamination.{name}": float(value) for name, value in found._asdict().items() if name != "item"}
    return measures | ({"decontamination.item": float(found.item)} if found.item >= 0 else {})


def detail(measures: Mapping[str, float], config: Decontamination) -> str:
    """Which item a document holds most of, and how much of it; nothing where the sets are not at hand any more."""
    if not config.evaluations or "decontamination.item" not in measures:
        return ""
    item = config.opened().item_name(int(measures["decontamination.item"]))
    return f"{measures['decontamination.coverage']:.0%} of {item}"
