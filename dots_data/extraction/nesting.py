"""How deep a page's elements nest, bounded from above in one compiled pass over its bytes, before any parser sees them.

The pass is a tokeniser of the HTML standard (13.2.5) and a coarse model of its tree construction (13.2.6). The model
keeps a stack that holds every element the parser may have open, and of each whether the parser surely has it open. A
tag closes what it closes only where that is sure; where it is not, the elements that may have gone stay on the stack.
So the stack can be deeper than the parser's, by what a page leaves open, but not shallower by what a page hides. Where
the model cannot tell even how the page goes on (frames, `annotation-xml`), every start tag that remains is counted.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

_MASK = (1 << 64) - 1


def _hash(name: str) -> int:
    """FNV-1a, 64 bits, as a signed number."""
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = ((value ^ byte) * 0x100000001B3) & _MASK
    return value - (1 << 64) if value >> 63 else value


def _hashes(names: str) -> list[int]:
    return [_hash(name) for name in names.split()]


_HASH_START, _HASH_PRIME = _hash(""), 0x100000001B3

# What the standard knows of an element, one bit each.
SCOPE, SPECIAL, FORMATTING, VOID, CLOSES_P, RAW, TABLE_PART, BREAKOUT = (1 << k for k in range(8))
IMPLIED, HEADING, MARKER, LIST, DESCRIPTION, HEAD, BLOCK_END = (1 << k for k in range(8, 15))
BUTTON, NO_TEXT_BEFORE, DOCUMENT, TABLE_SCOPE, RUBY, SECTION, ITEM_BARRIER = (1 << k for k in range(16, 23))
# Of an entry on the stack: in SVG or MathML; an element there that holds HTML, or text of MathML.
SVG, MATH, HOLDS_HTML, HOLDS_TEXT = (1 << k for k in range(23, 27))
FOREIGN = SVG | MATH

_BLOCKS = (
    "address article aside blockquote center details dialog dir div dl fieldset figcaption figure footer header "
    "hgroup main menu nav ol search section summary ul listing pre"
)
_HEADINGS = "h1 h2 h3 h4 h5 h6"
_TABLE_PARTS = "caption col colgroup tbody td tfoot th thead tr"
_KINDS = {
    SCOPE: "applet caption html table td th marquee object select template",
    SPECIAL: f"{_BLOCKS} {_HEADINGS} {_TABLE_PARTS} applet area base basefont bgsound body br button dd dt embed form "
    "frame frameset head hr html iframe img input keygen li link marquee meta noembed noframes noscript object p param "
    "plaintext script select source style table template textarea title track wbr xmp",
    FORMATTING: "a b big code em font i nobr s small strike strong tt u",
    VOID: "area base basefont bgsound br embed frame hr image img input keygen link meta param source track wbr",
    CLOSES_P: f"{_BLOCKS} {_HEADINGS} p li dd dt hr xmp plaintext",
    RAW: "script style title textarea xmp iframe noembed noframes",
    TABLE_PART: _TABLE_PARTS,
    BREAKOUT: "b big blockquote body br center code dd div dl dt em embed h1 h2 h3 h4 h5 h6 head hr i img li listing "
    "menu meta nobr ol p pre ruby s small span strong strike sub sup table tt u ul var",
    IMPLIED: "dd dt li optgroup option p rb rp rt rtc",
    HEADING: _HEADINGS,
    MARKER: "applet marquee object template td th caption",
    LIST: "ol ul",
    DESCRIPTION: "dd dt",
    HEAD: "base basefont bgsound link meta title noscript noframes style script template head html",
    BLOCK_END: f"{_BLOCKS} button select applet marquee object",
    BUTTON: "button",
    NO_TEXT_BEFORE: f"{_BLOCKS} {_HEADINGS} {_TABLE_PARTS} p li dd dt hr plaintext form base basefont bgsound link "
    "meta title noframes style script template textarea iframe noembed table param source track rb rp rt rtc",
    DOCUMENT: "html head body",
    TABLE_SCOPE: "table td th caption template",
    RUBY: "rb rp rt rtc",
    SECTION: "tbody thead tfoot",
}
_KNOWN: dict[int, int] = {}
for _bit, _words in _KINDS.items():
    for _word in _words.split():
        _KNOWN[_hash(_word)] = _KNOWN.get(_hash(_word), 0) | _bit
for _name_hash, _bits in _KNOWN.items():
    # What a list item or a description does not look beyond for one before it to close.
    if _bits & SPECIAL and _name_hash not in map(_hash, ("address", "div", "p")):
        _KNOWN[_name_hash] |= ITEM_BARRIER
_NAMES = np.array(sorted(_KNOWN), np.int64)
_FLAGS = np.array([_KNOWN[name] for name in sorted(_KNOWN)], np.int64)

_A, _NOBR, _P, _BR, _LI, _DD, _DT, _FONT, _FORM, _BUTTON, _HR = _hashes("a nobr p br li dd dt font form button hr")
_TABLE, _TEMPLATE, _TBODY, _TR, _TD, _TH, _COL = _hashes("table template tbody tr td th col")
_CAPTION, _COLGROUP = _hashes("caption colgroup")
_SELECT, _OPTION, _OPTGROUP, _INPUT = _hashes("select option optgroup input")
_SVG, _MATH, _ANNOTATION, _MGLYPH, _MALIGNMARK = _hashes("svg math annotation-xml mglyph malignmark")
_SCRIPT, _PLAINTEXT, _NOSCRIPT, _FRAMESET = _hashes("script plaintext noscript frameset")
_HTML_IN_SVG = np.array(_hashes("foreignobject desc title"), np.int64)
_TEXT_IN_MATH = np.array(_hashes("mi mo mn ms mtext"), np.int64)

_LONGEST_RAW = len("textarea")
_COMMENT, _SECTION = np.frombuffer(b"!--", np.uint8), np.frombuffer(b"![CDATA[", np.uint8)

# Columns of an entry on the stack; the last: of formatting, a hash of the whole tag; of a marker, the base before it.
_NAME, _KIND, _SURE, _TAG = range(4)
# Of the state: entries, most entries at once, formatting to be opened again, from where on that is inside the last
# marker, whether text was read since the last tag, whether a body has begun, whether the model has lost its way.
_OPEN, _MOST, _PENDING, _BASE, _TEXT, _IN_BODY, _LOST = range(7)
_STATE = 7
# The standard opens no more than three equal formatting elements again.
_EQUAL = 3
# So many of the last are compared, to stay linear: of more, equal ones may be counted too often.
_COMPARED = 32


class Measures(NamedTuple):
    """Of a page: elements open at once (counted up to one above what is asked), characters of the longest tag and
    attributes of the tag that has most.
    """

    depth: int
    longest_tag: int
    attributes: int


@numba.njit(cache=True, nogil=True)
def count(html: Any) -> tuple[int, int]:
    """Characters and `<` of UTF-8 (uint8)."""
    characters, tags = 0, 0
    for byte in html:
        characters += (byte & 0xC0) != 0x80
        tags += byte == 60
    return characters, tags


@numba.njit(cache=True, nogil=True)
def _begins(html: Any, at: int, text: Any) -> bool:
    return at + len(text) <= len(html) and bool(np.all(html[at : at + len(text)] == text))


@numba.njit(cache=True, nogil=True)
def _letter(byte: int) -> bool:
    return 97 <= (byte | 32) <= 122


@numba.njit(cache=True, nogil=True)
def _space(byte: int) -> bool:
    return byte == 32 or byte == 10 or byte == 9 or byte == 12 or byte == 13


@numba.njit(cache=True, nogil=True)
def _name(html: Any, at: int) -> tuple[int, Any]:
    """The end of a tag's name, and its hash in lower case."""
    value = np.int64(_HASH_START)
    while at < len(html) and not (_space(html[at]) or html[at] == 47 or html[at] == 62):
        byte = np.int64(html[at])
        value = (value ^ (byte | 32 if 65 <= byte <= 90 else byte)) * np.int64(_HASH_PRIME)
        at += 1
    return at, value


