"""crawl-clean on the sample crawl and on broken input: the sums, and what the result may not depend on."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
import yaml

from dots_data import ledger, score, what_if
from dots_data.crawl.sample import write_sample
from dots_data.crawl.sources import expand, fingerprint
from dots_data.crawl.warc import read_page
from dots_data.engines import spark as engine
from dots_data.recipe import Job, load_job
from dots_data.schema import DOCUMENT, LEDGER
from pipelines import crawl_clean

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.engine

PAGES = 320


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sample crawl, and beside it files that are none or are broken."""
    folder = tmp_path_factory.mktemp("crawl")
    write_sample(folder, pages=PAGES)
    (folder / "empty.warc.gz").touch()
    (folder / "gone.warc.gz").symlink_to(folder / "nothing")
    os.mkfifo(folder / "pipe.warc")
    (folder / "page.warc.gz").write_text("<html><body>not an archive</body></html>")
    whole = (folder / "sample-00000.warc.gz").read_bytes()
    (folder / "cut.warc.gz").write_bytes(whole[: len(whole) // 3])
    broken = bytearray(gzip.decompress(whole)[:20_000])
    broken[0:5] = b"JUNK!"
    (folder / "junk.warc").write_bytes(bytes(broken))
    # One compressed stream: both records begin where it begins.
    (folder / "stream.warc.gz").write_bytes(gzip.compress(2 * response(TWICE, ARTICLE), mtime=0))
    (folder / "endless.warc").write_bytes(response(ENDLESS, b"<html><body>" + b"<p>x" * 190_000))
    return folder


ENDLESS = "https://hostile.example/endless"
TWICE = "https://stream.example/twice"
ARTICLE = b"""<html><body><article><h1>The lighthouse at the river mouth</h1>
<p>When the keeper took the post in 1811, the lamp burned whale oil and had to be trimmed every four hours. He wrote
down what he saw in a blue ledger: the ships, the storms, and the slow wandering of the sand bank that gave the place
its bad name among pilots.</p>
<p>Twelve years later the river broke through the dunes in a single night. The old channel silted up, the village found
itself a mile from the water, and the boats had to be dragged across the marsh on rollers cut from driftwood. Nobody in
the capital believed the report until an engineer came with his chain and his brass level.</p>
<p>The engineer stayed for three summers. He measured the depth of the new mouth at every tide, drew the first map that
a stranger could trust, and married the daughter of the baker. His drawings still hang in the town hall, where children
are taken to see them on rainy afternoons.</p>
<p>Today the tower is dark. A buoy with a small electric light marks the bank, and the ledger lies under glass in the
museum, open at the page on which the keeper says that he is tired and that the geese have come back early.</p>
</article></body></html>"""


def response(url: str, body: bytes) -> bytes:
    """One WARC response record."""
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + body
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2025-06-06T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, url)}>\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(block)}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def job_for(crawl: Path, output: Path, **recipe: Any) -> Path:
    path = output.with_suffix(".yaml")
    values = {
        "input": [str(crawl / "*.warc*")],
        "output": str(output),
        "resources": {"cores": 2, "memory": "1g"},
        "recipe": {
            "url": {"blocklists": [str(crawl / "blocklists")]},
            "language": {"keep": ["en", "zh"]},
            # Low, so that the page that never ends costs the tests little.
            # The engine that a page can keep busy: the fast one is done with that page in a second.
            "extraction": {"engine": "trafilatura", "limits": {"cpu_seconds": 4}},
            # Low, so that the sample's shared lines are frequent in a crawl of this size.
            "lines": {"max_occurrences": 20},
            **recipe,
        },
    }
    path.write_text(yaml.safe_dump(values))
    return path


def clean(spark: SparkSession, job: Job, reverse: bool = False) -> dict[str, Any]:
    """`crawl_clean.run`, in the session that all tests share."""
    sources = expand(job.input)
    if reverse:
        sources = sources[::-1]
    run_hash = f"{fingerprint(sources)}-{job.recipe.assets_hash()}"
    with crawl_clean.claim(Path(job.output), job.recipe.hash, run_hash) as (work, _):
        stages = engine.Stages(spark, work / "stages", f"{job.recipe.hash}-{run_hash}")
        return crawl_clean.clean(spark, job, sources, stages)


