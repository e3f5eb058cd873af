"""A selection holds exactly the long documents, with their provenance, and says where it comes from."""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dots_data.cli import main
from dots_data.tokens import manifest, shards
from dots_data.tokens.manifest import Derived, Manifest, ManifestError, Recipe, TokenizerInfo
from dots_data.tokens.selection import Rule, select
from dots_data.tokens.shards import PROVENANCE, Documents, Header, ShardError, record_batch
from dots_data.tokens.workspace import OutputError

Tables = list[tuple[str, list[list[int]]]]  # shards: a source, and the lengths of documents in each record batch
TABLES: Tables = [("books", [[5, 1, 40, 3], [11]]), ("crawl", [[17], [2, 2, 90, 11], [30]]), ("books", [[64, 7]])]


def write_dataset(folder: Path, tables: Tables, seed: int = 3) -> Manifest:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_bytes(b"{}")
    info = TokenizerInfo("tokenizer.json", hashlib.sha256(b"{}").hexdigest(), 70_000, "<eos>", 0, None, {"<eos>": 0})
    random, entries, number = np.random.default_rng(seed), [], itertools.count()
    for source, table in tables:
        header = Header(info, source, "recipe", "job", seed)
        batches, ids, lengths = [], [], []
        for sizes in table:
            borders = np.cumsum([0, *sizes])
            values = random.integers(1, 70_000, borders[-1], dtype=np.uint32)
            values[borders[1:] - 1] = 0
            names = [next(number).to_bytes(16, "big") for _ in sizes]
            buckets = np.arange(len(sizes), dtype=np.uint8)
            batches.append(record_batch(Documents(values, borders, pa.array(names, pa.binary(16)), buckets), header))
            ids, lengths = [*ids, *(name.hex() for name in names)], [*lengths, *sizes]
        nothing = {field.name: pa.nulls(len(ids), field.type) for field in PROVENANCE}
        origin = {**nothing, "doc_id": ids, "url": [f"https://{name}/" for name in ids], "tokens": lengths}
        table_ = pa.table(origin, schema=PROVENANCE)
        entries.append(shards.write_shard(folder, f"shard-{len(entries):05d}", batches, table_, header))
    rows, tokens = sum(entry.rows for entry in entries), sum(entry.tokens for entry in entries)
    sources = shards.sources_of(entries)
    made = Manifest(info, info.dtype, Recipe("recipe", "job"), seed, rows, tokens, sources, tuple(entries))
    manifest.write(folder, made)
    return made