@numba.njit(cache=True, nogil=True)
def _attributes(html: Any, at: int) -> tuple[int, int, bool]:
    """From the end of a tag's name: the index after its `>`, its attributes, whether it ends in `/>`."""
    size, found = len(html), 0
    while at < size:
        if _space(html[at]):
            at += 1
            continue
        if html[at] == 62:
            return at + 1, found, False
        if html[at] == 47:
            at += 1
            if at < size and html[at] == 62:
                return at + 1, found, True
            continue
        found += 1
        at += 1
        while at < size and not (_space(html[at]) or html[at] == 47 or html[at] == 62 or html[at] == 61):
            at += 1
        while at < size and _space(html[at]):
            at += 1
        if at >= size or html[at] != 61:
            continue
        at += 1
        while at < size and _space(html[at]):
            at += 1
        if at < size and (html[at] == 34 or html[at] == 39):
            quote = html[at]
            at += 1
            while at < size and html[at] != quote:
                at += 1
            at += 1
        else:
            while at < size and not (_space(html[at]) or html[at] == 62):
                at += 1
    return size, found, False


@numba.njit(cache=True, nogil=True)
def _characters(html: Any, start: int, end: int) -> int:
    found = 0
    for i in range(start, min(end, len(html))):
        found += (html[i] & 0xC0) != 0x80
    return found


