"""The contract: Arrow schemas of a page, a document and a ledger row, and how ids are made.

Ids come from content, never from position, so they are the same for any number of partitions, any order of
input files and any retry. Column names are a promise to those who read `documents/` and `ledger/`.
"""

from __future__ import annotations

import hashlib

import pyarrow as pa

# The steps that can end a record, in the order in which they run (dots.llm1 report, Appendix C.1 and C.2).
STAGES = ("url", "http", "extraction", "language", "identity", "lines", "rules", "fuzzy")

KEPT, DROPPED, QUARANTINED = "kept", "dropped", "quarantined"

# Where a record was found: the first columns of every table of pages.
WHERE = [
    pa.field("doc_id", pa.string(), nullable=False),
    pa.field("record_id", pa.string(), nullable=False),
    pa.field("url", pa.string(), nullable=False),
    pa.field("warc_file", pa.string(), nullable=False),
    pa.field("warc_offset", pa.int64(), nullable=False),
    # Tells apart the records of one compressed stream, which all begin at the offset of the stream.
    pa.field("warc_index", pa.int32(), nullable=False),
    pa.field("date", pa.string(), nullable=False),
    # The crawl of many that delivered the record, "" where they are not told apart; earlier ones sort first.
    pa.field("dump", pa.string(), nullable=False),
]

# What names one delivery of a record: a record can be delivered twice, with one id.
PLACE = ("doc_id", "warc_file", "warc_offset", "warc_index")

# By what the survivor of duplicates can be chosen, besides its date and length (dedup/survivors.py).
STANDING = [
    # What the site rules hold the site to be worth: a curated source has more than 0.
    pa.field("site_rank", pa.int32(), nullable=False),
    # The share of the extracted text that stands in lines which end as a sentence does.
    pa.field("quality", pa.float64()),
]

_FATE = [
    pa.field("stage", pa.string()),
    pa.field("rule", pa.string()),
    pa.field("value", pa.float64()),
    pa.field("threshold", pa.float64()),
    pa.field("detail", pa.string()),
]

# What was wrong with the stored response, though it could be read: a bad chunk size, a body that was cut.
_PROBLEM = pa.field("problem", pa.string())

MEASURES = pa.map_(pa.string(), pa.float64())

# One row a response record, as the preparation stage leaves it: either a fate, or a text that goes on.
PREPARED = pa.schema(
    [
        *WHERE,
        pa.field("decision", pa.string()),
        *_FATE,
        _PROBLEM,
        pa.field("language", pa.string()),
        pa.field("language_score", pa.float64()),
        *STANDING,
        pa.field("text", pa.string()),
        pa.field("text_md5", pa.string()),
        pa.field("measures", MEASURES),
    ]
)

# One row a kept document.
DOCUMENT = pa.schema(
    [
        *WHERE,
        pa.field("text", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("language_score", pa.float64(), nullable=False),
        *STANDING,
    ]
)

# One row a response record, whatever became of it.
LEDGER = pa.schema(
    [
        *WHERE,
        pa.field("decision", pa.string(), nullable=False),
        *_FATE,
        _PROBLEM,
        pa.field("duplicate_of", pa.string()),
        pa.field("similarity", pa.float64()),
        pa.field("copy_of", pa.string()),
        pa.field("text_md5", pa.string()),
        pa.field("language", pa.string()),
        pa.field("language_score", pa.float64()),
        *STANDING,
        pa.field("measures", MEASURES),
    ]
)

# One row a line that line deduplication took out of a document; `position` counts the lines of the extracted text.
REMOVED_LINE = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("line", pa.string(), nullable=False),
    ]
)

# One row a pair of near-duplicates: `doc_id` comes after `near_to` in the order in which survivors are chosen.
NEAR = pa.schema(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("near_to", pa.string(), nullable=False),
        pa.field("similarity", pa.float64(), nullable=False),
    ]
)


def doc_id(record_id: str, url: str, date: str, payload_digest: str, *headers: str) -> str:
    """A record's id: 32 hexadecimal digits of BLAKE2b over all that decides its text.

    headers: what the response said of its body: status, media type, charset. Two records with one id are one
    record that was delivered twice, and have one text.
    """
    parts = "\x1f".join((record_id, url, date, payload_digest, *headers))
    return hashlib.blake2b(parts.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
