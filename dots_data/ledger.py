"""The ledger: every response record's fate, in exactly one row, and what can be asked of it.

Kept + dropped + quarantined = records read, always. A dropped row names its rule with the measured value and the
threshold; a duplicate names a survivor that is kept. A copy (equal normalised text) shares the fate of the copy
that went on (`copy_of`): where that one was dropped by a later rule, the row carries that rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from dots_data.dedup import identity, minhash
from dots_data.schema import DROPPED, KEPT, LEDGER, PLACE, QUARANTINED, STAGES

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def fates(judged: DataFrame, duplicates: DataFrame, threshold: float) -> DataFrame:
    """The end of every document that went as far as the rules: one row a `judged_id`."""
    from pyspark.sql import functions as F

    near = F.col("duplicate_of").isNotNull()
    return judged.join(duplicates, "doc_id", "left").select(
        F.col("doc_id").alias("judged_id"),
        F.when(near, DROPPED).otherwise(F.coalesce("decision", F.lit(KEPT))).alias("fate"),
        F.when(near, minhash.STAGE).otherwise(F.col("stage")).alias("fate_stage"),
        F.when(near, minhash.RULE).otherwise(F.col("rule")).alias("fate_rule"),
        F.when(near, F.col("similarity")).otherwise(F.col("value")).alias("fate_value"),
        F.when(near, F.lit(threshold)).otherwise(F.col("threshold")).alias("fate_threshold"),
        F.col("detail").alias("fate_detail"),
        "duplicate_of",
        "similarity",
        F.col("measures").alias("fate_measures"),
    )


def assemble(prepared: DataFrame, copies: DataFrame, ends: DataFrame, earlier: DataFrame | None = None) -> DataFrame:
    """One row (columns of schema.LEDGER) for every row of `prepared`.

    prepared: schema.PREPARED. copies: identity.find_copies. ends: `fates`; earlier: the `fates` of documents of earlier
    dumps, of which copies may be.
    """
    from pyspark.sql import functions as F

    if earlier is not None:
        named = copies.select(F.col("copy_of").alias("judged_id")).distinct()
        ends = ends.unionByName(earlier.join(named, "judged_id", "left_semi"), allowMissingColumns=True)
    went_on = F.col("decision").isNull()
    is_copy = F.col("copy_of").isNotNull()
    by_rule = is_copy & (F.col("fate") != KEPT) & F.col("duplicate_of").isNull()
    same_text = is_copy & ~by_rule
    rows = (
        prepared.drop("text")
        .join(copies, [*PLACE], "left")
        .withColumn("judged_id", F.when(went_on, F.coalesce("copy_of", "doc_id")))
        .join(ends, "judged_id", "left")
    )

    def ended(column: str, if_copy: Column) -> Column:
        later = F.when(same_text, if_copy).otherwise(F.col(f"fate_{column}"))
        return F.when(went_on, later).otherwise(F.col(column)).alias(column)

    survivor = F.when(same_text, F.coalesce("duplicate_of", "copy_of")).otherwise(F.col("duplicate_of"))
    similarity = F.when(same_text, F.coalesce("similarity", F.lit(1.0))).otherwise(F.col("similarity"))
    measured = F.when(is_copy, F.create_map(F.lit("identity.copies"), F.col("copies").cast("double"))).otherwise(
        F.col("fate_measures")
    )
    columns = {
        "decision": F.when(went_on, F.when(is_copy, DROPPED).otherwise(F.col("fate")))
        .otherwise(F.col("decision"))
        .alias("decision"),
        "stage": ended("stage", F.lit(identity.STAGE)),
        "rule": ended("rule", F.lit(identity.RULE)),
        "value": ended("value", F.col("copies").cast("double")),
        "threshold": ended("threshold", F.lit(1.0)),
        "detail": ended("detail", F.lit(None)),
        "duplicate_of": survivor.alias("duplicate_of"),
        "similarity": similarity.alias("similarity"),
        "measures": F.map_concat("measures", F.coalesce(measured, F.create_map().cast("map<string,double>"))).alias(
            "measures"
        ),
    }
    return rows.select(*(columns.get(name, F.col(name)) for name in LEDGER.names))


@dataclass(frozen=True)
class Step:
    """One line of the funnel."""

    stage: str
    entered: int
    dropped: int
    quarantined: int

    @property
    def kept(self) -> int:
        return self.entered - self.dropped - self.quarantined


def counts(ledger: Path) -> dict[tuple[str, str, str], int]:
    """Rows by (decision, stage, rule); empty strings for a kept row. Reads three columns, batch by batch."""
    columns = ["decision", "stage", "rule"]
    found: Counter[tuple[str, str, str]] = Counter()
    for batch in ds.dataset(ledger, format="parquet").to_batches(columns=columns):
        grouped = pa.Table.from_batches([batch]).group_by(columns).aggregate([([], "count_all")])
        for row in grouped.to_pylist():
            found[row["decision"], row["stage"] or "", row["rule"] or ""] += row["count_all"]
    return dict(found)


def problems(ledger: Path) -> dict[str, int]:
    """How many records had which problem in their stored bytes, though they could be read."""
    scanner = ds.dataset(ledger, format="parquet").scanner(columns=["problem"], filter=pc.field("problem").is_valid())
    found = Counter(problem for batch in scanner.to_batches() for problem in batch.column("problem").to_pylist())
    return dict(sorted(found.items()))


def funnel(by_rule: Mapping[tuple[str, str, str], int]) -> list[Step]:
    """The steps in order, each with what entered it and what it ended."""
    entering, steps = sum(by_rule.values()), []
    for stage in STAGES:
        ended = {
            decision: sum(n for (d, s, _), n in by_rule.items() if s == stage and d == decision)
            for decision in (DROPPED, QUARANTINED)
        }
        step = Step(stage, entering, ended[DROPPED], ended[QUARANTINED])
        steps.append(step)
        entering = step.kept
    return steps


def find(ledger: Path, wanted: str) -> list[dict[str, Any]]:
    """The ledger rows of a URL, a record id (with or without angle brackets) or a doc id."""
    record = wanted.strip("<>")
    names = [wanted, record, f"<{record}>"]
    matches = pc.field("url").isin([wanted]) | pc.field("record_id").isin(names) | pc.field("doc_id").isin([wanted])
    rows = ds.dataset(ledger, format="parquet").to_table(filter=matches).to_pylist()
    return sorted(rows, key=lambda row: (row["warc_file"], row["warc_offset"], row["warc_index"]))


def by_id(ledger: Path, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The rows of these doc ids; where a record was delivered twice, the kept one."""
    rows = (
        ds.dataset(ledger, format="parquet")
        .to_table(filter=pc.field("doc_id").isin(pa.array(ids, pa.string())))
        .to_pylist()
    )
    return {row["doc_id"]: row for row in sorted(rows, key=lambda row: row["decision"] == KEPT)}


def metadata(recipe_hash: str, input_hash: str) -> dict[bytes, bytes]:
    """What is written into the schema of every output file."""
    return {b"dots.recipe": recipe_hash.encode(), b"dots.input": input_hash.encode(), b"dots.format": b"1"}


def with_metadata(schema: pa.Schema, values: Mapping[bytes, bytes]) -> pa.Schema:
    return schema.with_metadata({**(schema.metadata or {}), **values})
