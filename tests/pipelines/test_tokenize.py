"""The whole tokenize job: the same bytes for any workers and input files, after any kill; clear refusals."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dots_data.engines import ray as engine
from dots_data.tokens import documents, manifest, shards, shuffle, tokenizer
from dots_data.tokens.documents import SourceFrom
from dots_train.data import ShardReader
from pipelines import tokenize
from pipelines.tokenize import Job, ShardConfig, TokenizerConfig, main, run

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["river", "moon", "the", "of", "quickly", "walks", "doesn't", "1987", "(see)", "naïve"]
WORDS += ["中文", "模型", "数据", "<|endoftext|>", "\n\n", "🚀"]
ROWS = 400
CRAWL = SourceFrom("crawl")


def some_documents() -> list[dict[str, Any]]:
    chosen = random.Random(11)
    rows = []
    for number in range(ROWS):
        text = " ".join(chosen.choice(WORDS) for _ in range(chosen.randrange(1, 120)))
        rows.append(
            {
                "doc_id": hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest(),
                "record_id": f"<urn:uuid:{number}>",
                "url": f"https://example.org/{number}",
                "warc_file": "a.warc.gz",
                "warc_offset": number * 100,
                "date": "2024-01-01T00:00:00Z",
                "text": "" if number == 13 else text,
                "language": None if number % 7 == 0 else "zh" if number % 3 == 0 else "en",
                "language_score": number / ROWS,
                "source": "books" if number % 5 == 0 else None,
            }
        )
    # A record delivered twice, and an id that two texts share.
    return [*rows, rows[7], {**rows[8], "text": "another text"}]


def write_documents(folder: Path, parts: int = 3, order: int = 0, rows_a_group: int = 50) -> Path:
    rows = some_documents()
    random.Random(order).shuffle(rows)
    folder.mkdir(parents=True, exist_ok=True)
    for part in range(parts):
        table = pa.Table.from_pylist(rows[part::parts])
        pq.write_table(table, folder / f"part-{part:05d}.parquet", row_group_size=rows_a_group)
    return folder


def job(source: Path, output: Path, workers: int = 0, **changes: Any) -> Job:
    settings = TokenizerConfig(vocab_size=320, train_bytes=50_000)
    small = ShardConfig(shard_bytes=10_000, batch_tokens=2_000)
    values: dict[str, Any] = {"tokenizer": settings, "shards": small, **changes}
    return Job(input=(str(source),), output=str(output), workers=workers, **values)


def content(folder: Path) -> dict[str, bytes]:
    """All files that belong to the dataset, and nothing that does not."""
    ours = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert set(ours) - {".lock", "summary.json"} == named(folder) | {"manifest.json", "tokenizer.json"}
    assert not (folder / ".work").exists()
    return {name: data for name, data in ours.items() if name not in (".lock", "summary.json")}


def named(folder: Path) -> set[str]:
    dataset = manifest.read(folder)
    tables = manifest.to_mapping(dataset)["batches"]
    return {tables, *(name for one in dataset.shards for name in (one.file, one.provenance.file))}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenize")
    write_documents(folder / "documents")
    run(job(folder / "documents", folder / "tokens"))
    return folder


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents.pieces, "__defaults__", (20_000,))


def test_a_job_ends_with_a_dataset_that_verifies(base: Path) -> None:
    dataset = manifest.read(base / "tokens")
    summary = json.loads((base / "tokens" / "summary.json").read_text())
    assert shards.verify(base / "tokens") == []
    assert len(dataset.shards) > 3 and len(dataset.shards[0].batches) > 1
    assert dataset.documents == summary["documents"] == ROWS + 1
    assert (summary["without_text"], summary["sharing_an_id"]) == (1, 4)
    assert summary["tokens"] == dataset.tokens and summary["vocab_size"] == 320
    assert summary["encoder"]["name"] == "gigatoken" and summary["decodes_exactly"]
    assert [(one.name, one.rows) for one in dataset.sources] == [("books", 80), ("crawl", ROWS - 79)]
    # A source has shards of its own, as many as its text asks for, numbered on through the sources.
    assert [one.source for one in dataset.shards] == sorted(one.source for one in dataset.shards)
    assert [one.file for one in dataset.shards] == [f"shard-{n:05d}.arrow" for n in range(len(dataset.shards))]
    books = [one for one in dataset.shards if one.source == "books"]
    assert 1 < len(books) < len(dataset.shards) / 3 and sum(one.rows for one in books) == 80
    assert dataset.recipe == manifest.Recipe(None, summary["job_hash"])


def test_sources_can_be_taken_from_any_column(base: Path, tmp_path: Path) -> None:
    documents_ = base / "documents"
    run(job(documents_, tmp_path / "tokens", source_from="language"))
    assert shards.verify(tmp_path / "tokens") == []
    dataset = manifest.read(tmp_path / "tokens")
    rows = [row for row in some_documents() if row["text"]]
    expected = Counter(row["language"] or "crawl" for row in rows)
    assert {one.name: one.rows for one in dataset.sources} == expected and len(expected) == 3
    for one in dataset.shards:
        languages = set(pq.read_table(tmp_path / "tokens" / one.provenance.file)["language"].to_pylist())
        assert languages == {None if one.source == "crawl" else one.source}
    assert main([*command_line(documents_, tmp_path / "tokens", tmp_path), "--source-from", "date"]) == 1


def test_every_text_comes_back_exactly_beside_its_provenance(base: Path) -> None:
    text = tokenizer.load(base / "tokens" / "tokenizer.json", tokenizer.ENDOFTEXT)
    found = []
    for one in manifest.read(base / "tokens").shards:
        rows = pa.ipc.open_file((base / "tokens" / one.file).read_bytes()).read_all().to_pylist()
        origins = pq.read_table(base / "tokens" / one.provenance.file).to_pylist()
        for row, origin in zip(rows, origins, strict=True):
            assert row["doc_id"].hex() == origin.pop("doc_id") and len(row["tokens"]) == origin.pop("tokens")
            assert row["tokens"].index(text.info.eos_id) == len(row["tokens"]) - 1
            found.append({"text": text.decode(row["tokens"][:-1]), "source": row["source"], **origin})
    expected = [
        {name: value for name, value in {**row, "source": row["source"] or "crawl"}.items() if name != "doc_id"}
        for row in some_documents()
        if row["text"]
    ]
    assert sorted(map(repr, map(sorted_items, found))) == sorted(map(repr, map(sorted_items, expected)))
    order = [row["warc_offset"] for row in found]
    assert sum(a < b for a, b in itertools.pairwise(order)) < 0.6 * ROWS  # it is shuffled


def sorted_items(row: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(row.items())


@pytest.mark.parametrize(("parts", "order", "rows_a_group"), [(1, 0, 1000), (1, 5, 7), (7, 1, 50), (2, 2, 100)])
def test_no_division_or_order_of_the_input_matters(
    base: Path, tmp_path: Path, parts: int, order: int, rows_a_group: int
) -> None:
    write_documents(tmp_path / "documents", parts, order, rows_a_group)
    run(job(tmp_path / "documents", tmp_path / "tokens"))
    assert content(tmp_path / "tokens") == content(base / "tokens")


def test_nor_does_json_instead_of_parquet(base: Path, tmp_path: Path) -> None:
    with gzip.open(tmp_path / "all.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in some_documents())
    run(job(tmp_path / "all.jsonl.gz", tmp_path / "tokens"))
    assert content(tmp_path / "tokens") == content(base / "tokens")


@pytest.mark.engine
def test_nor_the_number_of_workers(
    base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "logs").mkdir()
    with engine.session(2, tmp_path / "logs" / "ray.log"):
        assert engine.map_tasks(abs, [3, -4, -5], 2) == [3, 4, 5]
        with pytest.raises(documents.DocumentsError, match="no such row"):
            engine.map_tasks(_fails, [1], 2)
        marks = [tmp_path / f"mark-{number}" for number in range(2)]
        assert engine.map_tasks(_dies_once, marks, 2) == [str(mark) for mark in marks]
        monkeypatch.setattr(engine, "RETRIES", 0)
        with pytest.raises(engine.RayError, match="a worker died on one task 1 times"):
            engine.map_tasks(_dies, [1], 2)
        for workers in (1, 2, 3):
            output = tmp_path / f"tokens{workers}"
            stages = tokenize.Stages(workers)
            one = job(base / "documents", output, workers)
            tokenize.tokenize(one, documents.find(one.inputs), stages)
            assert content(output) == content(base / "tokens")
    printed = capfd.readouterr()
    assert "ray" not in (printed.out + printed.err).lower()


def _fails(item: int) -> int:
    raise documents.DocumentsError("no such row")


def _dies(item: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return item


def _dies_once(mark: Path) -> str:
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return str(mark)


KILLED = """
import os, signal, sys
from dots_data.tokens import documents, shuffle, shards, manifest
from pipelines import tokenize
documents.pieces.__defaults__ = (20_000,)
stage, after = sys.argv[1], int(sys.argv[2])
def dying(name, module):
    real, calls = getattr(module, name), [0]
    def call(*arguments, **keywords):
        calls[0] += 1
        if calls[0] > after:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **keywords)
    setattr(module, name, call)
