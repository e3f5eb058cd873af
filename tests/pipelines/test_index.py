"""A living index: dumps one after another give what all at once give, and what is killed leaves the last good one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from dots_data.crawl.sample import write_sample
from dots_data.crawl.sources import expand_dumps, fingerprint
from dots_data.dedup import takedown
from dots_data.dedup.index import Index, IndexFault
from dots_data.dedup.lines import LinesConfig
from dots_data.engines import spark as engine
from dots_data.language import LanguageConfig
from dots_data.recipe import Job, Recipe
from pipelines import crawl_clean

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.engine

RECIPE = Recipe(language=LanguageConfig(keep=("en", "zh")), lines=LinesConfig(max_occurrences=8))
NAMES = ("2024-10", "2024-18", "2024-26")


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, ...]]:
    """The sample crawl as three dumps; the last delivers a file of the first again."""
    folder = tmp_path_factory.mktemp("crawl")
    write_sample(folder, pages=320)
    files = sorted(map(str, folder.glob("*.warc.gz")))
    assert len(files) >= 3
    return {name: tuple(files[k::3]) for k, name in enumerate(NAMES)}


def clean(
    spark: SparkSession, dumps: Mapping[str, tuple[str, ...]], output: Path, index: Path | None = None
) -> dict[str, Any]:
    """`crawl_clean.run`, in the session that all tests share."""
    job = Job(dumps=dumps, output=str(output), recipe=RECIPE, index=str(index) if index else None)
    sources = expand_dumps(job.dumps)
    run_hash = f"{fingerprint(sources)}-{job.recipe.assets_hash()}"
    with (
        crawl_clean.against(job, run_hash) as opened,
        crawl_clean.claim(output, job.recipe.hash, run_hash) as (work, finished),
    ):
        stages = engine.Stages(spark, work / crawl_clean.stages_folder(opened), f"{job.recipe.hash}-{run_hash}")
        summary = finished or crawl_clean.clean(spark, job, sources, stages, opened)
        crawl_clean.commit_to_index(opened, job, summary)
        return summary


def rows(outputs: list[Path], table: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Rows of a table of several outputs by their place; without what counts the copies seen so far."""
    found = [row for output in outputs for row in pq.read_table(output / table).to_pylist()]
    for row in found:
        row.pop("measures", None)
        if row.get("rule") == "identity.copies":
            row.pop("value")
    by_place = {tuple(row[name] for name in ("doc_id", "warc_file", "warc_offset", "warc_index")): row for row in found}
    assert len(by_place) == len(found)
    return by_place


def test_dumps_in_sequence_equal_dumps_at_once(
    spark: SparkSession, dumps: dict[str, tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a run that ends before its output or before its commit leaves the index as it was, and can be repeated."""
    whole, index = clean(spark, dumps, tmp_path / "whole"), tmp_path / "index"
    outputs = [tmp_path / name for name in NAMES]
    one, two, three = ({name: dumps[name]} for name in NAMES)

    summaries = [clean(spark, one, outputs[0], index)]
    good = (index / "index.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(crawl_clean, "check", interrupt)
        with pytest.raises(KeyboardInterrupt):
            clean(spark, two, outputs[1], index)
    assert (index / "index.json").read_bytes() == good and not (outputs[1] / "summary.json").exists()
    summaries.append(clean(spark, two, outputs[1], index))

    good = (index / "index.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Index, "commit", interrupt)
        with pytest.raises(KeyboardInterrupt):
            clean(spark, three, outputs[2], index)
    assert (index / "index.json").read_bytes() == good
    summaries.append(clean(spark, three, outputs[2], index))
    # A finished job is not done twice, nor a dump added twice.
    good = (index / "index.json").read_bytes()
    assert clean(spark, three, outputs[2], index) == summaries[2] and (index / "index.json").read_bytes() == good
    with pytest.raises(IndexFault, match="does not come after"):
        clean(spark, {NAMES[2]: dumps[NAMES[0]]}, tmp_path / "other", index)

    assert rows(outputs, "documents") == rows([tmp_path / "whole"], "documents")
    assert rows(outputs, "ledger") == rows([tmp_path / "whole"], "ledger")
    for key in ("kept", "dropped", "quarantined", "records", "lines_removed"):
        assert sum(summary[key] for summary in summaries) == whole[key]
    # Documents of later dumps were dropped for those of earlier ones, by every kind of deduplication.
    dump_of = {row["doc_id"]: row["dump"] for row in rows(outputs, "ledger").values()}
    later = rows(outputs[1:], "ledger").values()
    across = {row["stage"] for row in later if row["duplicate_of"] and dump_of[row["duplicate_of"]] < row["dump"]}
    assert across == {"identity", "fuzzy"} and all(summary["lines_removed"] for summary in summaries)
    # The index keeps the same documents, whatever the runs.
    takedown.export(Index.open(index), tmp_path / "all")
    assert rows([tmp_path / "all"], "documents") == rows([tmp_path / "whole"], "documents")


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt
