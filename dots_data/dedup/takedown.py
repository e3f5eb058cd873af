"""Taking documents down from an index: they go, what was dropped for their sake is settled again, none comes back.

Of a document with copies the first of these takes its place, and nothing else changes: it has the same text but for
case, punctuation and spaces. Else the documents that were near to it alone are kept from now on; one that is near to
another kept document stays dropped, in that one's favour. What is kept stays kept.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from dots_data.dedup.index import TABLES, Index, IndexFault, Run
from dots_data.dedup.survivors import ORDERED_BY, order_key
from dots_data.schema import DOCUMENT, KEPT, STANDING, WHERE

Row = dict[str, Any]
# The columns of each table that name documents.
_IDS = {
    "keys": ("doc_id", "copy_of"),
    "counts": (),
    "bands": ("doc_id",),
    "texts": ("doc_id",),
    "edges": ("loser", "winner"),
    "ends": ("judged_id", "duplicate_of"),
}
_KEPT_END = dict.fromkeys(
    ("fate_stage", "fate_rule", "fate_value", "fate_threshold", "fate_detail", "duplicate_of", "similarity")
)


@dataclass
class Takedown:
    """What a takedown does. removed: documents that go, by id their URL. heirs: by the id of a document that goes, the
    key row of the copy that takes its place. ends: new fates by id. released: ids that are kept from now on.
    """

    removed: dict[str, str] = field(default_factory=dict)
    heirs: dict[str, Row] = field(default_factory=dict)
    ends: dict[str, Row] = field(default_factory=dict)
    released: list[str] = field(default_factory=list)


def plan(index: Index, wanted: str) -> Takedown:
    """What it takes to remove a document, by its id, or all documents of a URL.

    Raises:
        IndexFault: the index knows no such document, and `wanted` is no URL that could come back.
    """
    found = [*_rows(index, "keys", "url", [wanted]), *_rows(index, "keys", "doc_id", [wanted])]
    if not found and "://" not in wanted:
        raise IndexFault(f"{wanted}: no document of this id is in {index.folder}; give a URL or an id from a ledger")
    down = Takedown(removed={row["doc_id"]: row["url"] for row in found})
    for row in sorted(found, key=lambda row: _identity_order(index, row)):
        if row["copy_of"] is None:
            _remove(index, row["doc_id"], down)
    # One that is replaced by a copy is kept under the copy's id.
    down.released = sorted({down.heirs[one]["doc_id"] if one in down.heirs else one for one in down.released})
    return down


def _remove(index: Index, doc_id: str, down: Takedown) -> None:
    """Settle what hangs on a document that goes and is no copy."""
    copies = [row for row in _rows(index, "keys", "copy_of", [doc_id]) if row["doc_id"] not in down.removed]
    end = next(iter(_rows(index, "ends", "judged_id", [doc_id])), None)
    if copies:
        down.heirs[doc_id] = min(copies, key=lambda row: _identity_order(index, row))
        if end is not None and end["fate"] == KEPT:
            down.released.append(down.heirs[doc_id]["doc_id"])
        return
    dependents = [row["judged_id"] for row in _rows(index, "ends", "duplicate_of", [doc_id])]
    for dependent in sorted(dependents, key=_fuzzy_order(index, dependents)):
        if dependent not in down.removed or dependent in down.heirs:
            _settle(index, dependent, down)


def _settle(index: Index, doc_id: str, down: Takedown) -> None:
    """Keep a document whose survivor goes, unless it is near to another that is kept."""
    edges = [*_rows(index, "edges", "loser", [doc_id]), *_rows(index, "edges", "winner", [doc_id])]
    near = {row["winner"] if row["loser"] == doc_id else row["loser"]: row["similarity"] for row in edges}
    fates = {row["judged_id"]: row for row in _rows(index, "ends", "judged_id", [doc_id, *near])} | down.ends
    kept = [
        (-similarity, other)
        for other, similarity in near.items()
        if fates[other]["fate"] == KEPT and (other not in down.removed or other in down.heirs)
    ]
    if kept:
        distance, survivor = min(kept)
        down.ends[doc_id] = {
            **fates[doc_id],
            "duplicate_of": survivor,
            "similarity": -distance,
            "fate_value": -distance,
        }
    else:
        down.ends[doc_id] = {**fates[doc_id], "fate": KEPT, **_KEPT_END}
        down.released.append(doc_id)


def _identity_order(index: Index, row: Mapping[str, Any]) -> tuple[Any, ...]:
    assert index.recipe is not None
    place = (row["warc_file"], row["warc_offset"], row["warc_index"])
    return (*order_key(index.recipe.identity.survivor, row), *place)


def _fuzzy_order(index: Index, ids: Iterable[str]) -> Callable[[str], tuple[Any, ...]]:
    assert index.recipe is not None
    preferences = index.recipe.fuzzy.survivor
    facts = {row["doc_id"]: row for row in _rows(index, "bands", "doc_id", ids, ORDERED_BY)}
    return lambda one: order_key(preferences, facts[one])


def _rows(
    index: Index, table: str, column: str, values: Iterable[str], columns: Iterable[str] | None = None
) -> list[Row]:
    if not index.runs:
        return []
    parts = [ds.dataset(path, format="parquet") for path in index.paths(table)]
    wanted = pc.field(column).isin(pa.array(list(values), pa.string()))
    read = list(columns) if columns else None
    return [row for part in parts for row in part.to_table(filter=wanted, columns=read).to_pylist()]


# ---- carrying it out -----------------------------------------------------------------------------------------


def carry_out(index: Index, wanted: str, down: Takedown) -> Index:
    """Write the index without what goes, commit it, and give it back.

    Files that name none of the documents are shared with the index before; the others are written anew, so that no
    byte of what goes is left once this returns.
    """
    changed = {*down.removed, *down.ends}
    mark = hashlib.blake2b(f"{wanted} {index.digest}".encode(), digest_size=8).hexdigest()
    runs = tuple(_rewritten(index, run, mark, changed, down) for run in index.runs)
    gone = [{"doc_id": doc_id, "url": url} for doc_id, url in sorted(down.removed.items())]
    if not gone:
        gone = [{"doc_id": "", "url": wanted}]
    after = replace(index, runs=runs, taken_down=(*index.taken_down, *gone))
    after.commit()
    return after


def _rewritten(index: Index, run: Run, mark: str, changed: set[str], down: Takedown) -> Run:
    """The run in a folder of a new name; the same run where none of its files names a document that changes."""
    old = index.folder / "runs" / run.name
    name = hashlib.blake2b(f"{run.name} {mark}".encode(), digest_size=8).hexdigest()
    temporary = old.with_name(f".{name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    any_hit = False
    for table in TABLES:
        (temporary / table).mkdir(parents=True)
        for file in sorted((old / table).glob("*.parquet")):
            target = temporary / table / file.name
            any_hit |= _rewrite(file, target, table, changed, down)
    if not any_hit:
        shutil.rmtree(temporary)
        return run
    # What stands there was left by a takedown that was killed before its commit.
    shutil.rmtree(old.with_name(name), ignore_errors=True)
    temporary.rename(old.with_name(name))
    return replace(run, name=name)


def _rewrite(file: Path, target: Path, table: str, changed: set[str], down: Takedown) -> bool:
    """Write a file anew where it names a document that changes, else share it; whether it did."""
    ids = pa.array(sorted(changed), pa.string())
    hit = None
    for column in _IDS[table]:
        here = pc.is_in(pq.read_table(file, columns=[column]).column(column), value_set=ids)
        hit = here if hit is None else pc.or_(hit, here)
    if hit is None or not pc.any(hit).as_py():
        os.link(file, target)
        return False
    whole = pq.read_table(file)
    rows = [new for row in whole.filter(hit).to_pylist() if (new := _changed(table, row, down)) is not None]
    rest = whole.filter(pc.invert(hit))
    pq.write_table(
        pa.concat_tables([rest, pa.Table.from_pylist(rows, schema=whole.schema)]), target, compression="zstd"
    )
    return True


def _changed(table: str, row: Row, down: Takedown) -> Row | None:
    """A row after the takedown; None if it goes."""
    if table == "ends":
        row = down.ends.get(row["judged_id"], row)
    if table == "keys":
        return _changed_key(row, down)
    for column in _IDS[table]:
        if row[column] in down.heirs:
            row = _inherited(table, row, column, down.heirs[row[column]])
        elif row[column] in down.removed:
            return None
    return row


def _changed_key(row: Row, down: Takedown) -> Row | None:
    if row["doc_id"] in down.removed:
        return None
    if row["copy_of"] in down.heirs:
        heir = down.heirs[row["copy_of"]]["doc_id"]
        return {**row, "copy_of": None if row["doc_id"] == heir else heir}
    return row


def _inherited(table: str, row: Row, column: str, heir: Row) -> Row:
    if table == "texts":
        return {**row, **{field.name: heir[field.name] for field in (*WHERE, *STANDING)}}
    if table == "bands":
        return {**row, **{name: heir[name] for name in ORDERED_BY}}
    return {**row, column: heir["doc_id"]}


# ---- what is kept --------------------------------------------------------------------------------------------


def documents(index: Index) -> Iterator[tuple[Run, pa.Table]]:
    """The documents that an index keeps (columns of DOCUMENT), a table a file, each with the run that it lies in."""
    for run in index.runs:
        folder = index.folder / "runs" / run.name
        # A document's end lies in the run that its text lies in.
        ends = ds.dataset(folder / "ends", format="parquet")
        kept = ends.to_table(columns=["judged_id"], filter=pc.field("fate") == KEPT).column("judged_id")
        for file in sorted((folder / "texts").glob("*.parquet")):
            table = pq.read_table(file)
            yield run, table.filter(pc.is_in(table.column("doc_id"), value_set=kept)).select(DOCUMENT.names)


def export(index: Index, folder: Path) -> int:
    """Write the documents that an index keeps as `folder/documents/*.parquet`; how many they are.

    Raises:
        IndexFault: the folder holds something.
    """
    target = folder / "documents"
    if target.exists() and any(target.iterdir()):
        raise IndexFault(f"{target}: is there and not empty; choose another folder")
    temporary = folder / ".documents.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    count = 0
    for number, (_, table) in enumerate(documents(index)):
        if len(table):
            pq.write_table(_sorted(table), temporary / f"part-{number:05d}.parquet", compression="zstd")
            count += len(table)
    temporary.rename(target)
    return count


def write_documents(index: Index, ids: Iterable[str], path: Path) -> None:
    """Write the documents of these ids to one Parquet file (columns of DOCUMENT)."""
    wanted = pa.array(sorted(ids), pa.string())
    tables = [table.filter(pc.is_in(table.column("doc_id"), value_set=wanted)) for _, table in documents(index)]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(_sorted(pa.concat_tables(tables)), path, compression="zstd")


def _sorted(table: pa.Table) -> pa.Table:
    return table.cast(DOCUMENT).sort_by("doc_id")