dying(*{"scatter": ("replace", os), "shard": ("write_shard", shards), "commit": ("commit", manifest),
        "sync": ("sync", shards)}[stage][:2])
shards.commit = manifest.commit
sys.exit(tokenize.main(sys.argv[3:]))
"""


@pytest.mark.parametrize(("stage", "after"), [("scatter", 3), ("sync", 2), ("sync", 8), ("shard", 2), ("commit", 9)])
def test_a_killed_run_goes_on_and_ends_the_same(base: Path, tmp_path: Path, stage: str, after: int) -> None:
    output = tmp_path / "tokens"
    arguments = command_line(base / "documents", output, tmp_path)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, stage, str(after), *arguments],
        cwd=ROOT, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (output / "manifest.json").exists()
    # What other killed runs might have left.
    for name in (".shard-00001.arrow.123.tmp", "shard-00099.arrow", "shard-00099.provenance.parquet"):
        (output / name).write_bytes(b"half")
    (output / ".work" / "another-job" / "pieces").mkdir(parents=True)
    assert main(arguments) == 0
    assert content(output) == content(base / "tokens")


def test_a_driver_killed_while_workers_encode(base: Path, tmp_path: Path) -> None:
    """From outside, at whatever moment: twice killed, then left alone."""
    output = tmp_path / "tokens"
    arguments = command_line(base / "documents", output, tmp_path)
    program = [sys.executable, "-m", "pipelines.tokenize", *arguments]
    for seen in ("tokenizer.json", ".work/*/shards/*.json"):
        process = subprocess.Popen(program, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not list(output.glob(seen)) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
        process.wait(timeout=60)
    assert main(arguments) == 0
    assert content(output) == content(base / "tokens")


def command_line(source: Path, output: Path, folder: Path) -> list[str]:
    described = folder / "job.yaml"
    described.write_text(
        "tokenizer: {vocab_size: 320, train_bytes: 50000}\nshards: {shard_bytes: 10000, batch_tokens: 2000}"
    )
    return ["--job", str(described), "--input", str(source), "--output", str(output), "--workers", "0"]


def test_a_finished_job_is_not_run_again(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(base / "tokens", tmp_path / "tokens")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "tokens").glob("[!.]*.*")}
    assert main(command_line(base / "documents", tmp_path / "tokens", tmp_path)) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "tokens").glob("[!.]*.*")}


@pytest.mark.parametrize(
    ("setting", "differs"),
    [
        ("seed=1", "seed"),
        ("source_from=language", "documents and source_from"),
        ("tokenizer.vocab_size=330", "tokenizer"),
        ("shards.batch_tokens=9", "shards"),
    ],
)
def test_the_output_of_another_job_is_refused(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, differs: str
) -> None:
    arguments = command_line(base / "documents", base / "tokens", tmp_path)
    assert main([*arguments, "--set", setting]) == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert f"of another {differs}; choose another OUTPUT or remove it" in printed
    assert shards.verify(base / "tokens") == []


def test_other_documents_are_another_job(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pa.table({"text": ["one"]}), tmp_path / "a.parquet")
    assert main(command_line(tmp_path / "a.parquet", base / "tokens", tmp_path)) == 2
    assert "of another documents" in " ".join(capsys.readouterr().err.split())


def test_the_output_of_crawl_clean_is_read_as_its_summary_says(base: Path, tmp_path: Path) -> None:
    crawl = tmp_path / "crawl"
    write_documents(crawl / "documents", parts=2)
    names = {f"part-{part:05d}.parquet": 0 for part in range(2)}
    (crawl / "summary.json").write_text(json.dumps({"recipe_hash": "abc", "documents": names}))
    pq.write_table(pa.table({"text": ["left over"]}), crawl / "documents" / "part-00009.parquet")
    assert len(documents.find([str(crawl)]).files) == 2
    run(job(crawl, tmp_path / "tokens"))
    dataset = manifest.read(tmp_path / "tokens")
    assert dataset.recipe.data == "abc" and dataset.documents == ROWS + 1
    (crawl / "summary.json").unlink()
    with pytest.raises(documents.InputError, match="crawl-clean has not finished there"):
        documents.find([str(crawl)])


def test_a_given_tokenizer_is_used_as_it_is(base: Path, tmp_path: Path) -> None:
    given = base / "tokens" / "tokenizer.json"
    one = job(base / "documents", tmp_path / "tokens", tokenizer=TokenizerConfig(file=str(given)))
    summary = run(one)
    assert (tmp_path / "tokens" / "tokenizer.json").read_bytes() == given.read_bytes()
    assert summary["tokenizer"]["made"] == "given"
    assert manifest.read(tmp_path / "tokens").tokens == manifest.read(base / "tokens").tokens


def test_other_encoder_same_shards(base: Path, tmp_path: Path) -> None:
    settings = TokenizerConfig(vocab_size=320, train_bytes=50_000, encoder="huggingface")
    assert run(job(base / "documents", tmp_path / "tokens", tokenizer=settings))["encoder"]["because"] == "asked for"
    assert content(tmp_path / "tokens") == content(base / "tokens")


def test_a_training_reader_opens_it(base: Path) -> None:
    reader = ShardReader(base / "tokens", 64, seed=0)
    place = reader.where(3)[0]
    origin = shards.provenance(base / "tokens", place.shard, [place.row])[0]
    assert origin["doc_id"] == place.doc_id and origin["url"].startswith("https://example.org/")
    text = tokenizer.load(base / "tokens" / "tokenizer.json", tokenizer.ENDOFTEXT)
    whole = next(row["text"] for row in some_documents() if row["doc_id"] == place.doc_id)
    part = reader.window(3)[0][: place.last - place.first + 1].tolist()
    assert text.decode([one for one in part if one != text.info.eos_id]) in whole


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def parquet(path: Path, table: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), path)
    return path


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-20])
    return path


BAD: list[tuple[str, Callable[[Path], Path], int, str]] = [
    ("missing", lambda f: f / "none", 2, "none: there is no such file or folder"),
    ("glob", lambda f: f / "*.parquet", 2, "*.parquet: matches no file"),
    ("empty folder", lambda f: write(f / "in" / "notes.txt", b"").parent, 2, "in: holds no documents"),
    (
        "no rows",
        lambda f: parquet(f / "a.parquet", {"text": pa.array([], pa.string())}),
        1,
        "nothing to tokenize",
    ),
    ("only empty", lambda f: parquet(f / "a.parquet", {"text": ["", None]}), 1, "nothing to tokenize"),
    ("no text", lambda f: parquet(f / "a.parquet", {"body": ["x"]}), 1, "a.parquet: has no column `text`"),
    ("text type", lambda f: parquet(f / "a.parquet", {"text": [[1]]}), 1, "a.parquet: column text"),
    (
        "offset type",
        lambda f: parquet(f / "a.parquet", {"text": ["x"], "warc_offset": ["y"]}),
        1,
        "a.parquet: column warc_offset",
    ),
    ("not parquet", lambda f: write(f / "a.parquet", b"PAR1"), 1, "a.parquet: cannot be read as Parquet"),
    ("cut", lambda f: cut(parquet(f / "a.parquet", {"text": ["x" * 99]})), 1, "a.parquet: cannot be read"),
    (
        "source",
        lambda f: parquet(f / "a.parquet", {"text": ["x"], "source": ["a/../b"]}),
        1,
        "a.parquet: column source",
    ),
    (
        "source type",
        lambda f: parquet(f / "a.parquet", {"text": ["x"], "source": [[1]]}),
        1,
        "a.parquet: column source",
    ),
    ("source size", lambda f: parquet(f / "a.parquet", {"text": ["x"], "source": ["x" * 65]}), 1, "is no plain name"),
    (
        "sources",
        lambda f: parquet(f / "a.parquet", {"text": ["x"] * 1001, "source": [f"s{n}" for n in range(1001)]}),
        1,
        "a.parquet: column source: over 1000 sources",
    ),
    ("json line", lambda f: write(f / "a.jsonl", b'{"text": "x"}\n{"text": \n'), 1, "a.jsonl: line 2"),
    ("json text", lambda f: write(f / "a.jsonl", b'{"text": 5}\n'), 1, "a.jsonl: line 1: not an object with"),
    ("json deep", lambda f: write(f / "a.jsonl", b"[" * 100_000), 1, "a.jsonl: line 1"),
    (
        "gzip",
        lambda f: write(f / "a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 9)[:-9]),
        1,
        "a.jsonl.gz: after line",
    ),
]


@pytest.mark.parametrize(("make", "code", "message"), [one[1:] for one in BAD], ids=[one[0] for one in BAD])
def test_bad_input_is_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], Path],
    code: int,
    message: str,
) -> None:
    assert main(command_line(make(tmp_path), tmp_path / "tokens", tmp_path)) == code
    assert message in " ".join(capsys.readouterr().err.split()).replace("- ", "-")
    assert not (tmp_path / "tokens" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "tokenizer.vocab_sise=9"], "unknown key 'vocab_sise'; did you mean 'vocab_size'?"),
        (["--set", "seed"], "expected KEY=VALUE"),
        (["--set", "seed.inner=1"], "seed holds no keys"),
        (["--set", "tokenizer.vocab_size=3"], "vocab_size: 3 is below"),
        (["--set", "shards.shard_bytes=0"], "at least 1"),
        (["--set", "source=a b"], "source: 'a b' is no plain name"),
        (["--workers", "-1"], "workers: -1 is negative"),
        (["--tokenizer", "pyproject.toml"], "pyproject.toml: not a tokenizer.json"),
        (["--job", "none.yaml"], "none.yaml: cannot be read"),
        (["--output", "pyproject.toml"], "pyproject.toml: cannot be written"),
    ],
)
def test_a_job_that_cannot_be_meant(
    base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(ROOT)
    if arguments[0] == "--set" and arguments[1].startswith("seed."):
        arguments = ["--set", "seed=1", *arguments]
    assert main([*command_line(base / "documents", tmp_path / "tokens", tmp_path), *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_column_of_sources_that_no_document_has_is_named(tmp_path: Path, kind: str) -> None:
    table = {"text": ["x", "y"], "language": ["en", "zh"]}
    if kind == "parquet":
        path = parquet(tmp_path / "a.parquet", table)
    else:
        path = write(tmp_path / "a.jsonl", b'{"text": "x"}\n{"text": "y", "language": "zh"}\n')
    rows = [
        one for batch in documents.read(documents.pieces([str(path)])[0], SourceFrom("a", "language")) for one in batch
    ]
    with pytest.raises(documents.DocumentsError, match=f"a.{kind}: has no column `langauge` to take sources from"):
        documents.survey(documents.pieces([str(path)])[0], SourceFrom("a", "langauge"), 0)
    assert rows


def test_more_sources_than_a_manifest_names_in_two_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part in range(2):
        names = [f"s{n}" for n in range(part * 600, part * 600 + 600)]
        parquet(tmp_path / "in" / f"{part}.parquet", {"text": names, "source": names})
    assert main(command_line(tmp_path / "in", tmp_path / "tokens", tmp_path)) == 1
    assert "over 1000 sources" in " ".join(capsys.readouterr().err.split())


def test_documents_that_change_under_the_job_are_noticed(base: Path, tmp_path: Path) -> None:
    piece = documents.Piece(str(parquet(tmp_path / "a.parquet", {"text": ["one"]})), (0,))
    key = documents.survey(piece, CRAWL, 0).key
    parquet(tmp_path / "a.parquet", {"text": ["two"]})
    info = manifest.read(base / "tokens").tokenizer
    header = shards.Header(info, "crawl", None, "job", 0)
    plan = shuffle.Plan(str(tmp_path), str(base / "tokens"), CRAWL, "huggingface", 100, (header,), (1,))
    with pytest.raises(documents.DocumentsError, match="has changed since the job began"):
        shuffle.scatter(piece, key, plan)


def test_two_runs_in_one_folder_are_refused(base: Path, tmp_path: Path) -> None:
    one = job(base / "documents", tmp_path / "tokens")
    with (
        tokenize.claim(tmp_path / "tokens", "job", {}),
        pytest.raises(tokenize.OutputError, match="another run"),
    ):
        run(one)


def test_ids_of_every_kind(tmp_path: Path) -> None:
    lines = [
        {"id": "notes/a b", "text": "one", "lang": "en"},
        {"id": "0123456789abcdef" * 2, "text": "two"},
        {"text": "three \ud800"},
    ]
    path = write(tmp_path / "a.jsonl", b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    rows = [
        row for batch in documents.read(documents.Piece(str(path)), SourceFrom("mine")) for row in batch.to_pylist()
    ]
    assert rows[0]["id"] == hashlib.blake2b(b"notes/a b", digest_size=16).digest()
    assert (rows[0]["record_id"], rows[0]["language"], rows[0]["source"]) == ("notes/a b", "en", "mine")
    assert rows[1]["id"].hex() == "0123456789abcdef" * 2
    assert rows[2]["text"] == "three \N{REPLACEMENT CHARACTER}"
    assert rows[2]["id"] == hashlib.blake2b(rows[2]["text"].encode(), digest_size=16).digest()


@pytest.mark.parametrize("name", ["tokenize.yaml", "tokenize-demo.yaml"])
def test_the_jobs_that_come_with_the_project_are_read(name: str) -> None:
    one = tokenize.job_of(tokenize.parser().parse_args(["--job", str(ROOT / "jobs" / name)]))
    assert one.tokenizer.vocab_size == 8192 and one.inputs[0].startswith("build/")


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    printed = capsys.readouterr().out
    assert re.search(r"exit codes: 0 done, 1 failed", printed) and "manifest.json" in printed


def test_real_texts_come_back_exactly(real_data: Path, tmp_path: Path) -> None:
    with gzip.open(real_data / "text" / "seatunnel-docs.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    parquet(tmp_path / "a.parquet", {"text": texts})
    summary = run(job(tmp_path / "a.parquet", tmp_path / "tokens", tokenizer=TokenizerConfig(vocab_size=1000)))
    assert summary["decodes_exactly"] and shards.verify(tmp_path / "tokens") == []
    text = tokenizer.load(tmp_path / "tokens" / "tokenizer.json", tokenizer.ENDOFTEXT)
    found = [
        text.decode(tokens[:-1])
        for one in manifest.read(tmp_path / "tokens").shards
        for tokens in pa.ipc.open_file((tmp_path / "tokens" / one.file).read_bytes()).read_all()["tokens"].to_pylist()
    ]
    assert sorted(found) == sorted(text for text in texts if text)
