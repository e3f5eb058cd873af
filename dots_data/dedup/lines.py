"""Line-wise deduplication between documents (dots.llm1 report, Appendix C.2).

The first and last lines of each document are counted over the whole corpus; of a line seen more often than the
threshold, the first occurrences stay (in the order of dumps and document ids) and the later ones are removed. A
document that loses nothing stays byte for byte. Of earlier dumps it is enough to know how often each line was seen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import xxhash

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from dots_data.engines.spark import Batches, Checkpoint

STAGE = "lines"

OCCURRENCE = pa.schema(
    [("line", pa.binary()), ("dump", pa.string()), ("doc_id", pa.string()), ("position", pa.int32())]
)
SHORTENED = pa.schema(
    [
        ("doc_id", pa.string()),
        ("text", pa.string()),
        ("lines_removed", pa.int32()),
        ("removed", pa.list_(pa.struct([("position", pa.int32()), ("line", pa.string())]))),
    ]
)


@dataclass(frozen=True)
class LinesConfig:
    """first, last: how many lines with words are looked at from either end.

    max_occurrences: of a line seen more often, so many occurrences stay (the report's 200).
    """

    first: int = 5
    last: int = 5
    max_occurrences: int = 200


def edge_lines(text: str, config: LinesConfig) -> Iterator[tuple[int, str]]:
    """Position and stripped content of the first and last lines; lines without a letter or digit are not counted."""
    lines = text.split("\n")
    worded = [(position, line.strip()) for position, line in enumerate(lines) if _has_word(line)]
    if len(worded) <= config.first + config.last:
        yield from worded
    else:
        yield from worded[: config.first]
        yield from worded[len(worded) - config.last :]


def _has_word(line: str) -> bool:
    return any(map(str.isalnum, line))


def remove_lines(text: str, positions: Collection[int]) -> str:
    """The text without the lines at these positions; what is left is joined, without blank edges."""
    gone = frozenset(positions)
    kept = (line for position, line in enumerate(text.split("\n")) if position not in gone)
    return "\n".join(kept).strip("\n")


def _shortened(doc_id: str, text: str, positions: Collection[int]) -> dict[str, Any]:
    lines = text.split("\n")
    removed = [{"position": position, "line": lines[position]} for position in sorted(positions)]
    return {
        "doc_id": doc_id,
        "text": remove_lines(text, positions),
        "lines_removed": len(removed),
        "removed": removed,
    }


def line_key(line: str) -> bytes:
    """128 bits: two lines with one key are the same line at any corpus size."""
    return xxhash.xxh3_128_digest(line.encode("utf-8", "surrogatepass"))


def find_shortened(
    documents: DataFrame, config: LinesConfig, checkpoint: Checkpoint, earlier: DataFrame | None = None
) -> DataFrame:
    """The documents that lose lines, with their new text (columns of SHORTENED).

    `documents` has `dump`, `doc_id` and `text`; `checkpoint(name, frame)` materialises a table and reads it back, and
    leaves as `counts` how often each `line` was seen (`seen`). `earlier` holds such counts of earlier dumps.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    from dots_data.engines.spark import map_batches, rows_to_batches

    def explode(batches: Batches) -> Batches:
        for batch in batches:
            columns = (batch.column(name).to_pylist() for name in ("dump", "doc_id", "text"))
            rows = (
                {"line": line_key(line), "dump": dump, "doc_id": doc_id, "position": position}
                for dump, doc_id, text in zip(*columns, strict=True)
                for position, line in edge_lines(text, config)
            )
            yield from rows_to_batches(rows, OCCURRENCE, size=4096)

    def shorten(batches: Batches) -> Batches:
        for batch in batches:
            yield from rows_to_batches((_shortened(**row) for row in batch.to_pylist()), SHORTENED)

    exploded = map_batches(documents.select("dump", "doc_id", "text"), explode, OCCURRENCE)
    occurrences = checkpoint("occurrences", exploded)
    counts = checkpoint("counts", occurrences.groupBy("line").agg(F.count(F.lit(1)).alias("seen")))
    before = earlier if earlier is not None else counts.limit(0)
    before = before.groupBy("line").agg(F.sum("seen").alias("before"))
    frequent = (
        counts.join(before, "line", "left")
        .withColumn("before", F.coalesce("before", F.lit(0)))
        .where(F.col("seen") + F.col("before") > config.max_occurrences)
        .select("line", "before")
    )
    # Only the frequent lines are ordered, so the sort is small however large the corpus.
    by_content = Window.partitionBy("line").orderBy("dump", "doc_id", "position")
    surplus = (
        occurrences.join(frequent, "line")
        .withColumn("number", F.col("before") + F.row_number().over(by_content))
        .where(F.col("number") > config.max_occurrences)
        .groupBy("doc_id")
        .agg(F.collect_list("position").alias("positions"))
    )
    return map_batches(documents.select("doc_id", "text").join(surplus, "doc_id"), shorten, SHORTENED)