@numba.njit(cache=True, nogil=True)
def _fingerprint(html: Any, start: int, end: int) -> Any:
    value = np.int64(_HASH_START)
    for i in range(start, min(end, len(html))):
        value = (value ^ np.int64(html[i])) * np.int64(_HASH_PRIME)
    return value


@numba.njit(cache=True, nogil=True)
def _after_comment(html: Any, at: int) -> int:
    """The index after a comment whose text begins at `at`; -1 if it never ends."""
    size = len(html)
    if at < size and html[at] == 62:
        return at + 1
    if at + 1 < size and html[at] == 45 and html[at + 1] == 62:
        return at + 2
    for i in range(at, size - 2):
        if html[i] == 45 and html[i + 1] == 45:
            if html[i + 2] == 62:
                return i + 3
            if html[i + 2] == 33 and i + 3 < size and html[i + 3] == 62:
                return i + 4
    return -1


@numba.njit(cache=True, nogil=True)
def _after_byte(html: Any, at: int, byte: int) -> int:
    while at < len(html) and html[at] != byte:
        at += 1
    return min(at + 1, len(html))


@numba.njit(cache=True, nogil=True)
def _after_section(html: Any, at: int) -> int:
    """The index after the `]]>` of a CDATA section, or the length."""
    for i in range(at, len(html) - 2):
        if html[i] == 93 and html[i + 1] == 93 and html[i + 2] == 62:
            return i + 3
    return len(html)


@numba.njit(cache=True, nogil=True)
def _names_tag(html: Any, at: int, name: Any) -> bool:
    """Whether a tag's name that begins at `at` is `name`, one of an element of raw text, and is whole."""
    end, found = _name(html[: at + _LONGEST_RAW + 1], at)
    return found == name and end < len(html) and end <= at + _LONGEST_RAW


@numba.njit(cache=True, nogil=True)
def _raw_end(html: Any, at: int, name: Any) -> int:
    """Where the end tag of an element of raw text stands; the length if it never ends.

    In a script, `<!--` and a second `<script>` hide the next end tag, up to `-->`.
    """
    size, hidden = len(html), 0
    while at < size:
        if hidden > 0 and html[at] == 62 and html[at - 1] == 45 and html[at - 2] == 45:
            hidden = 0
        if html[at] != 60:
            at += 1
            continue
        if at + 1 < size and html[at + 1] == 47:
            if _names_tag(html, at + 2, name):
                if hidden < 2:
                    return at
                hidden = 1
        elif name == _SCRIPT and hidden == 1 and _names_tag(html, at + 1, name):
            hidden = 2
        elif name == _SCRIPT and hidden == 0 and _begins(html, at + 1, _COMMENT):
            hidden = 1
            at += 3
        at += 1
    return size


@numba.njit(cache=True, nogil=True)
def _kind(name: Any) -> Any:
    place = np.searchsorted(_NAMES, name)
    return _FLAGS[place] if place < len(_NAMES) and _NAMES[place] == name else np.int64(0)


@numba.njit(cache=True, nogil=True)
def _push(stack: Any, state: Any, name: Any, kind: Any, sure: bool, tag: Any) -> None:
    if state[_OPEN] < len(stack):
        entry = stack[state[_OPEN]]
        entry[_NAME], entry[_KIND], entry[_SURE], entry[_TAG] = name, kind, sure, tag
        state[_OPEN] += 1
        if kind & MARKER and not kind & FOREIGN:
            entry[_TAG], state[_BASE] = state[_BASE], state[_PENDING]
    state[_MOST] = max(state[_MOST], state[_OPEN] + state[_PENDING])


@numba.njit(cache=True, nogil=True)
def _leaf(state: Any) -> None:
    """An element that holds none stands for a moment."""
    state[_MOST] = max(state[_MOST], state[_OPEN] + state[_PENDING] + 1)


@numba.njit(cache=True, nogil=True)
def _doubt(stack: Any, state: Any, start: int) -> None:
    for i in range(start, state[_OPEN]):
        stack[i, _SURE] = 0