def contents(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """By source, its documents in order: what the shard holds and what the provenance says."""
    found: dict[str, list[dict[str, Any]]] = {}
    for shard in manifest.read(folder).shards:
        rows = pa.ipc.open_file(folder / shard.file).read_all().to_pylist()
        origin = pq.read_table(folder / shard.provenance.file).to_pylist()
        found.setdefault(shard.source, []).extend({"origin": o, **row} for row, o in zip(rows, origin, strict=True))
    return found


tables_of = st.lists(
    st.tuples(
        st.sampled_from(["books", "crawl"]),
        st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=6), min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=4,
)


@given(tables_of, st.integers(1, 60), st.integers(1, 400), st.integers(1, 120), st.sampled_from(["", "-long"]))
@settings(max_examples=40, deadline=None)
def test_the_long_documents_and_no_others(
    tmp_path_factory: pytest.TempPathFactory, tables: Tables, least: int, shard_bytes: int, batch: int, suffix: str
) -> None:
    folder = tmp_path_factory.mktemp("data")
    whole = write_dataset(folder / "all", tables)
    rule = Rule(least, suffix)
    expected = {
        source + suffix: kept
        for source, documents in contents(folder / "all").items()
        if (kept := [one | {"source": source + suffix} for one in documents if len(one["tokens"]) >= least])
    }
    if not expected:
        with pytest.raises(ShardError, match=f"no documents of at least {least} tokens"):
            select(folder / "all", folder / "long", rule)
        return
    selected = select(folder / "all", folder / "long", rule, shard_bytes=shard_bytes, batch_tokens=batch)
    assert contents(folder / "long") == expected
    assert shards.verify(folder / "long") == []
    assert selected == manifest.read(folder / "long")
    assert selected.recipe.derived == Derived(whole.id, str(rule)) and selected.recipe.data == "recipe"
    assert selected.tokenizer == whole.tokenizer
    for shard in selected.shards:
        # A shard and a record batch are closed by the part that fills them, and not before.
        assert all(tokens - longest < batch for tokens, longest in _batches(folder / "long" / shard.file))
    again = select(folder / "all", folder / "again", rule, shard_bytes=shard_bytes, batch_tokens=batch)
    assert again.id == selected.id, "the same bytes"
    shutil.rmtree(folder)


@given(tables_of, st.integers(2, 5), st.integers(1, 30))
@settings(max_examples=20)
def test_one_in_n_and_the_rest_divide_the_documents(
    tmp_path_factory: pytest.TempPathFactory, tables: Tables, one_in: int, least: int
) -> None:
    folder = tmp_path_factory.mktemp("data")
    write_dataset(folder / "all", tables)
    found: dict[str, list[str]] = {"all": [], "held-out": [], "train": []}
    for name, rule in {
        "all": Rule(least),
        "held-out": Rule(least, one_in=one_in),
        "train": Rule(least, one_in=one_in, rest=True),
    }.items():
        try:
            select(folder / "all", folder / f"taken-{name}", rule)
        except ShardError as error:
            assert f"there are no {rule}" in str(error)
        else:
            taken = contents(folder / f"taken-{name}").values()
            found[name] = [one["origin"]["doc_id"] for rows in taken for one in rows]
    assert sorted(found["held-out"] + found["train"]) == sorted(found["all"])
    assert not set(found["held-out"]) & set(found["train"])
    shutil.rmtree(folder)


def test_the_share_is_that_of_the_rule() -> None:
    ids = [f"{number:032x}" for number in range(20_000)]
    table = pa.table({"doc_id": ids, "tokens": [1] * len(ids)})
    for one_in in (2, 10, 200):
        taken = int(Rule(one_in=one_in).takes(table).sum())
        assert abs(taken - len(ids) / one_in) < 4 * (len(ids) / one_in) ** 0.5
        assert int(Rule(one_in=one_in, rest=True).takes(table).sum()) == len(ids) - taken
    for one_in, rest in ((0, False), (1, True)):
        with pytest.raises(ShardError, match="is no share"):
            Rule(one_in=one_in, rest=rest)


def _batches(path: Path) -> list[tuple[int, int]]:
    reader = pa.ipc.open_file(path)
    lengths = [
        np.diff(reader.get_batch(i).column("tokens").offsets.to_numpy()) for i in range(reader.num_record_batches)
    ]
    return [(int(one.sum()), int(one[-1])) for one in lengths]


def test_what_is_there_already_is_left_and_another_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path / "all", TABLES)
    first = select(tmp_path / "all", tmp_path / "long", Rule(30))
    assert [(source.name, source.rows, source.tokens) for source in first.sources] == [
        ("books", 2, 104),
        ("crawl", 2, 120),
    ]
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "long").glob("shard*")}
    assert select(tmp_path / "all", tmp_path / "long", Rule(30)) == first
    assert before == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "long").glob("shard*")}
    for output in ("long", "all"):
        with pytest.raises(ShardError, match="holds another dataset"):
            select(tmp_path / "all", tmp_path / output, Rule(31))


