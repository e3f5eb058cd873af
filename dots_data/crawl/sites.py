"""Site rules: hand cleaning of major domains (dots.llm1 report, Appendix C.2: 1,000 sites hold 60% of its data).

One YAML file, one entry a host; an entry holds for the host and all below it, and the nearest entry counts.

    example.org:
      keep: "article.main"                  # CSS selector: of a page only these elements are read (all, if none match)
      remove: ["nav", ".related, .ads"]     # CSS selectors: these elements go before the text is extracted
      remove_lines: ["^Share this", "©"]    # lines of the text in which one of these is found go
      drop_urls: ["^/tag/", "^/search"]     # pages go whose path and query one of these matches
      drop: false                           # the whole site goes
      rank: 1                               # of duplicates the survivor is chosen here first (preference `curated`)

`dots sites` ranks the hosts of a run, so that the first thousand can be done, and shows the recurring lines of one.
Patterns are RE2 expressions: linear in the text, whatever a page holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dots_data.crawl.expressions import found_in
from dots_data.crawl.urls import STAGE, checked_host, host_of, parents
from dots_data.extraction.selectors import Selectors, is_selector
from dots_data.judge import Verdict
from dots_data.typed_yaml import ConfigError, build, read_yaml


@dataclass(frozen=True)
class SitesConfig:
    """file: the site rules; None: no site has any."""

    file: str | None = None


@dataclass(frozen=True)
class SiteRules:
    """What is done to the pages of one site; see the module docstring."""

    keep: str | None = None
    remove: tuple[str, ...] = ()
    remove_lines: tuple[str, ...] = ()
    drop_urls: tuple[str, ...] = ()
    drop: bool = False
    rank: int = 0

    @property
    def selectors(self) -> Selectors:
        """What is done to the elements of a page, in the sandbox."""
        return Selectors(self.keep, self.remove)


class Sites:
    """The site rules by host.

    Raises:
        ConfigError: the file cannot be read, or has a host that is none or is there twice, an unknown key, a selector
            that is none, a pattern that RE2 does not know; the message names host and key.
    """

    def __init__(self, config: SitesConfig) -> None:
        entries: Mapping[str, Any] = read_yaml(config.file) if config.file else {}
        self._rules: dict[str, SiteRules] = {}
        for host, values in entries.items():
            where = f"{config.file}: {host}"
            if not isinstance(values, dict):
                raise ConfigError(f"{where}: expected keys and values")
            rules = build(SiteRules, values, where)
            _check(rules, where)
            key = checked_host(str(host), str(config.file)).removeprefix("www.")
            if key in self._rules:
                raise ConfigError(f"{where}: {key} is there twice")
            self._rules[key] = rules

    def __len__(self) -> int:
        return len(self._rules)

    def of(self, url: str) -> SiteRules | None:
        """The rules of the host, or of the nearest host above it."""
        if not self._rules:
            return None
        host = host_of(url)
        return next((self._rules[parent] for parent in parents(host) if parent in self._rules), None)


def check_url(rules: SiteRules, url: str) -> Verdict | None:
    """Why a site's rules do not want the page, or None."""
    if rules.drop:
        return Verdict(STAGE, "url.site", 1.0, 0.0, "the whole site")
    path = "/" + url.split("://", 1)[-1].partition("/")[2]
    for pattern in rules.drop_urls:
        if found_in(path, pattern):
            return Verdict(STAGE, "url.site", 1.0, 0.0, pattern)
    return None


def remove_lines(text: str, rules: SiteRules) -> tuple[str, int]:
    """The text without the lines in which a pattern is found, and how many went."""
    lines = text.split("\n")
    if not rules.remove_lines:
        return text, 0
    found = pa.array([False] * len(lines))
    array = pa.array(line.encode("utf-8", "replace").decode() for line in lines)
    for pattern in rules.remove_lines:
        found = pc.or_(found, pc.match_substring_regex(array, pattern))
    kept = [line for line, goes in zip(lines, found.to_pylist(), strict=True) if not goes]
    return ("\n".join(kept).strip(), len(lines) - len(kept)) if len(kept) < len(lines) else (text, 0)


def _check(rules: SiteRules, where: str) -> None:
    for key, selectors in (("keep", [rules.keep] if rules.keep else []), ("remove", rules.remove)):
        for selector in selectors:
            if not is_selector(selector):
                raise ConfigError(f"{where}: {key}: not a CSS selector: {selector!r}")
    for key, patterns in (("remove_lines", rules.remove_lines), ("drop_urls", rules.drop_urls)):
        for pattern in patterns:
            try:
                found_in("", pattern)
            except pa.ArrowInvalid as error:
                raise ConfigError(f"{where}: {key}: {pattern!r}: {error}") from error