@numba.njit(cache=True, nogil=True)
def _postpone(pending: Any, state: Any, entry: Any) -> None:
    """Note formatting that was closed by something else: text opens it again."""
    equal = 0
    for i in range(max(state[_BASE], state[_PENDING] - _COMPARED), state[_PENDING]):
        equal += pending[i, _TAG] == entry[_TAG]
    if equal < _EQUAL and state[_PENDING] < len(pending):
        pending[state[_PENDING]] = entry
        state[_PENDING] += 1


@numba.njit(cache=True, nogil=True)
def _pop(stack: Any, pending: Any, state: Any, to: int) -> None:
    """Close the entries from `to` on."""
    was = state[_OPEN]
    state[_OPEN] = to
    for i in range(was - 1, to - 1, -1):
        if stack[i, _KIND] & MARKER:
            state[_BASE] = stack[i, _TAG]
    for i in range(to, was):
        if stack[i, _KIND] & FORMATTING:
            _postpone(pending, state, stack[i])


@numba.njit(cache=True, nogil=True)
def _pop_marker(stack: Any, pending: Any, state: Any, to: int) -> None:
    """Close the entries from `to` on, that of a marker: what was opened inside it is not opened again."""
    inside = state[_OPEN] - 1
    while inside > to and not stack[inside, _KIND] & MARKER:
        inside -= 1
    state[_OPEN], state[_PENDING], state[_BASE] = inside, state[_BASE], stack[inside, _TAG]
    _pop(stack, pending, state, to)


@numba.njit(cache=True, nogil=True)
def _close(stack: Any, pending: Any, state: Any, name: Any, alike: Any, barriers: Any) -> bool:
    """Close the topmost element of a name, or of a kind, unless a barrier stands above it; False if surely none does.

    What only may be closed stays, in doubt.
    """
    first, lowest, open_barrier = -1, -1, False
    sure = False
    for i in range(state[_OPEN] - 1, -1, -1):
        kind, is_sure = stack[i, _KIND], stack[i, _SURE] != 0
        if not kind & FOREIGN and (stack[i, _NAME] == name or kind & alike):
            first = i if first < 0 else first
            lowest = i
            if is_sure:
                sure = not open_barrier
                break
        elif kind & barriers or kind & (HOLDS_HTML | HOLDS_TEXT):
            if is_sure:
                break
            open_barrier = True
    if first < 0:
        return False
    if sure or first == state[_OPEN] - 1:
        if sure and stack[first, _KIND] & MARKER and first == lowest:
            _pop_marker(stack, pending, state, first)
        else:
            _pop(stack, pending, state, first)
        if lowest == first:
            return True
    _doubt(stack, state, lowest)
    return True


@numba.njit(cache=True, nogil=True)
def _close_formatting(stack: Any, pending: Any, state: Any, name: Any) -> None:
    """The adoption agency: the formatting element goes, blocks inside it stay open, formatting is opened again."""
    top = -1
    above_is_special = False
    for i in range(state[_OPEN] - 1, -1, -1):
        kind = stack[i, _KIND]
        if stack[i, _NAME] == name and not kind & FOREIGN:
            top = i
            break
        if kind & (SCOPE | HOLDS_HTML | HOLDS_TEXT | MARKER):
            break
        above_is_special |= kind & SPECIAL != 0
    for i in range(state[_PENDING] - 1, state[_BASE] - 1, -1):
        if pending[i, _NAME] == name:
            for j in range(i, state[_PENDING] - 1):
                pending[j] = pending[j + 1]
            state[_PENDING] -= 1
            if top >= 0:
                _doubt(stack, state, top)
            return
    if top < 0 or above_is_special or not stack[top, _SURE]:
        if top == state[_OPEN] - 1 and top >= 0:
            state[_OPEN] -= 1
        elif top >= 0 and stack[top, _SURE]:
            # Its place in the tree stays until what is around it is closed.
            stack[top, _NAME], stack[top, _KIND], stack[top, _SURE] = 0, 0, 0
            for i in range(top + 1, state[_OPEN]):
                if stack[i, _KIND] & SPECIAL and stack[i, _SURE]:
                    break
                stack[i, _SURE] = 0
        else:
            _close(stack, pending, state, name, 0, SPECIAL | SCOPE)
        return
    stack[top, _KIND] = 0
    _pop(stack, pending, state, top)


