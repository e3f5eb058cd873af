"""Web archives to pages: one `Page` for every response record, one `Damage` for every region that cannot be
read.

Formats, told by their first bytes and never by the name: WARC plain, gzip (a member a record, or the whole
file one member), lz4 and zstd; ARC, plain and gzip; WACZ, a zip that holds WARC files. Nothing that can be
read is lost: a page whose body is broken comes with what was read of it and a `problem`.
"""

from __future__ import annotations

import hashlib
import re
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

from dots_data.crawl.http import parse_response, split_content_type
from dots_data.crawl.records import (
    GZIP_MAGIC,
    Damage,
    Record,
    Share,
    careful_records,
    cut_problem,
    fast_records,
)
from dots_data.crawl.sources import is_remote, open_source

__all__ = ["Damage", "Page", "ReadLimits", "read_page", "read_pages"]

_ZIP_MAGIC = b"PK\x03\x04"
_ARC_START = b"filedesc:"
_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z")
_ARC_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)")
_SPACES = re.compile(r"[\x00-\x20\x7f]+")


@dataclass(frozen=True)
class ReadLimits:
    """How much of one record is held in memory.

    `max_body_bytes`: a decoded body is read up to one byte more, which shows that it was larger.
    `max_record_bytes`: the record as stored, before chunks and compression are undone. `max_header_bytes`: a
    WARC or HTTP header. `max_url_chars`: a longer URL is cut, no server could have answered it.
    """

    max_body_bytes: int = 16 << 20
    max_record_bytes: int = 32 << 20
    max_header_bytes: int = 32 << 10
    max_url_chars: int = 16 << 10

    @classmethod
    def for_bodies(cls, max_body_bytes: int) -> Self:
        """Room for any body of this size as servers send it: some codings make a body larger."""
        limits = cls(max_body_bytes)
        room = 2 * max_body_bytes + limits.max_header_bytes
        return replace(limits, max_record_bytes=max(limits.max_record_bytes, room))


class Page(NamedTuple):
    """A response record.

    `warc_offset` is the record's offset in `warc_file`, or that of the compressed member that holds it.
    `warc_index` is the record's number, from 0, among those of any type that begin at this offset: 0 in plain
    files and wherever each record is a member of its own. Both together name a record of `warc_file`.
    `date` is ISO 8601 in UTC or "". `status` is 0 and `content_type` "" where the record names none. `body`
    is decoded and cut at `max_body_bytes` + 1; `body_bytes` is its length, `payload_digest` 32 hexadecimal
    digits of BLAKE2b over it. `truncated` is the field WARC-Truncated, `problem` says why the body is not
    whole ("" when it is).
    """

    record_id: str
    url: str
    warc_file: str
    warc_offset: int
    warc_index: int
    date: str
    status: int
    content_type: str
    http_charset: str | None
    body: bytes
    body_bytes: int
    payload_digest: str
    truncated: str
    problem: str


def read_pages(
    path: str,
    share: tuple[int, int] = (0, 1),
    limits: ReadLimits = ReadLimits(),
    name: str | None = None,
) -> Iterator[Page | Damage]:
    """The responses of one archive, in order; `name` is written as `warc_file` (default: the base name).

    `share=(i, k)` gives every k-th response from the i-th on, so that k calls give each page once; Damage
    comes with the first share alone. Never raises for what a file holds, or for a file that has gone: those
    are Damage.
    """
    name = Path(path).name if name is None else name
    for item in _read(path, name, Share(*share), limits):
        if share[0] == 0 or isinstance(item, Page):
            yield item


def read_page(path: str, warc_file: str, offset: int, index: int, limits: ReadLimits = ReadLimits()) -> Page | None:
    """The response that `read_pages` gave as `warc_file`, `warc_offset` and `warc_index`, None where none lies there.

    Only what lies from the offset on is read, except of an ARC or WACZ file, or one compressed with lz4 or zstd.
    """
    for item in _read_from(path, warc_file, offset, limits):
        if (item.warc_file, item.warc_offset, item.warc_index) == (warc_file, offset, index):
            return item
        if item.warc_file == warc_file and item.warc_offset > offset:
            break
    return None


def _read_from(path: str, warc_file: str, offset: int, limits: ReadLimits) -> Iterator[Page]:
    with open_source(path) as file:
        magic = file.read(512)
        if magic.startswith(_ZIP_MAGIC) or _content_start(magic).startswith(_ARC_START):
            items = read_pages(path, limits=limits, name=warc_file.partition("#")[0])
            yield from (item for item in items if isinstance(item, Page))
            return
        for record in careful_records(file, magic, offset, warc_file, Share(0, 1), limits):
            if isinstance(record, Record):
                yield _page(record, warc_file, limits)


def _read(path: str, name: str, share: Share, limits: ReadLimits) -> Iterator[Page | Damage]:
    try:
        with open_source(path) as file:
            yield from _read_open(file, path, name, share, limits)
    except OSError as error:
        yield Damage(name, 0, f"cannot be read ({error.strerror or type(error).__name__})")


def _read_open(file: BinaryIO, path: str, name: str, share: Share, limits: ReadLimits) -> Iterator[Page | Damage]:
    magic = file.read(512)
    if not magic:
        yield Damage(name, 0, "empty file")
    elif magic.startswith(_ZIP_MAGIC):
        yield from _read_wacz(file, name, share, limits)
    elif _content_start(magic).startswith(_ARC_START):
        yield from _read_arc(file, name, share, limits)
    else:
        yield from _read_warc(file, magic, path, name, share, limits)