def content(output: Path) -> dict[str, bytes]:
    return {
        f"{folder}/{path.name}": path.read_bytes()
        for folder in ("documents", "ledger", "lines", "near")
        for path in sorted((output / folder).glob("*.parquet"))
    }


@pytest.fixture(scope="module")
def cleaned(spark: SparkSession, crawl: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The crawl cleaned once: the output that the others are compared with."""
    output = tmp_path_factory.mktemp("cleaned") / "one"
    job = load_job(job_for(crawl, output))
    return output, clean(spark, dataclasses.replace(job, resources=engine.Resources(partitions=1)))


def test_every_record_has_one_fate(cleaned: tuple[Path, dict[str, Any]], crawl: Path) -> None:
    output, summary = cleaned
    ledger = pq.read_table(output / "ledger").to_pylist()
    documents = pq.read_table(output / "documents").to_pylist()
    places = {(row["warc_file"], row["warc_offset"], row["warc_index"]) for row in ledger}
    assert len(ledger) == len(places) == summary["records"] >= PAGES
    assert summary["kept"] + summary["dropped"] + summary["quarantined"] == len(ledger)
    kept = {row["doc_id"] for row in ledger if row["decision"] == "kept"}
    assert kept == {row["doc_id"] for row in documents}
    assert len(kept) == len(documents) == summary["kept"] > PAGES // 3
    truth = {(row["record_id"], row["warc_file"]) for row in score.read_truth(crawl / "truth.jsonl")}
    assert truth <= {(row["record_id"], row["warc_file"]) for row in ledger}


def test_every_line_that_was_taken_out_is_told(cleaned: tuple[Path, dict[str, Any]]) -> None:
    output, summary = cleaned
    removed = pq.read_table(output / "lines").to_pylist()
    assert len(removed) == summary["lines_removed"] > 0 and all(row["line"].strip() for row in removed)
    assert len({(row["doc_id"], row["position"]) for row in removed}) == len(removed)
    counted = Counter(row["doc_id"] for row in removed)
    assert len(counted) == summary["documents_shortened"]
    for row in pq.read_table(output / "ledger").to_pylist():
        measures = dict(row["measures"] or ())
        if "lines.removed" in measures and row["copy_of"] is None:
            assert measures["lines.removed"] == counted[row["doc_id"]]


def test_every_drop_is_explained(cleaned: tuple[Path, dict[str, Any]]) -> None:
    ledger = pq.read_table(cleaned[0] / "ledger").to_pylist()
    kept = {row["doc_id"] for row in ledger if row["decision"] == "kept"}
    for row in ledger:
        if row["decision"] == "kept":
            assert row["stage"] is None and row["duplicate_of"] is None
            continue
        assert None not in (row["stage"], row["rule"], row["value"], row["threshold"]), row
        assert row["duplicate_of"] is None or row["duplicate_of"] in kept
        if row["stage"] in ("identity", "fuzzy"):
            assert row["duplicate_of"] in kept and row["similarity"] >= 0.8
    assert {row["stage"] for row in ledger} >= {"url", "http", "extraction", "language", "identity", "rules", "fuzzy"}


def test_broken_files_are_named_and_lose_nothing_else(cleaned: tuple[Path, dict[str, Any]], crawl: Path) -> None:
    output, summary = cleaned
    damaged = {one["file"] for one in summary["unreadable"]}
    assert {"empty.warc.gz", "gone.warc.gz", "page.warc.gz", "cut.warc.gz", "junk.warc"} <= damaged
    assert all(one["offset"] >= 0 and one["reason"] for one in summary["unreadable"])
    read = pq.read_table(output / "ledger", columns=["warc_file"]).to_pylist()
    assert any(row["warc_file"] == "cut.warc.gz" for row in read)
    assert any(row["warc_file"] == "junk.warc" for row in read)


def test_a_record_stored_twice_in_one_stream_is_two_rows_and_one_document(
    cleaned: tuple[Path, dict[str, Any]],
) -> None:
    ledger = pq.read_table(cleaned[0] / "ledger").to_pylist()
    first, second = (row for row in ledger if row["url"] == TWICE)
    assert first["doc_id"] == second["doc_id"] and first["warc_offset"] == second["warc_offset"] == 0
    assert (first["warc_index"], second["warc_index"]) == (0, 1)
    assert (first["decision"], second["rule"]) == ("kept", "identity.copies")


def test_damage_that_could_be_read_past_is_told(cleaned: tuple[Path, dict[str, Any]], crawl: Path) -> None:
    output, summary = cleaned
    kinds = {row["record_id"]: row["kind"] for row in score.read_truth(crawl / "truth.jsonl")}
    ledger = pq.read_table(output / "ledger").to_pylist()
    told = {kinds[row["record_id"]] for row in ledger if row["problem"] and row["record_id"] in kinds}
    assert {"bad_chunk", "truncated"} <= told
    assert sum(summary["problems"].values()) == sum(row["problem"] is not None for row in ledger) > 0


def test_an_extraction_that_never_ends_is_stopped_and_recorded(cleaned: tuple[Path, dict[str, Any]]) -> None:
    ledger = pq.read_table(cleaned[0] / "ledger").to_pylist()
    (row,) = (row for row in ledger if row["url"] == ENDLESS)
    assert (row["decision"], row["rule"], row["threshold"]) == ("quarantined", "extraction.cpu_seconds", 4.0)


def test_steps_do_what_the_sample_knows(cleaned: tuple[Path, dict[str, Any]], crawl: Path) -> None:
    output, _ = cleaned
    truth = score.read_truth(crawl / "truth.jsonl")
    scores = {one.stage: one for one in score.score_stages(output / "ledger", truth)}
    for stage in ("url", "http", "extraction", "language", "identity", "rules", "fuzzy"):
        assert scores[stage].found + scores[stage].elsewhere >= 0.9 * scores[stage].expected > 0, scores[stage]
    wrongly = sum(one.wrongly_dropped for one in scores.values())
    assert wrongly <= 0.05 * len(truth), scores
    texts = score.score_texts(output / "documents", truth)
    assert texts.held >= 0.97 * texts.to_hold > 0
    assert texts.rejected >= 0.97 * texts.to_reject > 0


def test_frequent_lines_are_thinned_out_and_counted(cleaned: tuple[Path, dict[str, Any]], crawl: Path) -> None:
    output, _ = cleaned
    shared = {row["shared_line"] for row in score.read_truth(crawl / "truth.jsonl") if row.get("shared_line")}
    texts = [row["text"] for row in pq.read_table(output / "documents", columns=["text"]).to_pylist()]
    for line in shared:
        assert sum(line in text for text in texts) <= 20
    measures = pq.read_table(output / "ledger", columns=["measures"]).to_pylist()
    assert any(dict(row["measures"]).get("lines.removed", 0) > 0 for row in measures)


def test_outputs_say_which_recipe_made_them(cleaned: tuple[Path, dict[str, Any]]) -> None:
    output, summary = cleaned
    for folder, schema in (("documents", DOCUMENT), ("ledger", LEDGER)):
        for path in (output / folder).glob("*.parquet"):
            found = pq.read_schema(path)
            assert found.remove_metadata().equals(schema)
            assert found.metadata[b"dots.recipe"].decode() == summary["recipe_hash"]


@pytest.mark.parametrize(("partitions", "reverse"), [(2, False), (7, True)])
def test_same_bytes_for_any_partitions_and_order(
    spark: SparkSession,
    cleaned: tuple[Path, dict[str, Any]],
    crawl: Path,
    tmp_path: Path,
    partitions: int,
    reverse: bool,
) -> None:
    job = load_job(job_for(crawl, tmp_path / "out"))
    resources = engine.Resources(partitions=partitions)
    spark.conf.set("spark.sql.shuffle.partitions", str(partitions))
    summary = clean(spark, dataclasses.replace(job, resources=resources), reverse)
    assert content(tmp_path / "out") == content(cleaned[0])
    assert summary["rules"] == cleaned[1]["rules"]


def test_killed_and_run_again(cleaned: tuple[Path, dict[str, Any]], crawl: Path, tmp_path: Path) -> None:
    """`kill -9` of the whole process group once in preparation and once in the shuffles; then a run to the end."""
    output = tmp_path / "out"
    job = job_for(crawl, output)
    command = [sys.executable, "-m", "pipelines.crawl_clean", "--job", str(job)]
    stages = output / "work" / "stages"

    def run_until(reached: Any) -> None:
        running = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        while not reached() and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert running.poll() is None, "the run ended before it was killed"
        os.killpg(running.pid, signal.SIGKILL)
        running.wait(60)

    run_until(lambda: len(list(stages.glob("prepare/*.json"))) >= 3)
    first = {path: path.stat().st_mtime_ns for path in stages.glob("prepare/*.json")}
    assert not (output / "summary.json").exists()
    run_until((stages / "lines.json").exists)
    assert {path: path.stat().st_mtime_ns for path in first} == first, "committed units were made again"
    finished = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert finished.returncode == 0, finished.stderr
    assert content(output) == content(cleaned[0])
    assert not (output / "work").exists()

    again = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert again.returncode == 0 and "nothing to do" in again.stdout

    other = job_for(crawl, tmp_path / "other", fuzzy={"threshold": 0.9})
    refused = subprocess.run(
        [*command[:-1], str(other), "--output", str(output)], capture_output=True, text=True, timeout=100
    )
    assert refused.returncode == 2
    assert "another recipe" in refused.stderr and len(refused.stderr.strip().splitlines()) <= 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input": ["nowhere/*.warc.gz"]}, "nowhere/"),
        ({"input": []}, "no input"),
        ({"input": [__file__], "recipe": {"url": {"blocklists": ["lists/gone"]}}}, "lists/gone: no such block list"),
        ({"recipe": {"fuzy": {}}}, "did you mean 'fuzzy'"),
        ({"recipe": {"fuzzy": {"treshold": 0.8}}}, "did you mean 'threshold'"),
        ({"recipe": {"fuzzy": {"threshold": 8}}}, "threshold"),
        ({"recipe": {"language": {"min_score": "high"}}}, "min_score"),
    ],
)
def test_a_job_that_cannot_start_says_why(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({"input": ["x.warc.gz"], "output": str(tmp_path / "out"), **change}))
    assert crawl_clean.main(["--job", str(path)]) == 2
    said = capfd.readouterr().err
    assert said.startswith("error:") and message in said.replace("\n", "")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"url": {"blocklists": ["lists"], "categories": ["bad"]}}, "of the category bad"),
        ({"url": {"blocklists": ["lists"], "categories": ["adlut"]}}, "none of the categories adlut"),
        ({"sites": {"file": "sites.yaml"}}, "not a CSS selector"),
        ({"rules": {"decontamination": {"evaluations": ["exam.jsonl"]}}}, "exam.jsonl: line 1: not JSON"),
        (
            {"rules": {"decontamination": {"evaluations": ["lost"]}}},
            "lost: no such block list, word list or evaluation",
        ),
    ],
)
def test_wrong_lists_and_rules_are_told_before_spark_starts(
    crawl: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    recipe: dict[str, Any],
    message: str,
) -> None:
    (tmp_path / "lists" / "bad").mkdir(parents=True)
    (tmp_path / "lists" / "bad" / "expressions").write_text("(a\n")
    (tmp_path / "sites.yaml").write_text('a.example: {remove: ["a[[["]}')
    (tmp_path / "exam.jsonl").write_text("{")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(crawl_clean.engine, "session", lambda *given: pytest.fail("Spark was started"))
    assert crawl_clean.main(["--job", str(job_for(crawl, tmp_path / "job", **recipe))]) == 2
    assert message in capfd.readouterr().err.replace("\n", "")
    assert not (tmp_path / "job").exists()


def test_an_output_that_cannot_be_written_is_refused(
    crawl: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert (
        crawl_clean.main(["--job", str(job_for(crawl, tmp_path / "job")), "--output", str(tmp_path / "file" / "out")])
        == 2
    )
    assert "cannot be written" in capfd.readouterr().err


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system in memory at `folder`, for the time of a `with` block; skips the test where none can be mounted."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_read_only_output_is_refused(crawl: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with mounted(tmp_path / "fixed", "ro,size=100k") as folder:
        job = job_for(crawl, tmp_path / "job")
        assert crawl_clean.main(["--job", str(job), "--output", str(folder / "out")]) == 2
        assert "cannot be written (Read-only file system)" in capfd.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize("name", ["work", "documents", "ledger", "lines", "near"])
def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path, name: str) -> None:
    thesis = tmp_path / name / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("three years")
    with pytest.raises(crawl_clean.OutputError, match="not made by crawl-clean"), crawl_clean.claim(tmp_path, "a", "b"):
        pass
    assert thesis.read_text() == "three years" and len(list(tmp_path.iterdir())) == 1


def test_an_output_in_use_is_refused(crawl: Path, tmp_path: Path) -> None:
    with (
        crawl_clean.claim(tmp_path / "out", "a", "b"),
        pytest.raises(crawl_clean.OutputError, match="another run"),
        crawl_clean.claim(tmp_path / "out", "a", "b"),
    ):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_is_said_and_the_run_goes_on_afterwards(
    cleaned: tuple[Path, dict[str, Any]], crawl: Path, tmp_path: Path
) -> None:
    with mounted(tmp_path / "small", "size=600k") as small:
        job = job_for(crawl, tmp_path / "job")
        command = [sys.executable, "-m", "pipelines.crawl_clean", "--job", str(job), "--output", str(small / "out")]
        full = subprocess.run(command, capture_output=True, text=True, timeout=400)
        assert full.returncode == 1
        assert "disk is full" in full.stderr, full.stderr
        assert not (small / "out" / "summary.json").exists()
        subprocess.run(["mount", "-o", "remount,size=500m", str(small)], check=True)
        assert subprocess.run(command, capture_output=True, timeout=400).returncode == 0
        assert content(small / "out") == content(cleaned[0])


def test_the_sums_are_checked() -> None:
    good = {"records": 3, "kept": 1, "dropped": 1, "quarantined": 1, "documents": {"a": 1}}
    crawl_clean.check(good, 3)
    for change in ({"kept": 2}, {"documents": {"a": 2}}, {"records": 4}):
        with pytest.raises(engine.EngineError, match="does not add up"):
            crawl_clean.check({**good, **change}, 3)


def test_explain_tells_the_fate(cleaned: tuple[Path, dict[str, Any]], capfd: pytest.CaptureFixture[str]) -> None:
    from dots_data import cli

    output, _ = cleaned
    rows = pq.read_table(output / "ledger").to_pylist()
    for stage in ("fuzzy", "rules", "url", None):
        row = next(one for one in rows if one["stage"] == stage)
        assert cli.main(["explain", row["record_id"], "--output", str(output)]) == 0
        said = capfd.readouterr().out
        assert row["warc_file"] in said and f"{row['warc_offset']:,}" in said
        assert ("kept" if stage is None else row["rule"]) in said
        assert stage != "fuzzy" or row["duplicate_of"] in said
    assert cli.main(["explain", "https://nowhere.example/", "--output", str(output)]) == 1
    assert cli.main(["explain", "x", "--output", str(output / "none")]) == 2


def test_duplicates_shows_clusters_and_texts(
    cleaned: tuple[Path, dict[str, Any]], crawl: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from dots_data import cli

    output, _ = cleaned
    ledger = pq.read_table(output / "ledger").to_pylist()
    rows = {row["doc_id"]: row for row in ledger}
    delivered = Counter(row["doc_id"] for row in ledger)
    for stage, said_of in (("fuzzy", "near to #"), ("identity", "same text as #")):
        row = next(one for one in ledger if one["stage"] == stage and delivered[one["doc_id"]] == 1)
        command = ["duplicates", row["doc_id"], "--output", str(output), "--diff"]
        assert cli.main([*command, "--input", str(crawl)]) == 0
        said = capfd.readouterr().out
        assert row["url"] in said and rows[row["duplicate_of"]]["url"] in said
        assert said_of in said and (stage == "identity" or f"similarity {row['similarity']:.4f}" in said)
        assert "the texts are equal" in said or "[-" in said or "\n- " in said or "\n+ " in said
        assert cli.main(command) == 1
        told = capfd.readouterr()
        assert row["url"] in told.out and row["warc_file"] in told.err


def test_a_page_is_read_again_from_its_place(cleaned: tuple[Path, dict[str, Any]], crawl: Path) -> None:
    rows = [row for row in pq.read_table(cleaned[0] / "ledger").to_pylist() if row["warc_file"] != "endless.warc"]
    for row in [*rows[::40], *(row for row in rows if row["warc_index"])]:
        place = row["warc_file"], row["warc_offset"], row["warc_index"]
        page = read_page(str(crawl / row["warc_file"]), *place)
        assert page is not None and (page.record_id, page.url) == (row["record_id"], row["url"])
        assert read_page(str(crawl / row["warc_file"]), place[0], place[1], 99) is None


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        crawl_clean.main(["--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("documents/", "ledger/", "exit codes", "--partitions"))


def test_real_pages_keep_the_sums(spark: SparkSession, real_data: Path, tmp_path: Path) -> None:
    """One real archive: 7 MB of pages as they are."""
    job = Job(input=(str(real_data / "warc" / "dev-00012.warc.gz"),), output=str(tmp_path / "out"))
    summary = clean(spark, job)
    index = (real_data / "warc" / "index.jsonl").read_text(encoding="utf-8")
    named = [json.loads(line) for line in index.splitlines()]
    expected = {row["record_id"] for row in named if row["warc"] == "dev-00012.warc.gz"}
    ledger = pq.read_table(tmp_path / "out" / "ledger").to_pylist()
    assert {row["record_id"] for row in ledger} == expected and len(ledger) == len(expected)
    assert summary["kept"] > len(expected) // 4
    shutil.rmtree(tmp_path / "out")


def test_judging_again_is_a_run_again(
    spark: SparkSession, crawl: Path, tmp_path: Path, cleaned: tuple[Path, dict[str, Any]]
) -> None:
    """Every fate that the ledger tells of other thresholds is the one of a run with them."""
    looser_and_stricter = {
        "paper": {"max_prompt_lines": 1.0},
        "gopher_repetition": {"dup_line_frac": 1.0, "dup_line_char_frac": 1.0, "top_2_gram": None},
        "gopher_quality": {"min_words": 294, "min_stop_words": 0, "by_language": {"zh": {"min_words": 20}}},
        "c4": {"min_sentences": 1},
        "fineweb": None,
    }
    first, again = tmp_path / "first", tmp_path / "again"
    clean(spark, load_job(job_for(crawl, first, fuzzy={"compare_dropped": True})))
    recipe = load_job(job_for(crawl, first, fuzzy={"compare_dropped": True})).recipe
    job = load_job(job_for(crawl, again, rules=looser_and_stricter, fuzzy={"compare_dropped": True}))
    answer = what_if.judge_again(first, recipe, job.recipe, samples=3)
    clean(spark, job)

    def fates(output: Path) -> dict[str, int]:
        return {fate: n for fate, n in ledger.counts(output / "ledger").items() if n}

    def kept(output: Path) -> set[str]:
        return set(pq.read_table(output / "documents").column("doc_id").to_pylist())

    assert dict(answer.before) == fates(first) == fates(cleaned[0])
    assert dict(answer.after) == fates(again)
    assert answer.gained_count == len(kept(again) - kept(first)) > 0
    assert answer.lost_count == len(kept(first) - kept(again)) > 0
    assert {change.doc_id for change in answer.gained} == set(sorted(kept(again) - kept(first))[:3])
    assert {change.doc_id for change in answer.lost} == set(sorted(kept(first) - kept(again))[:3])
    assert answer.uncompared == 0