@numba.njit(cache=True, nogil=True)
def _open_again(stack: Any, pending: Any, state: Any) -> None:
    """What text and inline elements do first: formatting that was closed by something else is opened again."""
    state[_TEXT] = 0
    again, state[_PENDING] = state[_PENDING], state[_BASE]
    for i in range(state[_BASE], again):
        _push(stack, state, pending[i, _NAME], pending[i, _KIND], True, pending[i, _TAG])


@numba.njit(cache=True, nogil=True)
def _close_heading(stack: Any, pending: Any, state: Any) -> None:
    """A heading closes another that holds it directly."""
    if state[_OPEN] and stack[state[_OPEN] - 1, _KIND] & HEADING:
        sure = stack[state[_OPEN] - 1, _SURE]
        state[_OPEN] -= 1
        if not sure and state[_OPEN] and stack[state[_OPEN] - 1, _KIND] & HEADING:
            stack[state[_OPEN] - 1, _SURE] = 0


@numba.njit(cache=True, nogil=True)
def _within(stack: Any, state: Any) -> Any:
    """What holds the next tag: 0 for HTML, SVG, MATH; -1: in doubt."""
    inside = np.int64(-1)
    for i in range(state[_OPEN] - 1, -1, -1):
        kind = stack[i, _KIND]
        this = np.int64(0) if kind & (HOLDS_HTML | HOLDS_TEXT) else kind & FOREIGN
        if inside >= 0 and this != inside:
            return np.int64(-1)
        inside = this
        if stack[i, _SURE]:
            return inside
    return np.int64(0) if inside <= 0 else np.int64(-1)


@numba.njit(cache=True, nogil=True)
def _table(stack: Any, state: Any) -> int:
    """The index of the table whose parts come next, or of a template; -1: neither is open."""
    for i in range(state[_OPEN] - 1, -1, -1):
        if stack[i, _NAME] in (_TABLE, _TEMPLATE) and not stack[i, _KIND] & FOREIGN:
            return i
    return -1


@numba.njit(cache=True, nogil=True)
def _is(stack: Any, state: Any, at: int, kind: Any) -> bool:
    """Whether the element at `at` is surely open and of a kind."""
    return bool(at < state[_OPEN] and stack[at, _SURE] != 0 and stack[at, _KIND] & kind != 0)


@numba.njit(cache=True, nogil=True)
def _cut(stack: Any, pending: Any, state: Any, to: int, cell: int) -> None:
    """Close the entries from `to` on, and with them a cell or caption if one stands at `cell`."""
    if _is(stack, state, cell, MARKER) and cell >= to:
        _pop_marker(stack, pending, state, to)
    elif to < state[_OPEN]:
        _pop(stack, pending, state, to)


@numba.njit(cache=True, nogil=True)
def _cell(stack: Any, state: Any, table: int) -> int:
    """Where the open cell or caption of a table stands: after its section and row, if at all."""
    at = table + 1
    if _is(stack, state, at, SECTION):
        at += 1
        if at < state[_OPEN] and stack[at, _NAME] == _TR:
            at += 1
    return at


@numba.njit(cache=True, nogil=True)
def _start_part(stack: Any, pending: Any, state: Any, name: Any, kind: Any) -> None:
    """A part of a table closes what is open in the table up to its own place; outside of tables it is ignored."""
    table = _table(stack, state)
    if table < 0:
        return
    if stack[table, _NAME] == _TEMPLATE or not stack[table, _SURE]:
        _doubt(stack, state, table + (stack[table, _NAME] == _TEMPLATE))
        _push(stack, state, name, kind, False, 0)
        return
    cell, place = _cell(stack, state, table), table + 1
    in_section = _is(stack, state, place, SECTION)
    if name in (_TR, _TD, _TH):
        place += in_section
        if name != _TR and in_section:
            place += place < state[_OPEN] and stack[place, _SURE] and stack[place, _NAME] == _TR
    _cut(stack, pending, state, place, cell)
    if name in (_TR, _TD, _TH):
        if place == table + 1:
            _push(stack, state, _TBODY, _kind(_TBODY), True, 0)
            place += 1
        if name != _TR and place == table + 2:
            _push(stack, state, _TR, _kind(_TR), True, 0)
    if name == _COL:
        _push(stack, state, _COLGROUP, _kind(_COLGROUP), False, 0)
        _leaf(state)
    else:
        _push(stack, state, name, kind, name != _COLGROUP, 0)


