"""A page's fate in words: the steps it passed, each measured value beside its threshold, and what ended it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dots_data import console
from dots_data.dedup import identity
from dots_data.judge import KEEPS
from dots_data.recipe import Recipe
from dots_data.rules import STAGE as RULES_STAGE
from dots_data.rules import thresholds
from dots_data.schema import KEPT, STAGES
from dots_data.typed_yaml import build


class Line(NamedTuple):
    """One measured value: what it had to be, and whether it was."""

    step: str
    what: str
    value: float | str
    limit: str
    outcome: str


def explain_record(row: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
    """Print the fate of one ledger row. `others` are the rows of the documents that it names."""
    out = console.console
    out.print()
    out.print(f"[bold]{console.safe(row['url'])}[/]")
    out.print(f"  record {console.safe(row['record_id'])}  document {row['doc_id']}  {console.safe(row['date'])}")
    out.print(f"  lies in {console.safe(row['warc_file'])} at byte {row['warc_offset']:,}")
    out.print(f"  {_verdict(row)}", style="bold green" if row["decision"] == KEPT else "bold red")
    for role, key in (("near to", "duplicate_of"), ("a copy of what was judged in its place", "copy_of")):
        if key == "duplicate_of" and row[key] == row["copy_of"]:
            continue
        if row[key] and (other := others.get(row[key])):
            out.print(
                f"  {role}: {console.safe(other['url'])} ({row[key]}, {other['decision']}), "
                f"{console.safe(other['warc_file'])} at byte {other['warc_offset']:,}"
            )
        elif row[key]:
            out.print(f"  {role}: {row[key]}, a document of an earlier dump: `dots explain` it in that dump's output")
    recipe = build(Recipe, summary["recipe"], "summary.json: recipe")
    console.table("", ("step", "measured", "value", "must be", ""), list(lines(row, recipe)), left=2)


def _verdict(row: Mapping[str, Any]) -> str:
    if row["decision"] == KEPT:
        return "kept"
    words = f"{row['decision']} by {row['rule']} (step {row['stage']}): {row['value']:g} against {row['threshold']:g}"
    if row["detail"]:
        words += f", {console.safe(row['detail'])}"
    if row["duplicate_of"]:
        words += f"; similarity {row['similarity']:.4f}"
    return words


class _Check(NamedTuple):
    """What a rule compares: a measured value with a limit, or with the values that it may have."""

    rule: str
    measure: str
    keeps: str
    limit: float | Sequence[float | str]

    def holds(self, value: float | str) -> bool:
        if isinstance(self.limit, Sequence):
            return value in self.limit
        return KEEPS[self.keeps](float(value), self.limit)

    @property
    def words(self) -> str:
        if isinstance(self.limit, Sequence):
            return "one of " + ", ".join(one if isinstance(one, str) else f"{one:g}" for one in self.limit)
        return f"{self.keeps} {self.limit:,.10g}"


def lines(row: Mapping[str, Any], recipe: Recipe) -> Iterator[Line]:
    """The steps in order up to the one that ended the record, with what was measured in each."""
    measures: dict[str, float | str] = dict(row["measures"] or ())
    if row["language"] is not None:
        measures["language"] = row["language"] or "unknown"
    checks = _checks(recipe, row["language"] or "")
    for stage in STAGES:
        mine = {name: value for name, value in measures.items() if _stage_of(name) == stage}
        yield from _stage_lines(stage, row, mine, checks.get(stage, []))
        if stage == row["stage"]:
            return


def _stage_of(measure: str) -> str:
    """The step that took a measure: the rule sets' names are not those of steps."""
    first = measure.partition(".")[0]
    return first if first in STAGES else RULES_STAGE


def _stage_lines(
    stage: str, row: Mapping[str, Any], measures: Mapping[str, float | str], checks: Sequence[_Check]
) -> Iterator[Line]:
    ends_here, told = stage == row["stage"], False
    for check in checks:
        if (value := measures.get(check.measure)) is None:
            continue
        ended = ends_here and check.rule == row["rule"]
        told = told or ended
        yield Line(stage, check.measure, value, check.words, _outcome(check, value, row, ended))
    judged = {check.measure for check in checks}
    for measure, value in measures.items():
        if measure not in judged:
            yield Line(stage, measure, value, "", "")
    if ends_here and not told:
        yield Line(stage, row["rule"], row["value"], f"threshold {row['threshold']:g}", f"{row['decision']} here")
    elif not measures:
        yield Line(stage, "", "", "", "passed")


def _outcome(check: _Check, value: float | str, row: Mapping[str, Any], ended: bool) -> str:
    if ended:
        return f"{row['decision']} here"
    if check.holds(value):
        return "passed"
    # Of equal texts one is judged for all: a later step may have ended it, and its copies with it.
    return "judged with its copies" if check.rule == identity.RULE else "fails too"


def _checks(recipe: Recipe, language: str) -> dict[str, list[_Check]]:
    """The rules of each step, in the order in which it applies them, as far as it records what they compare."""
    http, keep = recipe.http, recipe.language.keep
    return {
        "http": [
            _Check("http.status", "http.status", "in", tuple(map(float, http.status))),
            _Check("http.max_body_bytes", "http.body_bytes", "<=", float(http.max_body_bytes)),
        ],
        "extraction": [_Check("extraction.min_characters", "extraction.characters", ">=", 1.0)],
        "language": [
            _Check("language.min_score", "language.score", ">=", recipe.language.min_score),
            *([_Check("language.keep", "language", "in", keep)] if keep is not None else []),
        ],
        "identity": [_Check(identity.RULE, identity.RULE, "<=", 1.0)],
        "rules": [
            _Check(rule.name, rule.measure, rule.keeps, float(threshold))
            for rule, threshold in thresholds(recipe.rules, language)
            if threshold is not None
        ],
    }
