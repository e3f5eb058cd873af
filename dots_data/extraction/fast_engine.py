"""The fast engine: a page's lines, scored one by one by a small learned model, and those that are main text.

lexbor parses, its serialised tree is scanned into units (scan.py), features (features.py) go through the model
(model.py), and the good units become lines again: paragraphs, list items, headings, rows of tables, code.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dots_data.extraction import model as models
from dots_data.extraction import scan as s
from dots_data.extraction.features import features, groupings
from dots_data.extraction.limits import ParsedTooLargeError, in_force
from dots_data.extraction.scan import Scan, scan_html
from dots_data.extraction.structured import longer_of

# A repeated line this long is a copy of the first; shorter ones may well stand twice.
_COPY_LENGTH = 40
_LONGEST_ROW = 400


class Line(NamedTuple):
    """A line of a page: its text, the probability that it is main text, and whether it is kept."""

    text: str
    score: float
    kept: bool


def extract(html: str, url: str | None = None) -> str:
    """The page's main text, a line each paragraph, item, heading and table row; "" where there is none.

    Raises ParsedTooLargeError.
    """
    return text_of(html, *score(html), models.load().limits.threshold)


def lines(html: str) -> list[Line]:
    """Every line of the page with its score, in order."""
    scanned, scores = score(html)
    kept = keep(scanned, scores, models.load().limits.threshold)
    return [
        Line(text, float(score), bool(good)) for text, score, good in zip(texts(scanned), scores, kept, strict=True)
    ]


def extract_with_scores(html: str, url: str | None = None) -> str:
    """Every line of the page after its score and a sign, tab-separated: `0.973`, `+` where kept, the text."""
    return "\n".join(
        f"{line.score:.3f}\t{'+' if line.kept else '-'}\t{' '.join(line.text.split())}" for line in lines(html)
    )


def parse(html: str) -> bytes:
    """The page as a parser understood it, serialised: UTF-8. Raises ParsedTooLargeError and MemoryError."""
    from selectolax.lexbor import LexborHTMLParser, SelectolaxError

    try:
        text = LexborHTMLParser(html.encode("utf-8", "replace")).html or ""
    except SelectolaxError as error:
        # HTML knows no page that cannot be parsed: what the parser can lack is memory.
        raise MemoryError(str(error)) from error
    serialised = text.encode("utf-8", "replace")
    # Before anything is allocated for each tag.
    limits, tags = in_force(), serialised.count(b"<")
    if len(serialised) > limits.max_parsed_bytes:
        raise ParsedTooLargeError("max_parsed_bytes", len(serialised))
    if tags > limits.max_parsed_tags:
        raise ParsedTooLargeError("max_parsed_tags", tags)
    return serialised


def score(html: str) -> tuple[Scan, NDArray[np.float32]]:
    """The units of a page and their scores."""
    serialised = parse(html)
    scanned = scan_html(serialised)
    return scanned, models.load().score(features(scanned, len(serialised)), groupings(scanned))


def keep(scanned: Scan, scores: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """Which units are main text: those whose score reaches the model's threshold, long ones once."""
    kept = scores >= threshold
    units, seen = scanned.units, set()
    for i in np.flatnonzero(kept & (units[:, s.CHARS] >= _COPY_LENGTH)):
        key = (int(units[i, s.HASH]), int(units[i, s.CHARS]))
        if key in seen:
            kept[i] = False
        seen.add(key)
    return kept


def text_of(html: str, scanned: Scan, scores: NDArray[np.float32], threshold: float) -> str:
    """The text of a page whose units are scored."""
    return longer_of(assemble(scanned, keep(scanned, scores, threshold)), html)


def texts(scanned: Scan) -> list[str]:
    """The text of every unit."""
    whole = scanned.text.tobytes()
    spans = scanned.units[:, [s.START, s.END]].tolist()
    return [whole[start:end].decode("utf-8", "replace") for start, end in spans]


def assemble(scanned: Scan, kept: NDArray[np.bool_]) -> str:
    """The kept units as text: cells of a row on one line, list items marked, everything else a line of its own."""
    chosen = np.flatnonzero(kept)
    if not len(chosen):
        return ""
    units = scanned.units[chosen]
    whole = scanned.text.tobytes()
    elements = scanned.elements[units[:, s.ELEMENT]]
    out: list[str] = []
    last_row, last_cell, last_item, row_length = -1, -1, -1, 0
    columns = (
        units[:, s.START].tolist(),
        units[:, s.END].tolist(),
        elements[:, s.ROW].tolist(),
        elements[:, s.CELL].tolist(),
        elements[:, s.ITEM].tolist(),
    )
    for start, end, row, cell, item in zip(*columns, strict=True):
        text = whole[start:end].decode("utf-8", "replace")
        row_length = row_length + len(text) if row == last_row and row >= 0 else len(text)
        if row >= 0 and row == last_row and cell != last_cell and row_length <= _LONGEST_ROW:
            out[-1] += " | " + text
        elif item >= 0 and item != last_item and item > row:
            out.append("- " + text)
        else:
            out.append(text)
        last_row, last_cell, last_item = row, cell, item
    return "\n".join(out)