@numba.njit(cache=True, nogil=True)
def _end_part(stack: Any, pending: Any, state: Any, name: Any) -> None:
    """The end tag of a table's part closes it and what is in it, if it is open in the innermost table."""
    table = _table(stack, state)
    if table < 0:
        return
    if stack[table, _NAME] == _TEMPLATE or not stack[table, _SURE]:
        _doubt(stack, state, table + (stack[table, _NAME] == _TEMPLATE))
        return
    for place in range(table + 1, min(table + 4, state[_OPEN])):
        if stack[place, _NAME] == name and stack[place, _KIND] & TABLE_PART:
            if stack[place, _SURE]:
                _cut(stack, pending, state, place, _cell(stack, state, table))
            else:
                _doubt(stack, state, place)
            return


@numba.njit(cache=True, nogil=True)
def _end_table(stack: Any, pending: Any, state: Any) -> None:
    table = _table(stack, state)
    if table < 0 or stack[table, _NAME] == _TEMPLATE:
        return
    if stack[table, _SURE]:
        _cut(stack, pending, state, table, _cell(stack, state, table))
    else:
        _close(stack, pending, state, np.int64(_TABLE), 0, 0)


@numba.njit(cache=True, nogil=True)
def _start_table(stack: Any, pending: Any, state: Any, kind: Any) -> None:
    """A table directly in another closes that. Whether it closes a paragraph depends on the doctype."""
    _doubt_paragraph(stack, state)
    for i in range(state[_OPEN] - 1, -1, -1):
        if stack[i, _KIND] & TABLE_SCOPE and not stack[i, _KIND] & FOREIGN:
            if stack[i, _NAME] == _TABLE:
                if stack[i, _SURE]:
                    _pop(stack, pending, state, i)
                else:
                    _doubt(stack, state, i)
            elif not stack[i, _SURE]:
                table = _table(stack, state)
                _doubt(stack, state, max(table, 0))
            break
    _push(stack, state, _TABLE, kind, True, 0)


@numba.njit(cache=True, nogil=True)
def _find(stack: Any, state: Any, name: Any, barriers: Any) -> int:
    """The index of the lowest element of a name that may be the one in scope; -1: surely none is."""
    lowest = -1
    for i in range(state[_OPEN] - 1, -1, -1):
        if stack[i, _NAME] == name and not stack[i, _KIND] & FOREIGN:
            lowest = i
            if stack[i, _SURE]:
                break
        elif stack[i, _KIND] & (barriers | HOLDS_HTML | HOLDS_TEXT) and stack[i, _SURE]:
            break
    return lowest


@numba.njit(cache=True, nogil=True)
def _doubt_paragraph(stack: Any, state: Any) -> None:
    """What may close a paragraph leaves it in doubt."""
    paragraph = _find(stack, state, _P, SCOPE | BUTTON)
    if paragraph >= 0:
        _doubt(stack, state, paragraph)


@numba.njit(cache=True, nogil=True)
def _start_html(stack: Any, pending: Any, state: Any, name: Any, kind: Any, tag: Any, closed: bool) -> None:
    """A start tag where HTML is read."""
    if kind & DOCUMENT:
        return
    if not kind & HEAD:
        state[_IN_BODY] = 1
    if kind & TABLE_PART:
        _start_part(stack, pending, state, name, kind)
        return
    if name == _TABLE:
        _start_table(stack, pending, state, kind)
        return
    if name == _LI:
        _close(stack, pending, state, _LI, 0, ITEM_BARRIER)
    elif kind & DESCRIPTION:
        _close(stack, pending, state, 0, DESCRIPTION, ITEM_BARRIER)
    if kind & CLOSES_P:
        _close(stack, pending, state, _P, 0, SCOPE | BUTTON)
    if kind & HEADING:
        _close_heading(stack, pending, state)
    elif name == _BUTTON:
        _close(stack, pending, state, _BUTTON, 0, SCOPE)
    elif name in (_OPTION, _OPTGROUP, _HR):
        if name != _HR and state[_OPEN] and stack[state[_OPEN] - 1, _NAME] == _OPTION:
            state[_OPEN] -= 1
        if _find(stack, state, _SELECT, SCOPE) >= 0:
            _doubt_implied(stack, state)
    elif kind & RUBY:
        _doubt_implied(stack, state)
    elif name == _A or (name == _NOBR and _find(stack, state, _NOBR, SCOPE) >= 0):
        _close_formatting(stack, pending, state, name)
    elif name == _INPUT:
        _close(stack, pending, state, _SELECT, 0, SCOPE)
    elif name == _FORM:
        _doubt_paragraph(stack, state)
    if name == _SELECT and _close(stack, pending, state, _SELECT, 0, SCOPE):
        # Either this one closes another, or it is open.
        _push(stack, state, name, kind, False, 0)
        return
    if not kind & NO_TEXT_BEFORE:
        _open_again(stack, pending, state)
    if kind & (VOID | RAW):
        _leaf(state)
    elif name in (_SVG, _MATH):
        if closed:
            _leaf(state)
        else:
            _push(stack, state, name, SVG if name == _SVG else MATH, True, 0)
    else:
        # A second form is ignored, and so is a noscript in the head once it holds what no head does.
        _push(stack, state, name, kind, name != _FORM and (name != _NOSCRIPT or state[_IN_BODY] != 0), tag)