def _content_start(magic: bytes) -> bytes:
    if not magic.startswith(GZIP_MAGIC):
        return magic
    try:
        return zlib.decompressobj(31).decompress(magic, 64)
    except zlib.error:
        return b""


def _read_warc(
    file: BinaryIO, magic: bytes, path: str | None, name: str, share: Share, limits: ReadLimits
) -> Iterator[Page | Damage]:
    offset = 0
    if path is not None and not is_remote(path) and magic.startswith(GZIP_MAGIC):
        records = fast_records(path, share, limits)
        while True:
            try:
                record = next(records)
            except StopIteration as end:
                offset = end.value
                break
            yield _page(record, name, limits)
    for item in careful_records(file, magic, offset, name, share, limits):
        yield item if isinstance(item, Damage) else _page(item, name, limits)


def _page(record: Record, name: str, limits: ReadLimits) -> Page:
    headers = record.headers
    content_type = headers.get("content-type", "")
    if "http" in content_type.lower() or record.block.startswith(b"HTTP/"):
        response = parse_response(record.block, limits.max_body_bytes, limits.max_header_bytes)
        status, media_type, charset, body = (
            response.status,
            response.content_type,
            response.charset,
            response.body,
        )
        problem = record.problem or response.problem
    else:
        # A response of another protocol: dns, ftp, gemini.
        status, (media_type, charset), problem = 0, split_content_type(content_type), record.problem
        body = record.block[: limits.max_body_bytes + 1]
    digest = hashlib.blake2b(body, digest_size=16).hexdigest()
    url = _SPACES.sub(" ", headers.get("warc-target-uri", "").strip("<> \t"))[: limits.max_url_chars]
    date = _iso_date(headers.get("warc-date", ""))
    return Page(
        record_id=headers.get("warc-record-id") or made_record_id(url, date, digest),
        url=url,
        warc_file=name,
        warc_offset=record.offset,
        warc_index=record.place,
        date=date,
        status=status,
        content_type=media_type,
        http_charset=charset,
        body=body,
        body_bytes=len(body),
        payload_digest=digest,
        truncated=headers.get("warc-truncated", ""),
        problem=problem,
    )


def made_record_id(url: str, date: str, payload_digest: str) -> str:
    """An id for a record that has none (ARC has no such field): the same for the same content."""
    return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{url} {date} {payload_digest}')}>"


def _iso_date(text: str) -> str:
    if _ISO_DATE.fullmatch(text):
        return text
    digits = _ARC_DATE.match(text)
    return "{}-{}-{}T{}:{}:{}Z".format(*digits.groups()) if digits else text[:40]


def _read_arc(file: BinaryIO, name: str, share: Share, limits: ReadLimits) -> Iterator[Page | Damage]:
    """ARC 1 by warcio. Its records carry no check of their length: what follows a broken one is lost."""
    from warcio.archiveiterator import ArchiveIterator

    file.seek(0)
    offset, last, index = 0, -1, 0
    try:
        iterator = ArchiveIterator(file, no_record_parse=True)
        for record in iterator:
            mine = record.rec_type == "response" and share.take()
            headers, block, problem = _arc_record(record, limits.max_record_bytes if mine else 0)
            # warcio knows a record's offset when it has read to its end.
            offset = iterator.get_record_offset()
            last, index = offset, index + 1 if offset == last else 0
            if mine:
                yield _page(Record(offset, index, headers, block, problem), name, limits)
    except Exception as error:
        yield Damage(name, offset, f"ARC record cannot be read ({_one_line(error)})")


def _arc_record(record: Any, limit: int) -> tuple[dict[str, str], bytes, str]:
    fields = {key.lower(): value for key, value in record.rec_headers.headers}
    headers = {
        "warc-target-uri": fields.get("uri", ""),
        "warc-date": fields.get("archive-date", ""),
        "content-type": fields.get("content-type", ""),
    }
    pieces, held = [], 0
    while held < limit and (piece := record.raw_stream.read(min(64 << 10, limit - held))):
        pieces.append(piece)
        held += len(piece)
    # One byte more shows that there was more.
    problem = cut_problem(held + len(record.raw_stream.read(1)), held)
    return headers, b"".join(pieces), problem


def _read_wacz(file: BinaryIO, name: str, share: Share, limits: ReadLimits) -> Iterator[Page | Damage]:
    """WARC files in a zip; `warc_file` becomes `x.wacz#archive/y.warc.gz`, offsets are in that member."""
    file.seek(0)
    try:
        archive = zipfile.ZipFile(file)
        members = sorted(entry for entry in archive.namelist() if entry.startswith("archive/") and entry[-1] != "/")
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        yield Damage(name, 0, f"zip directory cannot be read ({_one_line(error)})")
        return
    if not members:
        yield Damage(name, 0, "zip without archive/ members: no WACZ")
    for entry in members:
        inner = f"{name}#{entry}"
        try:
            with archive.open(entry) as member:
                yield from _read_warc(member, member.peek(512)[:512], None, inner, share, limits)  # type: ignore
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
            yield Damage(inner, 0, f"zip member cannot be read ({_one_line(error)})")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
