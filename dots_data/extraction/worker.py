"""The process in which pages are extracted: `python -m dots_data.extraction.worker LIMITS ENGINE`, the limits in JSON.

Requests on standard input: three 32-bit lengths (big-endian), then a page, its URL and, in JSON, selectors that are
applied to it first, in UTF-8. Answers on standard output: a status byte, a 32-bit length and the number of elements
that selectors removed, then text or reason in UTF-8. Ends at the end of its input, so it never outlives its parent by
more than one page.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

from dots_data.extraction.limits import ExtractionLimits, ParsedTooLargeError, enforce
from dots_data.extraction.selectors import Selectors, prune

REQUEST = struct.Struct(">III")
ANSWER = struct.Struct(">BII")
TEXT, FAILED, NO_MEMORY, OVER = range(4)
PAGES_BETWEEN_FORGETTING = 50


class Request(NamedTuple):
    """A page, its URL, and what is taken out of it first."""

    page: str
    url: str | None
    selectors: Selectors


def pack(page: str | bytes, url: str | None, selectors: Selectors) -> bytes:
    """A request as it is sent; the page as text, or its UTF-8."""
    parts = [page, url or "", json.dumps(dataclasses.asdict(selectors))]
    encoded = [part if isinstance(part, bytes) else part.encode("utf-8", "replace") for part in parts]
    return REQUEST.pack(*map(len, encoded)) + b"".join(encoded)


def main(arguments: list[str]) -> None:
    """Answer requests until the input ends."""
    enforce(limits := ExtractionLimits(**json.loads(arguments[0])))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # What the engine prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    extract, forget = _engine(arguments[1])
    extract(prune("<html><body><p>warm</p></body></html>", Selectors("p"))[0], None)
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    pages = 0
    while (request := _read_request(sys.stdin.buffer)) is not None:
        _allow_cpu(limits.cpu_seconds)
        status, answer, removed = _answer(extract, request, limits)
        payload = answer.encode("utf-8", "replace")
        answers.write(ANSWER.pack(status, len(payload), removed) + payload)
        answers.flush()
        pages += 1
        if pages % PAGES_BETWEEN_FORGETTING == 0:
            forget()


def _engine(name: str) -> tuple[Callable[[str, str | None], str], Callable[[], None]]:
    module_name, _, function = name.partition(":")
    module = importlib.import_module(module_name)
    return getattr(module, function), getattr(module, "forget", lambda: None)


def _read_request(stream: BinaryIO) -> Request | None:
    head = stream.read(REQUEST.size)
    if len(head) < REQUEST.size:
        return None
    page, url, selectors = (stream.read(length).decode("utf-8", "replace") for length in REQUEST.unpack(head))
    stored = json.loads(selectors)
    return Request(page, url or None, Selectors(stored["keep"], tuple(stored["remove"])))


def _allow_cpu(seconds: int) -> None:
    """The soft limit counts whole seconds of the process's life: it strikes up to one second late."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + seconds + 1, hard))


def _answer(
    extract: Callable[[str, str | None], str], request: Request, limits: ExtractionLimits
) -> tuple[int, str, int]:
    """Status, payload, and how many elements selectors removed."""
    try:
        page, removed = prune(request.page, request.selectors)
        # The page was judged as it came: what a parser makes of it can be far more.
        for limit, value in (("max_chars", len(page)), ("max_tags", page.count("<"))):
            if page is not request.page and value > getattr(limits, limit):
                return OVER, f"{limit} {value}", removed
        return TEXT, extract(page, request.url), removed
    except MemoryError:
        return NO_MEMORY, "", 0
    except ParsedTooLargeError as error:
        return OVER, f"{error.limit} {error.value}", 0
    except Exception as error:
        return FAILED, type(error).__name__, 0


if __name__ == "__main__":
    main(sys.argv[1:])