@numba.njit(cache=True, nogil=True)
def _doubt_implied(stack: Any, state: Any) -> None:
    i = state[_OPEN] - 1
    while i >= 0 and stack[i, _KIND] & IMPLIED:
        stack[i, _SURE] = 0
        i -= 1


@numba.njit(cache=True, nogil=True)
def _end_html(stack: Any, pending: Any, state: Any, name: Any, kind: Any) -> None:
    """An end tag where HTML is read."""
    if name in (_P, _BR):
        _leaf(state)
    if kind & DOCUMENT:
        return
    if name == _P:
        _close(stack, pending, state, name, 0, SCOPE | BUTTON)
    elif kind & FORMATTING:
        _close_formatting(stack, pending, state, name)
    elif kind & HEADING:
        _close(stack, pending, state, 0, HEADING, SCOPE)
    elif name == _LI:
        _close(stack, pending, state, name, 0, SCOPE | LIST)
    elif kind & (BLOCK_END | DESCRIPTION):
        _close(stack, pending, state, name, 0, SCOPE)
    elif name == _TEMPLATE:
        _close(stack, pending, state, name, 0, 0)
    elif name == _TABLE:
        _end_table(stack, pending, state)
    elif kind & TABLE_PART:
        _end_part(stack, pending, state, name)
    elif name == _FORM:
        if state[_OPEN] and stack[state[_OPEN] - 1, _NAME] == _FORM:
            state[_OPEN] -= 1
        _doubt_implied(stack, state)
    else:
        _close(stack, pending, state, name, 0, SPECIAL | SCOPE)


@numba.njit(cache=True, nogil=True)
def _leave_foreign(stack: Any, state: Any) -> None:
    """Close SVG and MathML down to what holds HTML."""
    while state[_OPEN] and stack[state[_OPEN] - 1, _KIND] & FOREIGN:
        if stack[state[_OPEN] - 1, _KIND] & (HOLDS_HTML | HOLDS_TEXT):
            return
        if not stack[state[_OPEN] - 1, _SURE]:
            state[_LOST] = 1
        state[_OPEN] -= 1


@numba.njit(cache=True, nogil=True)
def _start_foreign(stack: Any, state: Any, name: Any, inside: Any, closed: bool, attributes: int) -> None:
    """A start tag in SVG or MathML."""
    if name == _ANNOTATION and attributes:
        # Its encoding tells what it holds.
        state[_LOST] = 1
    if closed:
        _leaf(state)
        return
    kind = inside
    if name == _SVG and stack[state[_OPEN] - 1, _NAME] == _ANNOTATION:
        kind = np.int64(SVG)
    if inside == SVG and np.any(name == _HTML_IN_SVG):
        kind |= HOLDS_HTML
    elif inside == MATH and np.any(name == _TEXT_IN_MATH):
        kind |= HOLDS_TEXT
    _push(stack, state, name, kind, True, 0)


@numba.njit(cache=True, nogil=True)
def _end_foreign(stack: Any, state: Any, name: Any) -> bool:
    """Close an element of SVG or MathML, if one of this name is open above all HTML."""
    for i in range(state[_OPEN] - 1, -1, -1):
        if not stack[i, _KIND] & FOREIGN:
            return False
        if not stack[i, _SURE]:
            state[_LOST] = 1
        if stack[i, _NAME] == name:
            state[_OPEN] = i
            return True
    return False


@numba.njit(cache=True, nogil=True)
def _tags_from(html: Any, at: int) -> int:
    found = 0
    for i in range(at, len(html) - 1):
        found += html[i] == 60 and _letter(html[i + 1])
    return found