def test_what_a_killed_run_left_is_no_part_of_the_result(tmp_path: Path) -> None:
    write_dataset(tmp_path / "all", TABLES)
    clean = select(tmp_path / "all", tmp_path / "clean", Rule(10))
    (tmp_path / "long").mkdir()
    for name in ("shard-00007.arrow", ".shard-00000.arrow.123.tmp", "shard-00000.provenance.parquet"):
        (tmp_path / "long" / name).write_bytes(b"half")
    assert select(tmp_path / "all", tmp_path / "long", Rule(10)) == clean
    names = [{path.name for path in (tmp_path / folder).iterdir()} for folder in ("clean", "long")]
    assert names[0] == names[1]
    (tmp_path / "busy").mkdir()
    with open(tmp_path / "busy" / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another run is writing"):
            select(tmp_path / "all", tmp_path / "busy", Rule(10))


def test_provenance_of_several_row_groups(tmp_path: Path) -> None:
    write_dataset(tmp_path / "all", TABLES)
    clean = select(tmp_path / "all", tmp_path / "clean", Rule(10))
    for beside in (tmp_path / "all").glob("*.parquet"):
        pq.write_table(pq.read_table(beside), beside, row_group_size=2)
    assert select(tmp_path / "all", tmp_path / "long", Rule(10)).sources == clean.sources
    assert contents(tmp_path / "long") == contents(tmp_path / "clean")


def test_what_cannot_be_selected_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="is this a folder of token shards"):
        select(tmp_path / "all", tmp_path / "long", Rule(10))
    write_dataset(tmp_path / "all", TABLES)
    with pytest.raises(ShardError, match="min_tokens must be at least 1"):
        Rule(0)
    with pytest.raises(ShardError, match=r"'books long' is no plain name"):
        select(tmp_path / "all", tmp_path / "long", Rule(1, " long"))
    # The provenance of another shard, then none that can be read.
    beside = [tmp_path / "all" / f"shard-0000{i}.provenance.parquet" for i in (0, 1)]
    kept = beside[0].read_bytes()
    origin = pq.read_table(beside[0])
    pq.write_table(origin.take(list(reversed(range(len(origin))))), beside[0])
    with pytest.raises(ShardError, match=r"shard-00000.arrow: batch 0: the provenance has other documents"):
        select(tmp_path / "all", tmp_path / "long", Rule(1))
    beside[0].write_bytes(beside[1].read_bytes())
    with pytest.raises(ShardError, match=r"shard-00000.provenance.parquet: 6 rows, its shard has 5"):
        select(tmp_path / "all", tmp_path / "long", Rule(1))
    beside[0].write_bytes(kept[:-9])
    with pytest.raises(ShardError, match=r"shard-00000.provenance.parquet: cannot be read"):
        select(tmp_path / "all", tmp_path / "long", Rule(1))
    beside[0].write_bytes(kept)
    (tmp_path / "all" / "tokenizer.json").write_bytes(b"[]")
    with pytest.raises(ShardError, match=r"tokenizer.json: is not the tokenizer"):
        select(tmp_path / "all", tmp_path / "long", Rule(1))
    assert not (tmp_path / "long" / "manifest.json").exists()


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(tmp_path / "all", TABLES)
    command = ["shards", "select", str(tmp_path / "all"), "--min-tokens", "30", "--output", str(tmp_path / "long")]
    assert main([*command, "--suffix=-long"]) == 0
    printed = capsys.readouterr().out
    assert "books-long" in printed and "120" in printed
    assert main(["shards", "verify", str(tmp_path / "long")]) == 0
    with pytest.raises(SystemExit):
        main(["shards", "select", str(tmp_path / "all")])
    assert "required: --output" in capsys.readouterr().err
    for share, output in (("--one-in", "held-out"), ("--all-but-one-in", "train")):
        assert main(["shards", "select", str(tmp_path / "all"), share, "2", "--output", str(tmp_path / output)]) == 0
    rows = [sum(s.rows for s in manifest.read(tmp_path / name).sources) for name in ("all", "held-out", "train")]
    assert rows[0] == rows[1] + rows[2]
