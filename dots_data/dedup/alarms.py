"""Alarms: a cluster or a host that loses more to deduplication than is plausible.

One cluster of a million documents, or a host of which next to nothing stays, is more often a fault of a threshold
or of the extraction (a cookie notice taken for the text of every page) than a million duplicates. Nothing is
undone: the run goes on and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dots_data import console
from dots_data.crawl.urls import host_of
from dots_data.dedup.components import components

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from dots_data.engines.spark import Batches, Checkpoint

COPIES, NEAR, HOST = "copies", "near-duplicates", "host"

_HOSTS = pa.schema([("host", pa.string()), ("gone", pa.bool_())])


@dataclass(frozen=True)
class AlarmsConfig:
    """cluster_documents, cluster_share: a cluster is told of where it is larger than so many documents and than such
        a share of all that came to deduplication.
    host_documents, host_share: a host is told of where so many of its documents came to deduplication, or more, and
        more than such a share of them was dropped there.
    most: of each kind, so many are told of, those that lost most.
    """

    cluster_documents: int = 1_000
    cluster_share: float = 0.001
    host_documents: int = 100
    host_share: float = 0.95
    most: int = 20


def find_alarms(
    ledger: DataFrame, near: DataFrame, checkpoint: Checkpoint, config: AlarmsConfig = AlarmsConfig()
) -> list[dict[str, Any]]:
    """What is implausible, worst first, at most `config.most` of each kind.

    ledger: schema.LEDGER. near: schema.NEAR. Every alarm has `kind`, `documents` (of the cluster or host), `lost`
    (of these, to deduplication), `share` (the cluster's of all documents, or of the host's own that were lost) and
    `limit`, what it is over. A cluster has `survivor` and `url` of a document of it that was kept, where one was; a
    host has `host`.
    """
    from pyspark.sql import functions as F

    gone = F.col("duplicate_of").isNotNull()
    compared = ledger.where("text_md5 IS NOT NULL").withColumn("gone", gone)
    documents = compared.count()
    limit = max(config.cluster_documents, int(config.cluster_share * documents))
    clusters = [(COPIES, compared.withColumn("cluster", F.col("text_md5")))]
    # What the rules dropped may be among the pairs, for `dots judge`, and is in no cluster.
    unruled = compared.where("stage IS NULL OR stage = 'fuzzy'").where("copy_of IS NULL")
    pairs = near.select("doc_id", "near_to")
    # So many documents are not connected by fewer pairs.
    if pairs.count() >= limit:
        for end in pairs.columns:
            pairs = pairs.join(unruled.selectExpr(f"doc_id AS {end}"), end, "left_semi")
        labels = components(checkpoint("pairs", pairs), checkpoint).withColumnRenamed("component", "cluster")
        clusters.append((NEAR, unruled.join(labels, "doc_id")))
    found = [alarm for kind, members in clusters for alarm in _large(kind, members, limit, documents, config.most)]
    return found + _emptied_hosts(compared, config)


def words(alarm: Mapping[str, Any]) -> str:
    """An alarm in one line, fit for a terminal."""
    lost = f"{alarm['lost']:,} of {alarm['documents']:,} documents"
    if alarm["kind"] == HOST:
        name = console.safe(alarm["host"] or "(no host)")
        return f"alarm: {name} lost {lost} to deduplication ({alarm['share']:.1%}, over {alarm['limit']:.0%})"
    kept = f"; {console.safe(alarm['url'])} ({alarm['survivor']}) is kept" if alarm["survivor"] else ""
    return (
        f"alarm: a cluster of {alarm['kind']} lost {lost} ({alarm['share']:.1%} of all documents; "
        f"more than {alarm['limit']:,} in one cluster){kept}"
    )


def _large(kind: str, members: DataFrame, limit: int, documents: int, most: int) -> list[dict[str, Any]]:
    """The clusters of more than `limit` members (columns `cluster`, `doc_id`, `url`, `decision`, `gone`)."""
    from pyspark.sql import functions as F

    def of_kept(column: str) -> Column:
        return F.min_by(
            F.when(F.col("decision") == "kept", F.col(column)), F.struct(F.col("decision") != "kept", "doc_id")
        )

    sizes = members.groupBy("cluster").agg(F.count(F.lit(1)).alias("documents"), _lost()).where(F.col("lost") > 0)
    worst = sizes.where(F.col("documents") > limit).orderBy(F.desc("lost"), "cluster").limit(most)
    named = members.join(F.broadcast(worst), "cluster").groupBy("cluster", "documents", "lost")
    rows = named.agg(of_kept("doc_id").alias("survivor"), of_kept("url").alias("url")).collect()
    return [
        {
            "kind": kind,
            "survivor": row["survivor"],
            "url": row["url"],
            "documents": row["documents"],
            "lost": row["lost"],
            "share": row["documents"] / documents,
            "limit": limit,
        }
        for row in sorted(rows, key=lambda row: (-row["lost"], row["cluster"]))
    ]


def _lost() -> Column:
    from pyspark.sql import functions as F

    return F.sum(F.col("gone").cast("long")).alias("lost")


def _emptied_hosts(compared: DataFrame, config: AlarmsConfig) -> list[dict[str, Any]]:
    from pyspark.sql import functions as F

    from dots_data.engines.spark import map_batches

    def hosts(batches: Batches) -> Batches:
        for batch in batches:
            names = pa.array([host_of(url) for url in batch.column("url").to_pylist()], pa.string())
            yield pa.record_batch([names, batch.column("gone")], schema=_HOSTS)

    by_host = map_batches(compared.select("url", "gone"), hosts, _HOSTS).groupBy("host")
    sizes = by_host.agg(F.count(F.lit(1)).alias("documents"), _lost())
    emptied = sizes.where(F.col("documents") >= config.host_documents).where(
        F.col("lost") > config.host_share * F.col("documents")
    )
    return [
        {
            "kind": HOST,
            "host": row["host"],
            "documents": row["documents"],
            "lost": row["lost"],
            "share": row["lost"] / row["documents"],
            "limit": config.host_share,
        }
        for row in emptied.orderBy(F.desc("lost"), "host").limit(config.most).collect()
    ]