@numba.njit(cache=True, nogil=True)
def _after_other(html: Any, at: int, stack: Any, state: Any) -> int:
    """The index after a declaration, an instruction, a CDATA section, a wrong end tag or a `<` that is text."""
    following = html[at + 1]
    if _begins(html, at + 1, _SECTION):
        inside = _within(stack, state)
        state[_TEXT] = 1
        if inside > 0:
            return _after_section(html, at + 9)
        if inside < 0:
            state[_LOST] = 1
        return _after_byte(html, at + 2, 62)
    if following == 33 or following == 63 or following == 47:
        return _after_byte(html, at + 1 + (following == 47), 62)
    state[_TEXT] = 1
    return at + 1


@numba.njit(cache=True, nogil=True)
def _end(stack: Any, pending: Any, state: Any, name: Any) -> None:
    """An end tag, wherever it stands."""
    foreign = state[_OPEN] > 0 and stack[state[_OPEN] - 1, _KIND] & FOREIGN
    if foreign and _within(stack, state) < 0:
        state[_LOST] = 1
    if foreign and name in (_P, _BR):
        _leave_foreign(stack, state)
    if not (foreign and _end_foreign(stack, state, name)):
        _end_html(stack, pending, state, name, _kind(name))


@numba.njit(cache=True, nogil=True)
def _start(
    html: Any, stack: Any, pending: Any, state: Any, name: Any, start: int, after: int, attributes: int, closed: bool
) -> int:
    """A start tag, `html[start:after]`, wherever it stands: where the page goes on, after raw text if it begins one."""
    kind, inside = _kind(name), _within(stack, state)
    if state[_OPEN] and stack[state[_OPEN] - 1, _KIND] & HOLDS_TEXT and name in (_MGLYPH, _MALIGNMARK):
        inside = np.int64(MATH)
    if inside < 0 or (inside and name == _FONT and attributes) or name == _FRAMESET:
        # The attributes of a font tell whether it ends SVG; those of a page decide whether it may have frames.
        state[_LOST] = 1
        return after
    if inside and kind & BREAKOUT:
        _leave_foreign(stack, state)
        inside = np.int64(0)
    if inside:
        _start_foreign(stack, state, name, inside, closed, attributes)
        return after
    tag = _fingerprint(html, start, after) if kind & FORMATTING else np.int64(0)
    _start_html(stack, pending, state, name, kind, tag, closed)
    if name == _PLAINTEXT:
        return len(html)
    return _raw_end(html, after, name) if kind & RAW else after


@numba.njit(cache=True, nogil=True)
def scan(html: Any, enough: int) -> tuple[int, int, int]:
    """`measure` of an array of bytes."""
    size, at = len(html), 0
    stack, pending = np.zeros((enough + 2, 4), np.int64), np.zeros((enough + 2, 4), np.int64)
    state = np.zeros(_STATE, np.int64)
    longest, most_attributes, comments_end = 0, 0, True
    while at < size and state[_MOST] <= enough:
        if html[at] != 60 or at + 1 == size:
            state[_TEXT] = 1
            at += 1
            continue
        was_lost, here = state[_LOST], at
        closing = html[at + 1] == 47
        start = at + 1 + closing
        if _begins(html, at + 1, _COMMENT):
            after = _after_comment(html, at + 4) if comments_end else -1
            # A comment that never ends hides nothing, for other parsers; its end is looked for once.
            comments_end = after >= 0
            at = max(at + 4, after)
        elif start == size or not _letter(html[start]):
            at = _after_other(html, at, stack, state)
        else:
            end, name = _name(html, start)
            at, attributes, closed = _attributes(html, end)
            most_attributes = max(most_attributes, attributes)
            if at - start > longest:
                longest = max(longest, _characters(html, end, at - 1), _characters(html, start, end))
            if state[_LOST]:
                at = _raw_end(html, at, name) if _kind(name) & RAW and not closing else at
                continue
            if state[_TEXT]:
                _open_again(stack, pending, state)
            if closing:
                _end(stack, pending, state, name)
            else:
                at = _start(html, stack, pending, state, name, start, at, attributes, closed)
        if state[_LOST] > was_lost:
            state[_MOST] = max(state[_MOST], state[_OPEN] + state[_PENDING] + _tags_from(html, here))
    return min(state[_MOST], enough + 1), longest, most_attributes


def measure(html: bytes, enough: int) -> Measures:
    """Of a page in UTF-8: its measures, in linear time on any input. Elements are counted up to one above `enough`,
    and no tag is measured after so many.
    """
    return Measures(*map(int, scan(np.frombuffer(html, np.uint8), enough)))
