"""`dots duplicates`: the cluster of a document, who of it stays and why, and how two of its texts differ.

A cluster is all documents that hang together by verified near-duplicates and by equal normalised texts. Texts of
kept documents are in `documents/`; those of dropped ones are extracted again from their WARC record.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from rich.text import Text

from dots_data import console, ledger
from dots_data.crawl.sources import InputError, expand
from dots_data.crawl.urls import UrlFilterConfig
from dots_data.crawl.warc import ReadLimits, read_page
from dots_data.dedup.survivors import Preference
from dots_data.recipe import Recipe
from dots_data.rules import clean_and_measure
from dots_data.schema import KEPT, PLACE
from dots_data.typed_yaml import ConfigError

Row = dict[str, Any]

COLUMNS = (
    *("doc_id", "url", "date", "decision", "stage", "rule", "duplicate_of", "similarity", "copy_of", "text_md5"),
    *("warc_file", "warc_offset", "warc_index", "language", "measures"),
)
# Comparing is quadratic at worst: what is longer is compared as far as this, and the end says so.
MOST_LINES, MOST_WORDS = 400, 400
# A line of crawled text may be a megabyte.
MOST_CHARACTERS = 2_000
# Equal lines and words that are shown beside different ones.
CONTEXT, NEARBY = 2, 40
_WORD = re.compile(r"[^\W\u2e80-\uffdc]+|\s+|.", re.DOTALL)


@dataclass
class Cluster:
    """rows: ledger rows, kept ones first. near: similarities by (document, that which it comes after). whole: whether
    these are all.
    """

    rows: list[Row]
    near: dict[tuple[str, str], float]
    whole: bool

    @cached_property
    def number(self) -> dict[str, int]:
        """The number under which a document is shown."""
        numbers: dict[str, int] = {}
        for number, row in enumerate(self.rows, start=1):
            numbers.setdefault(row["doc_id"], number)
        return numbers

    def row(self, wanted: str) -> Row | None:
        """A member by its number, doc id or URL."""
        named = next((row for row in self.rows if wanted in (row["doc_id"], row["url"])), None)
        at = int(wanted) if wanted.isdecimal() and len(wanted) < 10 else 0
        return named or (self.rows[at - 1] if 0 < at <= len(self.rows) else None)


def cluster_of(output: Path, row: Row, most: int) -> Cluster:
    """The cluster of a ledger row, no more than about `most` documents of it."""
    start = row["copy_of"] or row["doc_id"]
    met, near, fresh = {start}, dict[tuple[str, str], float](), _compared(output / "ledger", {start})
    while fresh and len(met) < most:
        found = _pairs(output / "near", fresh)
        near |= found
        ends = _compared(output / "ledger", {end for pair in found for end in pair} - met)
        fresh = set(sorted(ends)[: most - len(met)])
        met |= fresh
    judged = ledger.by_id(output / "ledger", met)
    copies = _copies(output / "ledger", judged.values(), most)
    rows = {tuple(one[name] for name in PLACE): one for one in [*copies, *judged.values()]}
    near = {pair: value for pair, value in near.items() if set(pair) <= met}
    return Cluster(sorted(rows.values(), key=_order), near, len(met) < most and len(copies) <= most)


def _order(row: Row) -> tuple[Any, ...]:
    return row["decision"] != KEPT, row["copy_of"] is not None, -(row["similarity"] or 0.0), row["doc_id"]


def _pairs(near: Path, ids: Iterable[str]) -> dict[tuple[str, str], float]:
    wanted = pa.array(sorted(ids), pa.string())
    touching = pc.field("doc_id").isin(wanted) | pc.field("near_to").isin(wanted)
    rows = ds.dataset(near, format="parquet").to_table(filter=touching).to_pylist()
    return {(row["doc_id"], row["near_to"]): row["similarity"] for row in rows}


def _compared(folder: Path, ids: set[str]) -> set[str]:
    """Those of `ids` that the rules kept: pairs of others are there for `dots judge` alone."""
    rows = ledger.by_id(folder, ids) if ids else {}
    return {doc_id for doc_id, row in rows.items() if row["stage"] in (None, "identity", "fuzzy")}


def _copies(folder: Path, judged: Iterable[Row], most: int) -> list[Row]:
    """Records with the normalised text of one of `judged`, one more than `most` at most."""
    texts = pa.array(sorted({row["text_md5"] for row in judged if row["text_md5"]}), pa.string())
    found = ds.dataset(folder, format="parquet").head(
        most + 1, columns=list(COLUMNS), filter=pc.field("text_md5").isin(texts), batch_readahead=1
    )
    rows: list[Row] = found.to_pylist()
    return rows


def show(cluster: Cluster, recipe: Recipe) -> None:
    """Print the members, how each is linked, and why it went or stayed."""
    out = console.console
    kept = sum(row["decision"] == KEPT for row in cluster.rows)
    more = "" if cluster.whole else " and perhaps more, see --most"
    out.print(f"\n{len(cluster.rows):,} documents{more}; {kept:,} kept")
    for number, row in enumerate(cluster.rows, start=1):
        style = "bold green" if row["decision"] == KEPT else "bold"
        out.print(f"#{number} {console.safe(row['url'])}", style=style, soft_wrap=True)
        length = characters(row)
        told = "" if length is None else f"  {length:,} characters"
        out.print(f"   document {row['doc_id']}  {console.safe(row['date'] or 'no date')}{told}")
        reason = _why(row, cluster, recipe) if row["duplicate_of"] else _why_not(row, cluster)
        out.print(f"   {_link(row, cluster)}{reason}", soft_wrap=True)
        if not row["copy_of"] and (others := _also_near(row, cluster)):
            out.print(f"   also near to {others}", soft_wrap=True)


def characters(row: Row) -> int | None:
    """How long the text was when it was extracted."""
    found = dict(row["measures"] or ()).get("extraction.characters")
    return None if found is None else int(found)


def _link(row: Row, cluster: Cluster) -> str:
    """How a member hangs on its survivor, and how similar it is."""
    if not row["duplicate_of"]:
        return "kept" if row["decision"] == KEPT else f"{row['decision']} by {console.safe(row['rule'])}"
    if row["copy_of"]:
        return f"same text as {_named(row['copy_of'], cluster)}"
    return f"near to {_named(row['duplicate_of'], cluster)}, similarity {row['similarity']:.4f}"


def _also_near(row: Row, cluster: Cluster, most: int = 5) -> str:
    mine = row["doc_id"]
    others = [
        (-value, winner if loser == mine else loser)
        for (loser, winner), value in cluster.near.items()
        if mine in (loser, winner)
    ]
    listed = [
        f"{_named(other, cluster)} {-value:.4f}" for value, other in sorted(others) if other != row["duplicate_of"]
    ]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def _named(doc_id: str, cluster: Cluster) -> str:
    number = cluster.number.get(doc_id)
    return f"#{number}" if number else doc_id


def _why(row: Row, cluster: Cluster, recipe: Recipe) -> str:
    """Why a member went and its survivor stayed."""
    ahead = row["copy_of"] or row["duplicate_of"]
    winner = cluster.row(ahead)
    if winner is None:
        return ", which is not shown here"
    by = recipe.identity.survivor if row["copy_of"] else recipe.fuzzy.survivor
    words = "stayed" if row["duplicate_of"] == ahead else "was judged for both"
    later = (
        ""
        if row["duplicate_of"] == ahead
        else (f", and went for {_named(row['duplicate_of'], cluster)}, similarity {row['similarity']:.4f}")
    )
    return f"; that one {words}: {decided(row, winner, by)}{later}"


def _why_not(row: Row, cluster: Cluster) -> str:
    """Why a kept document stayed though it comes after others that it is near to: a dropped one drops no one."""
    ahead = sorted(winner for loser, winner in cluster.near if loser == row["doc_id"])
    if row["decision"] != KEPT or not ahead:
        return ""
    return f"; comes after {', '.join(_named(one, cluster) for one in ahead[:5])}, but a dropped one drops no one"


def decided(loser: Row, winner: Row, preferences: Sequence[Preference]) -> str:
    """The values by which `winner` comes before `loser`: those of the first preference in which they differ."""
    equal: list[str] = []
    for preference in preferences:
        if preference in ("longest", "shortest"):
            mine, other = characters(winner) or 0, characters(loser) or 0
            told = f"{preference}, {mine:,} characters against {other:,}"
            if (mine < other) == (preference == "longest"):
                told += " (as extracted; what was compared had lines removed)"
            same = mine == other
        elif preference in ("curated", "quality"):
            column = "site_rank" if preference == "curated" else "quality"
            told = f"{preference}, {winner[column] or 0:.4g} against {loser[column] or 0:.4g}"
            same = winner[column] == loser[column]
        else:
            told = f"{preference}, {_date(winner)} against {_date(loser)}"
            same = winner["date"] == loser["date"]
        if not same:
            return "; ".join([*equal, told])
        equal.append(f"not {preference}: equal")
    return "; ".join([*equal, "the smaller document id" if winner["doc_id"] != loser["doc_id"] else "delivered twice"])


def _date(row: Row) -> str:
    return console.safe(row["date"] or "no date")


class TextFinder:
    """The texts of documents, kept or not. `inputs` say where WARC files are (see `sources.expand`)."""

    def __init__(self, output: Path, recipe: Recipe, inputs: Sequence[str]) -> None:
        self.output, self.recipe = output, recipe
        self.paths = {source.name: source.path for source in expand(inputs)} if inputs else {}

    def of(self, row: Row) -> str:
        """The text of a ledger row. Raises InputError where it cannot be had; the message says what to do."""
        # A record that was delivered twice has one id and one text, whichever of its rows is asked for.
        same = pc.field("doc_id").isin([row["doc_id"]])
        kept = ds.dataset(self.output / "documents", format="parquet").to_table(columns=["text"], filter=same)
        if len(kept):
            return str(kept.column("text")[0].as_py())
        text = self._extracted(row)
        # As the rules would have cleaned it, so that it can be compared with a document that was kept.
        return clean_and_measure(text, row["language"] or "", self.recipe.rules).text

    def _extracted(self, row: Row) -> str:
        from dots_data.prepare import Preparation

        name, place = row["warc_file"], f"{row['warc_file']} at byte {row['warc_offset']:,}"
        limits = ReadLimits.for_bodies(self.recipe.http.max_body_bytes)
        page = read_page(self._path(name), name, row["warc_offset"], row["warc_index"], limits)
        if page is None:
            raise InputError(f"{place}: no response lies there; is this the file that the run read?")
        # The page came as far as to have a text: what is looked at before that needs no lists here.
        open_to_all = UrlFilterConfig(hard_words=(), soft_words=(), subwords=())
        with Preparation(dataclasses.replace(self.recipe, url=open_to_all)) as tools:
            made = tools.row(page)
        if made["doc_id"] != row["doc_id"]:
            raise InputError(f"{place}: another record lies there now; is this the file that the run read?")
        if "text" not in made:
            raise InputError(f"{place}: extraction ends with {made['rule']} now ({made['detail'] or 'no detail'})")
        return str(made["text"])

    def _path(self, warc_file: str) -> str:
        name = warc_file.partition("#")[0]
        by_last_part = [path for known, path in self.paths.items() if Path(known).name == Path(name).name]
        if name in self.paths:
            return self.paths[name]
        if len(by_last_part) == 1:
            return by_last_part[0]
        if Path(name).is_file():
            return name
        told = "several files have this name" if by_last_part else "not found"
        raise InputError(
            f"{name}: {told}, so the text of a document in it cannot be shown; say with --input where it is"
        )


def difference(old: str, new: str) -> Iterator[Text]:
    """How `new` differs from `old`, line by line: `-` gone, `+` come, `~` changed within."""
    before, after = old.split("\n"), new.split("\n")
    lead, tail = _shared_ends(before, after)
    yield from _same(before[:lead])
    ends = before[len(before) - tail :]
    before, after = before[lead : len(before) - tail], after[lead : len(after) - tail]
    cut = max(len(before), len(after)) > MOST_LINES
    before, after = before[:MOST_LINES], after[:MOST_LINES]
    for kind, i, j, k, m in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            yield from _same(before[i:j])
            continue
        for one, other in zip_longest(before[i:j], after[k:m]):
            yield from _changed(one, other)
    if cut:
        yield Text(f"... {MOST_LINES} lines from the first difference on were compared", "dim")
    yield from _same(ends)


def _shared_ends(one: Sequence[str], other: Sequence[str]) -> tuple[int, int]:
    """How many of the first and of the last items are equal, none counted twice."""
    most = min(len(one), len(other))
    lead = next((at for at in range(most) if one[at] != other[at]), most)
    return lead, next((at for at in range(most - lead) if one[-1 - at] != other[-1 - at]), most - lead)


def _same(lines: Sequence[str]) -> Iterator[Text]:
    if len(lines) > 2 * CONTEXT + 1:
        yield from _same(lines[:CONTEXT])
        yield Text(f"  ... {len(lines) - 2 * CONTEXT:,} equal lines", "dim")
        lines = lines[-CONTEXT:]
    yield from (Text(f"  {_shown(line)}", "dim") for line in lines)


def _changed(one: str | None, other: str | None) -> Iterator[Text]:
    """A line that became another: word by word where they have much in common, else the one and the other."""
    if one is not None and other is not None:
        old, new = _WORD.findall(one), _WORD.findall(other)
        lead, tail = _shared_ends(old, new)
        first, last = max(0, lead - NEARBY), max(0, tail - NEARBY)
        old, new = old[first : len(old) - last], new[first : len(new) - last]
        match = SequenceMatcher(None, old[:MOST_WORDS], new[:MOST_WORDS], autojunk=False)
        if first or last or match.ratio() > 0.5:
            yield Text.assemble("~ ", "... " * bool(first), *_words(match, old, new), " ..." * bool(last))
            if max(len(old), len(new)) > MOST_WORDS:
                yield Text(f"  ... {MOST_WORDS} words of this line were compared", "dim")
            return
    if one is not None:
        yield Text(f"- {_shown(one)}", "red")
    if other is not None:
        yield Text(f"+ {_shown(other)}", "green")


def _words(match: SequenceMatcher[str], old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[str, str]]:
    for kind, i, j, k, m in match.get_opcodes():
        if kind == "equal":
            yield _shown("".join(old[i:j])), ""
            continue
        if j > i:
            yield f"[-{_shown(''.join(old[i:j]))}-]", "red"
        if m > k:
            yield f"{{+{_shown(''.join(new[k:m]))}+}}", "green"


def _shown(line: str) -> str:
    # The lines are no markup, so that nothing in them needs an escape but control characters.
    cut = line[:MOST_CHARACTERS].replace("\t", " ") + ("..." if len(line) > MOST_CHARACTERS else "")
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in cut)


def show_difference(cluster: Cluster, pair: tuple[Row, Row], texts: TextFinder) -> bool:
    """Print how the second text differs from the first; False where one of them cannot be had, which is said."""
    try:
        old, new = (texts.of(row) for row in pair)
    except (InputError, ConfigError, OSError) as error:
        console.fail(str(error))
        return False
    out = console.console
    out.print()
    for sign, row in zip("-+", pair, strict=True):
        named = f"{sign} {_named(row['doc_id'], cluster)} ({row['decision']}) {console.safe(row['url'])}"
        out.print(named, style="bold", soft_wrap=True)
        if row["decision"] != KEPT and (gone := _removed(row)):
            out.print(f"  {gone:,} lines that many documents share were taken out of it before it was compared")
    if old == new:
        out.print("  the texts are equal")
        return True
    for line in difference(old, new):
        out.print(line, soft_wrap=True)
    return True


def _removed(row: Row) -> int:
    return int(dict(row["measures"] or ()).get("lines.removed", 0))


def pair_of(cluster: Cluster, row: Row, wanted: Sequence[str]) -> tuple[Row, Row]:
    """The two rows to compare: those that were asked for, else `row` and its survivor, or the first that went for it.

    Raises:
        ValueError: what was asked for is not in the cluster, or there is nothing to compare with.
    """
    if wanted:
        found = [cluster.row(one) for one in wanted]
        for one, member in zip(wanted, found, strict=True):
            if member is None:
                raise ValueError(f"{one}: not in this cluster; name two members by #, document id or URL")
        return found[0], found[1]  # type: ignore[return-value]
    if row["duplicate_of"] and (survivor := cluster.row(row["duplicate_of"])) is not None:
        return row, survivor
    went = next((one for one in cluster.rows if one["duplicate_of"] == row["doc_id"]), None)
    if went is None:
        raise ValueError(f"{row['doc_id']}: no document went for it, so there is nothing to compare it with")
    return went, row


def answer(
    output: Path, rows: Sequence[Row], recipe: Recipe, most: int, wanted: Sequence[str] | None, inputs: Sequence[str]
) -> int:
    """Show the clusters of ledger rows, each once; with `wanted`, a difference of two texts of each. The exit code."""
    shown: set[str] = set()
    failed = 0
    for row in rows:
        if row["doc_id"] in shown:
            continue
        if row["text_md5"] is None:
            console.console.print(
                f"{console.safe(row['url'])} ({row['doc_id']}) was {row['decision']} by {console.safe(row['rule'])} "
                f"before deduplication: it was compared with no other"
            )
            continue
        cluster = cluster_of(output, row, most)
        shown |= cluster.number.keys()
        show(cluster, recipe)
        if wanted is not None and len(cluster.rows) > 1:
            failed += not show_difference(cluster, pair_of(cluster, row, wanted), TextFinder(output, recipe, inputs))
    return 1 if failed else 0
