"""Reading archives: every response once, whatever the file went through."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import brotli
import pyarrow as pa
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dots_data.crawl import warc
from dots_data.crawl.http import parse_response
from dots_data.crawl.records import MAX_RETURNS, Share, careful_records
from dots_data.crawl.warc import Damage, Page, ReadLimits, read_pages

Write = Callable[..., str]


def message(body: bytes, *fields: str, status: str = "200 OK") -> bytes:
    head = "\r\n".join((f"HTTP/1.1 {status}", "Content-Type: text/html; charset=utf-8", *fields))
    return head.encode() + b"\r\n\r\n" + body


def record(block: bytes, number: int = 0, kind: str = "response", length: int | None = None, *fields: str) -> bytes:
    head = (
        "WARC/1.0",
        f"WARC-Type: {kind}",
        f"WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{number:012d}>",
        f"WARC-Target-URI: http://example.org/{number}",
        "WARC-Date: 2024-05-07T19:05:15Z",
        "Content-Type: application/http; msgtype=response",
        f"Content-Length: {len(block) if length is None else length}",
        *fields,
    )
    return "\r\n".join(head).encode() + b"\r\n\r\n" + block + b"\r\n\r\n"


def body(number: int, size: int = 3000) -> bytes:
    letters = random.Random(number).choices(b"abcdefgh <>/\n", k=size)
    return b"<p>page %d " % number + bytes(letters)


RECORDS = [record(message(body(number)), number) for number in range(5)]
MEMBERS = [gzip.compress(item, mtime=0) for item in RECORDS]
_AT = [sum(map(len, MEMBERS[:number])) for number in range(6)]
_PLAIN_AT = [sum(map(len, RECORDS[:number])) for number in range(6)]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(data: bytes, name: str = "a.warc.gz") -> str:
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return write_file


def read(path: str, **keywords: object) -> tuple[list[Page], list[Damage]]:
    items = list(read_pages(path, **keywords))  # type: ignore[arg-type]
    return [x for x in items if isinstance(x, Page)], [x for x in items if isinstance(x, Damage)]


def numbers(pages: list[Page]) -> list[int]:
    return [int(page.url.rpartition("/")[2]) for page in pages]


def test_a_page_has_all_that_the_record_says(write: Write) -> None:
    path = write(MEMBERS[0] + MEMBERS[1])
    page = read(path)[0][1]
    assert page == Page(
        record_id="<urn:uuid:00000000-0000-0000-0000-000000000001>",
        url="http://example.org/1",
        warc_file="a.warc.gz",
        warc_offset=len(MEMBERS[0]),
        warc_index=0,
        date="2024-05-07T19:05:15Z",
        status=200,
        content_type="text/html",
        http_charset="utf-8",
        body=body(1),
        body_bytes=len(body(1)),
        payload_digest=hashlib.blake2b(body(1), digest_size=16).hexdigest(),
        truncated="",
        problem="",
    )


@pytest.mark.parametrize("kind", ["request", "warcinfo", "metadata", "revisit", "resource", "conversion"])
def test_only_responses_are_pages(write: Write, kind: str) -> None:
    pages, damage = read(write(gzip.compress(record(b"x" * 50, 7, kind)) + MEMBERS[0]))
    assert numbers(pages) == [0] and not damage


def _lz4(data: bytes) -> bytes:
    return bytes(pa.Codec("lz4").compress(data))


def _zstd(data: bytes) -> bytes:
    return zstandard.compress(data)


def _wacz(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("datapackage.json", "{}")
        archive.writestr("archive/b.warc.gz", data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


@pytest.mark.parametrize(
    "container",
    [
        b"".join(RECORDS),
        b"".join(MEMBERS),
        gzip.compress(b"".join(RECORDS)),
        _lz4(b"".join(RECORDS)),
        zstandard.compress(b"".join(RECORDS)),
        _wacz(b"".join(MEMBERS)),
        b"".join(RECORDS).replace(b"\r\nWARC-", b"\r\r\nWARC-"),
        b"".join(RECORDS).replace(b"WARC/1.0", b"WARC/1.1"),
    ],
    ids=["plain", "member a record", "one member", "lz4", "zstd", "wacz", "CR CR LF", "WARC 1.1"],
)
def test_formats_are_told_by_their_bytes(write: Write, container: bytes) -> None:
    pages, damage = read(write(container, "name.says.nothing"))
    assert numbers(pages) == [0, 1, 2, 3, 4] and not damage
    assert [page.body for page in pages] == [body(number) for number in range(5)]


@pytest.mark.parametrize(
    ("container", "places"),
    [
        (b"".join(RECORDS), [(at, 0) for at in _PLAIN_AT[:5]]),
        (b"".join(MEMBERS), [(at, 0) for at in _AT[:5]]),
        (_wacz(b"".join(MEMBERS)), [(at, 0) for at in _AT[:5]]),
        *((pack(b"".join(RECORDS)), [(0, index) for index in range(5)]) for pack in (gzip.compress, _lz4, _zstd)),
        (
            gzip.compress(record(b"x", 9, "warcinfo") + RECORDS[0] + RECORDS[1]) + MEMBERS[2],
            [(0, 1), (0, 2), (len(gzip.compress(record(b"x", 9, "warcinfo") + RECORDS[0] + RECORDS[1])), 0)],
        ),
    ],
    ids=["plain", "member a record", "wacz", "one member", "lz4", "zstd", "other types count"],
)
def test_offset_and_index_name_a_record(write: Write, container: bytes, places: list[tuple[int, int]]) -> None:
    path = write(container)
    assert [(page.warc_offset, page.warc_index) for page in read(path)[0]] == places
    parts = [page for share in range(3) for page in read(path, share=(share, 3))[0]]
    assert sorted((page.warc_offset, page.warc_index) for page in parts) == places


@given(groups=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=4), min_size=1, max_size=8), cut=st.integers(0))
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_members_of_several_records(write: Write, groups: list[list[int]], cut: int) -> None:
    """FastWARC names wrong offsets for them: nothing of that is seen."""
    members = [gzip.compress(b"".join(RECORDS[number] for number in group)) for group in groups]
    starts = [sum(map(len, members[:at])) for at in range(len(members))]
    expected = [(start, index) for start, group in zip(starts, groups, strict=True) for index in range(len(group))]
    data = b"".join(members)
    pages, damage = read(write(data))
    assert numbers(pages) == [number for group in groups for number in group] and not damage
    assert [(page.warc_offset, page.warc_index) for page in pages] == expected
    pages, _ = read(write(data[: len(data) - cut % len(data)]))
    places = [(page.warc_offset, page.warc_index) for page in pages]
    assert places == expected[: len(places)]


def test_members_of_a_wacz_are_named(write: Write) -> None:
    pages, _ = read(write(_wacz(b"".join(MEMBERS)), "x.wacz"))
    assert {page.warc_file for page in pages} == {"x.wacz#archive/b.warc.gz"}


def test_arc(write: Write) -> None:
    block = message(body(3))
    about = b"1 0 Test\nURL IP-address Archive-date Content-type Archive-length\n"
    head = b"filedesc://x.arc 127.0.0.1 20140216050221 text/plain %d\n" % len(about) + about + b"\n"
    entry = b"http://example.org/a b/3 127.0.0.1 20140216050221 text/html %d\n" % len(block) + block + b"\n"
    for data in (head + entry, gzip.compress(head) + gzip.compress(entry)):
        (page,), damage = read(write(data, "x.arc"), limits=ReadLimits(max_record_bytes=len(block)))
        assert not page.problem
        (page,), _ = read(write(data, "x.arc"), limits=ReadLimits(max_record_bytes=len(block) - 1))
        assert page.problem == f"record cut at {len(block) - 1} bytes" and page.body == body(3)[:-1]
        (page,), damage = read(write(data, "x.arc"))
        assert (page.url, page.date, page.body) == (
            "http://example.org/a b/3",
            "2014-02-16T05:02:21Z",
            body(3),
        )
        assert page.status == 200 and page.record_id.startswith("<urn:uuid:") and not damage
        assert page.warc_index == 0
        assert page.record_id == read(write(data, "other.arc"))[0][0].record_id


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<html>no archive</html>" * 100, "2300 bytes that are no WARC record"),
        (b"PK\x03\x04 no zip", "zip directory cannot be read (File is not a zip file)"),
        (gzip.compress(b"hello " * 100), "600 bytes that are no WARC record"),
        (MEMBERS[0][:15], "gzip member ends early"),
    ],
    ids=["empty", "html", "zip", "gzip", "cut gzip"],
)
def test_files_that_are_no_archives(write: Write, data: bytes, reason: str) -> None:
    path = write(data)
    assert read(path) == ([], [Damage("a.warc.gz", 0, reason)])
    assert read(path, share=(1, 2)) == ([], [])


def test_a_file_that_vanished_is_damage(tmp_path: Path) -> None:
    assert read(str(tmp_path / "gone.warc")) == (
        [],
        [Damage("gone.warc", 0, "cannot be read (No such file or directory)")],
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_permission_is_damage(write: Write) -> None:
    path = write(MEMBERS[0])
    Path(path).chmod(0)
    assert read(path)[1][0].reason == "cannot be read (Permission denied)"


def _flip(data: bytes, at: int) -> bytes:
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("data", "whole", "broken", "damaged"),
    [
        (b"".join(MEMBERS)[:-700], [0, 1, 2, 3], [4], [_AT[4]]),
        (_flip(b"".join(MEMBERS), _AT[1] + 900), [0, 2, 3, 4], [1], [_AT[1]]),
        (_flip(b"".join(MEMBERS), _AT[2] - 6), [0, 2, 3, 4], [1], [_AT[1]]),
        (MEMBERS[0] + MEMBERS[1][:900] + MEMBERS[2], [0, 2], [1], [_AT[1]]),
        (MEMBERS[0] + b"rubbish" * 90 + MEMBERS[2], [0, 2], [], [_AT[1]]),
        (MEMBERS[0] + b"\0" * 9000 + MEMBERS[2], [0, 2], [], [_AT[1]]),
        (MEMBERS[0] + gzip.compress(b"no record") + MEMBERS[2], [0, 2], [], [_AT[1]]),
        (RECORDS[0] + b"rubbish" * 90 + b"\r\n" + RECORDS[2], [0, 2], [], [_PLAIN_AT[1]]),
        (RECORDS[0] + RECORDS[1][:900] + b"\r\n" + RECORDS[2] + RECORDS[3], [0, 2, 3], [1], [_PLAIN_AT[1]]),
        (b"".join(RECORDS)[:-700], [0, 1, 2, 3], [4], [_PLAIN_AT[4]]),
    ],
    ids=[
        *(
            "cut at the end",
            "flipped byte",
            "wrong checksum",
            "cut member",
            "rubbish",
            "zeros",
            "member of no record",
        ),
        *("plain, rubbish", "plain, cut record", "plain, cut at the end"),
    ],
)
def test_what_follows_damage_is_found(
    write: Write, data: bytes, whole: list[int], broken: list[int], damaged: list[int]
) -> None:
    pages, damage = read(write(data))
    assert sorted(numbers(pages)) == sorted(whole + broken)
    for page in pages:
        number = numbers([page])[0]
        assert bool(page.problem) == (number in broken)
        assert page.body == body(number) if number in whole else body(number).startswith(page.body[:400])
        assert len(page.body) > 400
    assert [item.offset for item in damage] == damaged


_RUBBISH = b"rubbish" * 90 + b"\r\n"


@pytest.mark.parametrize(
    ("data", "damaged"),
    [
        # Two regions behind one offset are two.
        (gzip.compress(RECORDS[0] + _RUBBISH + RECORDS[1] + _RUBBISH + RECORDS[2]), [(0, "632"), (0, "632")]),
        (_lz4(RECORDS[0] + _RUBBISH + RECORDS[1] + _RUBBISH + RECORDS[2]), [(0, "632"), (0, "632")]),
        (gzip.compress(record(b"x", 0, length=9) + RECORDS[1] + RECORDS[2])[:-700], [(0, "shorter"), (0, "early")]),
        # What breaks a record, or the header of one, is told once.
        (gzip.compress(b"".join(RECORDS))[:-700], [(0, "early")]),
        (_flip(gzip.compress(b"".join(RECORDS)), -6), [(0, "incorrect data check")]),
        (
            gzip.compress(RECORDS[0][:-9]) + b"rubbish",
            [(0, "shorter"), (len(gzip.compress(RECORDS[0][:-9])), "no gzip")],
        ),
        (MEMBERS[0] + b"rubbish" + MEMBERS[1][:-700], [(_AT[1], "no gzip"), (_AT[1] + 7, "early")]),
    ],
    ids=["gzip", "lz4", "length, then cut", "cut", "wrong checksum", "short, then rubbish", "rubbish, then cut"],
)
def test_damage_is_told_once_for_each_region(write: Write, data: bytes, damaged: list[tuple[int, str]]) -> None:
    _, damage = read(write(data))
    assert [item.offset for item in damage] == [offset for offset, _ in damaged]
    for item, (_, reason) in zip(damage, damaged, strict=True):
        assert reason in item.reason


def _each(pack: Callable[[bytes], bytes]) -> Callable[[list[bytes]], bytes]:
    return lambda records: b"".join(map(pack, records))


def _all(pack: Callable[[bytes], bytes]) -> Callable[[list[bytes]], bytes]:
    return lambda records: pack(b"".join(records))


CONTAINERS = {
    "plain": _each(bytes),
    "member a record": _each(gzip.compress),
    "one member": _all(gzip.compress),
    "lz4": _all(_lz4),
    "zstd": _all(_zstd),
    "wacz": _all(lambda data: _wacz(gzip.compress(data))),
    "plain in wacz": _all(_wacz),
}


@pytest.mark.parametrize("limit", [1 << 10, 32 << 20])
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("length", [0, 200, 9000, 10**12, 10**30])
def test_a_wrong_content_length_loses_nothing(write: Write, container: str, length: int, limit: int) -> None:
    before, after = [RECORDS[0]], [RECORDS[2], RECORDS[3]]
    path = write(CONTAINERS[container]([*before, record(message(body(1)), 1, length=length), *after]))
    pages, damage = read(path, limits=ReadLimits(max_record_bytes=limit))
    assert numbers(pages) == [0, 1, 2, 3]
    kept = min(limit - 100, len(body(1)))
    assert pages[1].body[:kept] == body(1)[:kept] and len(pages[1].body) <= len(body(1)) + 4
    assert pages[1].problem and [item.offset for item in damage] == [pages[1].warc_offset]


@pytest.mark.parametrize("container", CONTAINERS)
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.sampled_from([None, 0, 200, 10**5, 10**12]), min_size=1, max_size=24))
def test_any_number_of_wrong_lengths_loses_nothing(write: Write, container: str, lengths: list[int | None]) -> None:
    records = [record(message(body(number)), number, length=length) for number, length in enumerate(lengths)]
    pages, damage = read(write(CONTAINERS[container](records)), limits=ReadLimits(max_record_bytes=1 << 10))
    assert numbers(pages) == list(range(len(lengths)))
    right = [page.problem.startswith("record cut") for page in pages]
    assert right == [length is None for length in lengths]
    assert len(damage) == sum(length is not None for length in lengths)


@pytest.mark.parametrize("kind", ["response", "resource"])
@pytest.mark.parametrize("limit", [100, 1 << 10, 1 << 14, 32 << 20])
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_right_content_length_wins(write: Write, container: str, limit: int, kind: str) -> None:
    """A page may hold a whole WARC file."""
    stored = message(b"<p>archive\n" + b"".join(RECORDS) * 3)
    path = write(CONTAINERS[container]([record(stored, 7, kind), RECORDS[1], record(stored, 8, kind), RECORDS[2]]))
    pages, damage = read(path, limits=ReadLimits(max_record_bytes=limit))
    assert numbers(pages) == ([7, 1, 8, 2] if kind == "response" else [1, 2]) and not damage
    if kind == "response":
        assert pages[0].body == parse_response(stored[:limit], 1 << 20, 1 << 15).body


class Counting(io.BytesIO):
    """Counts the bytes that are read."""

    count = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


@pytest.mark.parametrize("container", ["plain", "one member", "lz4", "zstd"])
@pytest.mark.parametrize("length", [10**12, 2_000_000])
def test_wrong_lengths_cost_linear_time(container: str, length: int) -> None:
    """Lengths past the end and, for the earlier records, into the midst of a later one."""
    records = [record(message(body(number % 7, 9000)), number, length=length) for number in range(400)]
    data = CONTAINERS[container](records)
    file, limits = Counting(data), ReadLimits(max_record_bytes=1 << 13)
    found = [x for x in careful_records(file, data[:512], 0, "a", Share(0, 1), limits) if not isinstance(x, Damage)]
    assert len(found) == 400
    assert file.count <= len(data) * (1.1 if container == "plain" else MAX_RETURNS + 2)


def test_a_record_over_two_gzip_members(write: Write) -> None:
    data = gzip.compress(RECORDS[0][:600]) + gzip.compress(RECORDS[0][600:]) + MEMBERS[1]
    pages, damage = read(write(data))
    assert [page.body for page in pages] == [body(0), body(1)] and not damage


def test_shares_give_each_page_once(write: Write) -> None:
    for data in (
        b"".join(MEMBERS),
        MEMBERS[0] + MEMBERS[1][:900] + b"".join(MEMBERS[2:]),
        b"".join(RECORDS)[:-700],
    ):
        path = write(data)
        everything, damage = read(path)
        for shares in (1, 2, 3, 7):
            parts = [read(path, share=(share, shares)) for share in range(shares)]
            assert sorted(page for pages, _ in parts for page in pages) == sorted(everything)
            assert [found for _, found in parts] == [damage] + [[]] * (shares - 1)


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_page_of_200_megabytes_is_cut_and_memory_stays_small(
    write: Write, compress: Callable[[bytes], bytes]
) -> None:
    limits = ReadLimits(max_body_bytes=1 << 20, max_record_bytes=2 << 20)
    bomb = b" " * (200 << 20)
    unfolding = record(message(gzip.compress(bomb, 9), "Content-Encoding: gzip"), 1)
    path = write(compress(record(message(bomb), 0)) + compress(unfolding) + compress(RECORDS[2]))
    del bomb
    tracemalloc.start()
    pages, damage = read(path, limits=limits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert numbers(pages) == [0, 1, 2] and not damage
    assert [page.body_bytes for page in pages[:2]] == [limits.max_body_bytes + 1] * 2
    assert [bool(page.problem) for page in pages] == [True, False, False]
    assert peak < 24 << 20


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_page_that_is_cut_says_so(write: Write, container: str) -> None:
    block = message(body(1))
    path = write(CONTAINERS[container]([record(block, number) for number in range(4)]))
    for limit in (len(block) - 1, len(block)):
        pages, damage = read(path, limits=ReadLimits(max_record_bytes=limit))
        assert not damage and [page.body for page in pages] == [body(1)[: limit - len(block) or None]] * 4
        cut = f"record cut at {limit} bytes" if limit < len(block) else ""
        assert [page.problem for page in pages] == [cut] * 4


def test_there_is_room_for_the_largest_body(write: Write) -> None:
    whole = b"a" * (36 << 20)
    path = write(record(message(_chunked(whole), "Transfer-Encoding: chunked"), 0))
    (page,), damage = read(path, limits=ReadLimits.for_bodies(36 << 20))
    assert (page.body, page.problem) == (whole, "") and not damage


def test_a_huge_record_of_another_kind_is_skipped(write: Write) -> None:
    limits = ReadLimits(max_body_bytes=1 << 10, max_record_bytes=1 << 12)
    path = write(gzip.compress(record(b"x" * (8 << 20), 0, "resource")) + MEMBERS[1] + MEMBERS[2][:-20])
    pages, _ = read(path, limits=limits)
    assert numbers(pages) == [1, 2]


def test_headers_that_are_missing_or_odd(write: Write) -> None:
    bare = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: 5\r\nContent-Type: text/dns\r\n\r\nhello\r\n\r\n"
    data = bare + record(message(b"x"), 1).replace(b"http://example.org/1", b"<http://example.org/a b>")
    (first, second), damage = read(write(data))
    assert (first.status, first.content_type, first.body, first.url, first.date) == (
        0,
        "text/dns",
        b"hello",
        "",
        "",
    )
    assert first.record_id == warc.made_record_id("", "", first.payload_digest)
    assert second.url == "http://example.org/a b" and not damage


def _chunked(data: bytes, size: int = 700) -> bytes:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x;x=y\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def _raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


TEXT = body(9)


@pytest.mark.parametrize(
    ("sent", "fields", "decoded", "problem"),
    [
        (TEXT, (), TEXT, ""),
        (_chunked(TEXT), ("Transfer-Encoding: chunked",), TEXT, ""),
        (TEXT, ("Transfer-Encoding: chunked",), TEXT, ""),
        (_chunked(TEXT)[:-900], ("Transfer-Encoding: chunked",), None, "chunked body ends early"),
        (
            b"5\r\nhello\r\nwrong\r\nrest",
            ("Transfer-Encoding: chunked",),
            b"hellowrong\r\nrest",
            "bad chunk size",
        ),
        (gzip.compress(TEXT), ("Content-Encoding: gzip",), TEXT, ""),
        (gzip.compress(TEXT[:100]) + gzip.compress(TEXT[100:]), ("Content-Encoding: gzip",), TEXT, ""),
        (_chunked(gzip.compress(TEXT)), ("Content-Encoding: x-gzip", "Transfer-Encoding: chunked"), TEXT, ""),
        (TEXT, ("Content-Encoding: gzip",), TEXT, ""),
        (gzip.compress(TEXT)[:-500], ("Content-Encoding: gzip",), None, "gzip ended early"),
        (_flip(gzip.compress(TEXT), 900), ("Content-Encoding: gzip",), None, "gzip data error"),
        (zlib.compress(TEXT), ("Content-Encoding: deflate",), TEXT, ""),
        (_raw_deflate(TEXT), ("Content-Encoding: deflate",), TEXT, ""),
        (TEXT, ("Content-Encoding: deflate",), TEXT, ""),
        (brotli.compress(TEXT), ("Content-Encoding: br",), TEXT, ""),
        (TEXT, ("Content-Encoding: br",), TEXT, ""),
        (zstandard.compress(TEXT), ("Content-Encoding: zstd",), TEXT, ""),
        (TEXT, ("Content-Encoding: zstd",), TEXT, ""),
        (brotli.compress(gzip.compress(TEXT)), ("Content-Encoding: gzip, br",), TEXT, ""),
        (TEXT, ("Content-Encoding: identity",), TEXT, ""),
    ],
)
def test_codings_are_undone(sent: bytes, fields: tuple[str, ...], decoded: bytes | None, problem: str) -> None:
    response = parse_response(message(sent, *fields), 1 << 20, 1 << 15)
    assert response.problem == problem
    if decoded is None:
        assert len(response.body) > 400 and TEXT.startswith(response.body[:400])
    else:
        assert response.body == decoded


@pytest.mark.parametrize("status", ["302 ", "302", "200 OK", "404 Not Found"])
def test_status_lines(status: str) -> None:
    assert parse_response(message(b"x", status=status), 10, 1000).status == int(status[:3])


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "chunked", "gzip, br"])
@given(data=st.binary(max_size=300))
def test_no_body_makes_it_raise(coding: str, data: bytes) -> None:
    field = "Transfer-Encoding: chunked" if coding == "chunked" else f"Content-Encoding: {coding}"
    response = parse_response(message(data, field), 1000, 1000)
    assert len(response.body) <= 1001


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress, brotli.compress, zstandard.compress])
def test_bombs_in_a_body_unfold_to_the_limit(compress: Callable[[bytes], bytes]) -> None:
    coding = {
        gzip.compress: "gzip",
        zlib.compress: "deflate",
        brotli.compress: "br",
        zstandard.compress: "zstd",
    }
    block = message(compress(b"\0" * (50 << 20)), f"Content-Encoding: {coding[compress]}")
    tracemalloc.start()
    response = parse_response(block, 1 << 16, 1 << 15)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(response.body) == (1 << 16) + 1 and peak < 4 << 20


def _mutated(data: bytes, cuts: list[tuple[int, int, bytes]]) -> bytes:
    for at, length, inserted in cuts:
        at %= len(data) or 1
        data = data[:at] + inserted + data[at + length :]
    return data


@pytest.mark.parametrize("kind", ["member a record", "plain", "one member"])
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(
        st.tuples(st.integers(0, 1 << 16), st.sampled_from([0, 1, 7, 500, 4000]), st.binary(max_size=9)),
        max_size=3,
    )
)
def test_both_lanes_read_the_same(write: Write, kind: str, cuts: list[tuple[int, int, bytes]]) -> None:
    """FastWARC with the careful reader behind it gives what the careful reader alone gives, however broken
    the file.
    """
    data, limits = _mutated(CONTAINERS[kind](RECORDS), cuts), ReadLimits()
    if not data:
        return
    pages, damage = read(write(data))
    alone = list(careful_records(io.BytesIO(data), data[:512], 0, "a.warc.gz", Share(0, 1), limits))
    assert pages == [warc._page(item, "a.warc.gz", limits) for item in alone if not isinstance(item, Damage)]
    assert damage == [item for item in alone if isinstance(item, Damage)]


def test_real_encodings(real_data: Path) -> None:
    """Forty pages sent in every coding have the bodies that the index knows them by."""
    index = [json.loads(line) for line in (real_data / "warc" / "index.jsonl").open(encoding="utf-8")]
    pages, damage = read(str(real_data / "warc-quirks" / "encodings.warc.gz"))
    assert len(pages) == 40 and not damage
    known = {(entry["url"], entry["sha1"]) for entry in index}
    for page in pages:
        assert (page.url, hashlib.sha1(page.body).hexdigest()) in known and not page.problem


QUIRKS = {
    "clipped.warc.gz": (1, [0]),
    "clueweb-quirk.warc.gz": (29, []),
    "warcfile.warc.lz4": (16, []),
    "bad.arc": (3, []),
    "example-bad-non-chunked.warc.gz": (1, []),
    "example-bad.warc.gz.bad": (2, []),
    "example-space-in-url.arc": (1, []),
    "example-trunc.warc": (1, [1197]),
    "example-wrong-chunks.warc.gz": (1, []),
    "iana.warc.gz": (48, []),
    "invalid_example_1.wacz": (0, [0]),
    "missing-status-text.warc": (1, []),
    "valid_example_1.wacz": (1, []),
    "whirlwind.warc.wet.gz": (0, []),
}


@pytest.mark.parametrize("name", sorted(QUIRKS))
def test_real_quirks(real_data: Path, name: str) -> None:
    path = next((real_data / "warc-quirks" / "thirdparty").rglob(name))
    pages, damage = read(str(path))
    assert (len(pages), [item.offset for item in damage]) == QUIRKS[name]
