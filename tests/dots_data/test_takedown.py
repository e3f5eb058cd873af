"""Takedown from an index of hand-made tables: what goes, what takes its place, what is kept from now on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dots_data import cli
from dots_data.dedup import takedown
from dots_data.dedup.index import KEYS, TABLES, Index, IndexFault, Run
from dots_data.dedup.minhash import BANDS, EDGE
from dots_data.dedup.survivors import choose
from dots_data.language import LanguageConfig
from dots_data.recipe import Recipe
from dots_data.schema import DOCUMENT
from pipelines.crawl_clean import stages_folder

ENDS = pa.schema(
    [
        ("judged_id", pa.string()),
        ("fate", pa.string()),
        *((f"fate_{name}", pa.string()) for name in ("stage", "rule", "detail")),
        *((f"fate_{name}", pa.float64()) for name in ("value", "threshold")),
        ("duplicate_of", pa.string()),
        ("similarity", pa.float64()),
    ]
)
COUNTS = pa.schema([("line", pa.binary()), ("seen", pa.int64())])
SCHEMAS = {"keys": KEYS, "counts": COUNTS, "bands": BANDS, "texts": DOCUMENT, "edges": EDGE, "ends": ENDS}


def made(
    folder: Path, dumps: Sequence[str], edges: Mapping[str, Mapping[str, float]], copies: Mapping[str, str] = {}
) -> Index:
    """An index of documents named `a`, `b`, ... of which `dumps` says where each is from; copies[x] is a copy of y."""
    fates = choose(edges)
    runs = []
    names = [chr(97 + k) for k in range(len(dumps))]
    for dump in sorted(set(dumps)):
        rows: dict[str, list[dict[str, Any]]] = {table: [] for table in TABLES}
        for name in (n for n, d in zip(names, dumps, strict=True) if d == dump):
            where = {"doc_id": name, "record_id": name, "url": f"http://{name}.example/", "warc_file": "w"}
            where |= {"warc_offset": 0, "warc_index": 0, "date": "2024", "dump": dump}
            standing = {"site_rank": 0, "quality": 0.5}
            spoken = {"language": "en", "language_score": 0.9, **standing}
            key = {"length": 9, "text_md5": copies.get(name, name), "copy_of": copies.get(name)}
            rows["keys"].append(where | spoken | key)
            if name in copies:
                continue
            rows["texts"].append(where | spoken | {"text": f"text of {name}"})
            rows["bands"].append({"doc_id": name, "dump": dump, "date": "2024", "length": 9, **standing, "bands": [1]})
            rows["edges"] += [{"loser": name, "winner": w, "similarity": x} for w, x in edges.get(name, {}).items()]
            near = fates.get(name)
            fate = {"fate_stage": "fuzzy", "duplicate_of": near[0], "similarity": near[1]} if near else {}
            rows["ends"].append({"judged_id": name, "fate": "dropped" if near else "kept", **fate})
        for table, found in rows.items():
            (folder / "runs" / f"r{dump}" / table).mkdir(parents=True)
            part = folder / "runs" / f"r{dump}" / table / "part-0.parquet"
            pq.write_table(pa.Table.from_pylist(found, schema=SCHEMAS[table]), part)
        runs.append(Run(f"r{dump}", (dump,), f"identity-{dump}"))
    index = Index(folder, Recipe(), tuple(runs))
    index.commit()
    return Index.open(folder)


def kept(index: Index) -> dict[str, str]:
    return {row["doc_id"]: row["text"] for _, table in takedown.documents(index) for row in table.to_pylist()}


def take_down(index: Index, wanted: str) -> takedown.Takedown:
    planned = takedown.plan(index, wanted)
    assert takedown.carry_out(index, wanted, planned) == Index.open(index.folder)
    return planned


# a is kept; b is near to a and to c, d to a alone, e to d alone: e is kept, since d is dropped.
EDGES = {"b": {"a": 0.9}, "c": {"b": 0.85}, "d": {"a": 0.95}, "e": {"d": 0.8}}


def test_what_was_dropped_for_a_document_is_settled_again(tmp_path: Path) -> None:
    index = made(tmp_path, "11223", EDGES)
    assert sorted(kept(index)) == ["a", "c", "e"]
    down = take_down(index, "http://a.example/")
    # b is near to c, d to e, and these are kept: what is kept stays.
    assert sorted(kept(Index.open(tmp_path))) == ["c", "e"] and not down.released
    assert {one: down.ends[one]["duplicate_of"] for one in "bd"} == {"b": "c", "d": "e"}
    down = take_down(Index.open(tmp_path), "c")
    assert down.released == ["b"] and sorted(kept(Index.open(tmp_path))) == ["b", "e"]


def test_a_copy_takes_the_place(tmp_path: Path) -> None:
    index = made(tmp_path, "12123", {"d": {"a": 0.9}}, copies={"b": "a", "c": "a", "e": "a"})
    down = take_down(index, "a")
    after = Index.open(tmp_path)
    # c is of the first dump, b of the second.
    assert down.released == ["c"] and kept(after) == {"c": "text of a"}
    assert takedown._rows(after, "texts", "doc_id", ["c"])[0]["url"] == "http://c.example/"
    keys = {row["doc_id"]: row["copy_of"] for row in takedown._rows(after, "keys", "text_md5", ["a", "d"])}
    assert keys == {"c": None, "b": "c", "d": None, "e": "c"}
    assert takedown._rows(after, "ends", "judged_id", ["d"])[0]["duplicate_of"] == "c"
    assert {(row["loser"], row["winner"]) for row in takedown._rows(after, "edges", "loser", ["d"])} == {("d", "c")}
    # A copy that goes takes nothing with it.
    assert not take_down(after, "b").released and kept(Index.open(tmp_path)) == {"c": "text of a"}


def test_no_byte_of_it_is_left(tmp_path: Path) -> None:
    index = made(tmp_path, "112", {"c": {"a": 0.9}})
    untouched = (tmp_path / "runs" / "r1" / "counts" / "part-0.parquet").stat().st_ino
    take_down(index, "a")
    after = Index.open(tmp_path)
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == sorted(run.name for run in after.runs)
    stored = [row for table in TABLES for path in after.paths(table) for row in pq.read_table(path).to_pylist()]
    assert not any("a" in row.values() or row.get("text") == "text of a" for row in stored)
    assert {Path(path, "part-0.parquet").stat().st_ino for path in after.paths("counts")} >= {untouched}
    assert after.taken_down == ({"doc_id": "a", "url": "http://a.example/"},)
    # A run that was begun against the index before shares no stage with one against it now.
    assert stages_folder(after) != stages_folder(index) != stages_folder(None)


def test_killed_before_the_commit_nothing_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = made(tmp_path, "112", {"c": {"a": 0.9}})
    monkeypatch.setattr(Index, "commit", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        takedown.carry_out(index, "a", takedown.plan(index, "a"))
    monkeypatch.undo()
    assert sorted(kept(Index.open(tmp_path))) == ["a", "b"]
    take_down(Index.open(tmp_path), "a")
    assert sorted(kept(Index.open(tmp_path))) == ["b", "c"]


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=14),
    st.lists(st.integers(0, 7), min_size=1, max_size=4, unique=True),
)
def test_every_dropped_document_is_near_to_a_kept_one(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int, int]], gone: list[int]
) -> None:
    edges: dict[str, dict[str, float]] = {}
    for one, other in pairs:
        if one != other:
            edges.setdefault(chr(97 + max(one, other)), {})[chr(97 + min(one, other))] = 0.9
    index = made(tmp_path_factory.mktemp("index"), "11122233", edges)
    before = set(kept(index))
    for number in gone:
        take_down(Index.open(index.folder), chr(97 + number))
    after = Index.open(index.folder)
    removed = {chr(97 + number) for number in gone}
    now = set(kept(after))
    assert now >= before - removed and not now & removed
    ends = {row["judged_id"]: row for row in takedown._rows(after, "ends", "fate", ["dropped", "kept"])}
    assert set(ends) == set("abcdefgh") - removed
    near = {frozenset((loser, winner)) for loser, winners in edges.items() for winner in winners}
    for one, end in ends.items():
        assert (end["duplicate_of"] in now and frozenset((one, end["duplicate_of"])) in near) == (one not in now)


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "index"
    made(folder, "112", {"c": {"a": 0.9}})
    released = tmp_path / "released.parquet"
    assert cli.main(["takedown", "a", "--index", str(folder), "--dry-run"]) == 0
    assert sorted(kept(Index.open(folder))) == ["a", "b"]
    assert cli.main(["takedown", "http://a.example/", "--index", str(folder), "--released", str(released)]) == 0
    assert "kept from now on: c" in capsys.readouterr().out
    assert pq.read_table(released).column("doc_id").to_pylist() == ["c"]
    assert cli.main(["index", str(folder), "--export", str(tmp_path / "all")]) == 0
    assert pq.read_table(tmp_path / "all" / "documents").column("doc_id").to_pylist() == ["b", "c"]
    assert cli.main(["index", str(folder), "--export", str(tmp_path / "all")]) == 2
    assert cli.main(["index", str(folder)]) == 0 and "1 taken down" in capsys.readouterr().out
    # An unknown address is kept out all the same; an unknown id is a mistake.
    assert cli.main(["takedown", "http://new.example/", "--index", str(folder)]) == 0
    assert Index.open(folder).taken_down[-1] == {"doc_id": "", "url": "http://new.example/"}
    assert cli.main(["takedown", "nobody", "--index", str(folder)]) == 2
    assert cli.main(["takedown", "a", "--index", str(tmp_path / "none")]) == 2
    assert cli.main(["index", str(tmp_path / "none")]) == 1


def test_what_cannot_be_added(tmp_path: Path) -> None:
    index = made(tmp_path / "i", "12", {})
    for dumps, recipe, message in (
        ((), Recipe(), "name the dump"),
        (("",), Recipe(), "name the dump"),
        (("2",), Recipe(), "does not come after"),
        (("0", "3"), Recipe(), "does not come after"),
        (("3",), Recipe(language=LanguageConfig(0.5)), "two recipes"),
    ):
        with pytest.raises(IndexFault, match=message):
            index.check_new(dumps, recipe)
    index.check_new(("3",), Recipe())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(IndexFault, match="is no index"):
        Index.open(tmp_path / "other")
    (tmp_path / "i" / "index.json").write_text("{")
    with pytest.raises(IndexFault, match="cannot be read"):
        Index.open(tmp_path / "i")
    (tmp_path / "i" / "index.json").write_text('{"format": "dots.index/9"}')
    with pytest.raises(IndexFault, match=r"dots\.index/9"):
        Index.open(tmp_path / "i")
    with Index.lock(tmp_path / "i"), pytest.raises(IndexFault, match="another run"), Index.lock(tmp_path / "i"):
        pass
