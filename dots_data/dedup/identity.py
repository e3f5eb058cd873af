"""Identity removal: documents whose normalised texts are equal (dots.llm1 report, Appendix C.1).

The normalisation strips punctuation, applies NFD, lower-cases and collapses spaces; its MD5 is the key.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dots_data.dedup.survivors import Preference, order_column
from dots_data.schema import PLACE
from dots_data.text import normalise

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

STAGE, RULE = "identity", "identity.copies"


@dataclass(frozen=True)
class IdentityConfig:
    """survivor: which of several copies stays, by these preferences in turn, ties by id (see survivors.order_key)."""

    survivor: tuple[Preference, ...] = ("longest", "earliest")


def text_md5(text: str) -> str:
    """MD5 of the normalised text, 32 hexadecimal digits."""
    return hashlib.md5(normalise(text).encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()


def find_copies(prepared: DataFrame, config: IdentityConfig, earlier: DataFrame | None = None) -> DataFrame:
    """The rows that are copies of a survivor: their key, `copy_of` and `copies` (how many share the text so far).

    `prepared` has the columns of PLACE, those of an order and `text_md5`; so has `earlier`, the texts of earlier
    dumps, whose copies were found before. A record that was delivered twice has one id, so the place is the last tie.
    """
    from pyspark.sql import functions as F

    everything = prepared.withColumn("new", F.lit(True))
    if earlier is not None:
        everything = everything.unionByName(earlier.select(*prepared.columns, F.lit(False).alias("new")))
    ranked = everything.withColumn("order", order_column(config.survivor, *PLACE[1:]))
    groups = (
        ranked.groupBy("text_md5")
        .agg(F.min("order").alias("first"), F.count(F.lit(1)).alias("copies"))
        .where("copies > 1")
    )
    return (
        ranked.join(groups, "text_md5")
        .where("new AND order != first")
        .select(*PLACE, F.col("first.doc_id").alias("copy_of"), "copies")
    )
