"""What a page may cost: deterministic limits, checked before anything parses it, on what a parser makes of it, and
those of the sandbox.
"""

from __future__ import annotations

from dataclasses import dataclass

from dots_data.judge import Verdict

STAGE = "extraction"


@dataclass(frozen=True)
class ExtractionLimits:
    """Limits of one page.

    `max_chars`, `max_tags` (every `<` counts), `max_tag_chars` (of one tag's name or attributes), `max_attributes` (of
    one tag) and `max_depth` (elements within each other, those of the page's body) are judged before parsing.
    `max_parsed_bytes` (UTF-8) and `max_parsed_tags` hold for a page as its parser understood it: unclosed formatting is
    repeated in every paragraph, so that some kilobytes can become some gigabytes. `cpu_seconds`, `memory_bytes`
    (address space) and `wall_seconds` bound the process that extracts: the last resort, for what no limit foresaw.
    """

    max_chars: int = 8_000_000
    max_tags: int = 200_000
    max_depth: int = 500
    max_attributes: int = 5_000
    max_tag_chars: int = 2_000_000
    max_parsed_bytes: int = 64_000_000
    max_parsed_tags: int = 1_000_000
    cpu_seconds: int = 30
    wall_seconds: int = 300
    memory_bytes: int = 2 << 30


class ParsedTooLargeError(ValueError):
    """A page that exceeds a limit once it is parsed.

    limit: the name of the field of ExtractionLimits; value: what was measured.
    """

    def __init__(self, limit: str, value: int) -> None:
        super().__init__(f"{limit}: {value:,}")
        self.limit, self.value = limit, value


_in_force = ExtractionLimits()


def enforce(limits: ExtractionLimits) -> None:
    """Let the engines of this process hold to `limits` where no sandbox can: in what a parser makes of a page."""
    global _in_force
    _in_force = limits


def in_force() -> ExtractionLimits:
    """The limits that the engines of this process hold to: the defaults, unless `enforce` was called."""
    return _in_force


def check_limits(html: str | bytes, limits: ExtractionLimits) -> Verdict | None:
    """The first limit that a page (bytes: UTF-8, or nearly) exceeds, or None. Never raises; in linear time."""
    from dots_data.extraction import nesting

    page = html.encode("utf-8", "replace") if isinstance(html, str) else html
    chars, tags = nesting.count(page)
    for limit, value in (("max_chars", chars), ("max_tags", tags)):
        if value > getattr(limits, limit):
            return _over(limit, value, limits)
    found = nesting.measure(page, limits.max_depth)
    measured = {"max_tag_chars": found.longest_tag, "max_attributes": found.attributes, "max_depth": found.depth}
    exceeded = (limit for limit, value in measured.items() if value > getattr(limits, limit))
    return next((_over(limit, measured[limit], limits) for limit in exceeded), None)


def _over(limit: str, value: int, limits: ExtractionLimits) -> Verdict:
    threshold = float(getattr(limits, limit))
    return Verdict(STAGE, f"extraction.{limit}", float(value), threshold, decision="quarantined")
