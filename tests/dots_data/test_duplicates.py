"""`dots duplicates`: who is in a cluster, why it ended so, how texts differ, and hostile text on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dots_data import cli
from dots_data.duplicates import decided, difference
from dots_data.recipe import Recipe
from dots_data.schema import DOCUMENT, LEDGER, NEAR
from dots_data.typed_yaml import to_mapping

KEPT_TEXT = "The keeper trimmed the lamp every four hours.\nHe wrote down the ships and the storms.\nThen he slept."


def ledger_row(name: str, **changes: Any) -> dict[str, Any]:
    return {
        **dict.fromkeys(LEDGER.names),
        **{"doc_id": name * 32, "record_id": f"<urn:uuid:{name}>", "url": f"https://{name}.example/"},
        **{
            "warc_file": "gone.warc.gz",
            "warc_offset": 7,
            "warc_index": 0,
            "date": "2024-01-01",
            "dump": "",
            "site_rank": 0,
            "decision": "kept",
        },
        **{"text_md5": f"md5 of {name}", "language": "en", "measures": [("extraction.characters", 100.0)]},
        **changes,
    }


def went(name: str, survivor: str, similarity: float = 0.9, **changes: Any) -> dict[str, Any]:
    fate = {"decision": "dropped", "stage": "fuzzy", "rule": "fuzzy.jaccard", "duplicate_of": survivor * 32}
    return ledger_row(name, **{**fate, "similarity": similarity, **changes})


ROWS = [
    ledger_row("a", measures=[("extraction.characters", 130.0)]),
    went("b", "a"),
    ledger_row("c", date="2024-03-01"),
    went("d", "c", 1.0, date="", stage="identity", rule="identity.copies", copy_of="c" * 32, text_md5="md5 of c"),
    ledger_row("e", decision="dropped", stage="rules", rule="gopher.min_words"),
    ledger_row("f", decision="dropped", stage="url", rule="url.word", text_md5=None),
    ledger_row("0", url="https://alone.example/[red]\x1b[2J"),
]
# c comes after b alone, which was dropped; e was dropped by the rules and is compared for `dots judge` alone.
PAIRS = [("b", "a", 0.9), ("c", "b", 0.85), ("e", "a", 0.99)]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    documents = [
        {
            **{name: row[name] for name in DOCUMENT.names if name in row},
            **{"text": KEPT_TEXT, "language": "en", "language_score": 1.0},
        }
        for row in ROWS
        if row["decision"] == "kept"
    ]
    near = [{"doc_id": one * 32, "near_to": other * 32, "similarity": value} for one, other, value in PAIRS]
    for name, rows, schema in (("ledger", ROWS, LEDGER), ("near", near, NEAR), ("documents", documents, DOCUMENT)):
        (tmp_path / name).mkdir()
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / name / "part-00000.parquet")
    (tmp_path / "summary.json").write_text(json.dumps({"recipe": to_mapping(Recipe()), "records": len(ROWS)}))
    return tmp_path


def asked(output: Path, capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["duplicates", *arguments, "--output", str(output)])
    said = capfd.readouterr()
    return code, " ".join(said.out.split()), said.err


@pytest.mark.parametrize("wanted", ["https://a.example/", "b" * 32, "<urn:uuid:c>", "urn:uuid:d"])
def test_the_cluster_is_the_same_whoever_is_asked_for(
    output: Path, capfd: pytest.CaptureFixture[str], wanted: str
) -> None:
    code, said, _ = asked(output, capfd, wanted)
    assert code == 0
    assert "4 documents; 2 kept" in said
    assert all(f"https://{name}.example/" in said for name in "abcd")
    assert "https://e.example/" not in said
    assert "kept; comes after #3, but a dropped one drops no one" in said
    assert "near to #1, similarity 0.9000; that one stayed: longest, 130 characters against 100" in said
    assert "also near to #2 0.8500" in said
    assert "same text as #2; that one stayed: not longest: equal; earliest, 2024-03-01 against no date" in said


def test_a_cluster_is_cut_where_it_grows_long(output: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "and perhaps more, see --most" in asked(output, capfd, "a" * 32, "--most", "2")[1]


def test_a_page_that_was_never_compared_is_told_so(output: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "before deduplication" in asked(output, capfd, "f" * 32)[1]
    assert "1 documents; 0 kept" in asked(output, capfd, "e" * 32)[1]


def test_texts_are_compared_or_it_is_said_why_not(output: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, said, failed = asked(output, capfd, "a" * 32, "--diff", "1", "c" * 32)
    assert code == 0 and "the texts are equal" in said
    code, said, failed = asked(output, capfd, "b" * 32, "--diff")
    assert code == 1 and "4 documents" in said
    assert "gone.warc.gz: not found" in failed and "--input" in failed and len(failed.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a" * 32, "--diff", "1"], "compares two members"),
        (["a" * 32, "--diff", "1", "99"], "not in this cluster"),
        (["c" * 32, "--diff", "1", "2", "--input", "nowhere"], "no such file"),
    ],
)
def test_what_cannot_be_asked(
    output: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    code, _, failed = asked(output, capfd, *arguments)
    assert code == 2 and words in failed


def test_an_unknown_document_and_hostile_words(output: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert asked(output, capfd, "https://nowhere.example/")[0] == 1
    code, said, _ = asked(output, capfd, "0" * 32)
    assert code == 0 and "[red]" in said and "\x1b[2J" not in said


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["duplicates", "--help"])
    said = capsys.readouterr().out
    assert all(word in said for word in ("--diff 1 4 --input crawl/", "Exit codes", "--most"))


@pytest.mark.parametrize(
    ("preferences", "words"),
    [
        (("longest",), "longest, 130 characters against 100"),
        (("shortest",), "shortest, 130 characters against 100 (as extracted; what was compared had lines removed)"),
        (("earliest",), "not earliest: equal; the smaller document id"),
        (("latest", "longest"), "not latest: equal; longest, 130 characters against 100"),
        (("curated", "longest"), "not curated: equal; longest, 130 characters against 100"),
        (("quality",), "quality, 0.75 against 0.5"),
        ((), "the smaller document id"),
    ],
)
def test_the_value_that_decided(preferences: Any, words: str) -> None:
    loser, winner = {**ROWS[1], "quality": 0.5}, {**ROWS[0], "quality": 0.75}
    assert decided(loser, winner, preferences) == words


def test_a_curated_site_decided() -> None:
    assert decided(ROWS[1], {**ROWS[0], "site_rank": 2}, ("curated", "longest")) == "curated, 2 against 0"


def plain(old: str, new: str) -> list[str]:
    return [line.plain for line in difference(old, new)]


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ("one", "one", ["  one"]),
        ("", "x", ["- ", "+ x"]),
        ("a b c d", "a b x d", ["~ a b [-c-]{+x+} d"]),
        ("夜里河水冲破沙丘", "夜里河水漫过沙丘", ["~ 夜里河水[-冲破-]{+漫过+}沙丘"]),
        (f"{'so ' * 50}x", f"{'so ' * 50}y", ["~ ... " + "so " * 20 + "[-x-]{+y+}"]),
        (f"{'so ' * 999}x it ends", f"{'so ' * 999}it ends", ["~ ... " + "so " * 20 + "[-x -]it ends"]),
        ("same\nquite another line", "same\n3 4 5", ["  same", "- quite another line", "+ 3 4 5"]),
        ("\n".join("abcdefgh"), "\n".join("abcdefgh"), ["  a", "  b", "  ... 4 equal lines", "  g", "  h"]),
        ("so be it\\\\\\", "so be me\\\\\\", ["~ so be [-it-]{+me+}\\\\\\"]),
        (
            "[bold]x[/bold]\x1b[0m y z",
            "[bold]x[/bold]\x1b[0m y q",
            ["~ [bold]x[/bold]\N{REPLACEMENT CHARACTER}[0m y [-z-]{+q+}"],
        ),
    ],
)
def test_a_difference_is_readable(old: str, new: str, lines: list[str]) -> None:
    assert plain(old, new) == lines


@given(st.text(), st.text())
def test_any_texts_can_be_compared(old: str, new: str) -> None:
    said = plain(old, new)
    assert all(character.isprintable() for line in said for character in line)
    assert (old == new) == all(line.startswith("  ") for line in said)


@pytest.mark.parametrize("old", ["x" * 1_000_000, "x\n" * 100_000, "x y " * 100_000, "x y z\ny x z\n" * 50_000])
def test_texts_made_to_be_slow_are_cut(old: str) -> None:
    said = plain(old, old[::-1].replace("z", "w") + "!")
    assert sum(map(len, said)) < 2_000_000
