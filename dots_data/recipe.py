"""The recipe: every threshold and choice of the web pipeline in one typed value with one hash.

A recipe is the `recipe:` part of a job file in jobs/. Leaving a key out takes the default that stands next to the
code which uses it; an unknown or misspelt key is an error that suggests the nearest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dots_data import __version__
from dots_data.crawl.admission import HttpConfig
from dots_data.crawl.sites import SitesConfig
from dots_data.crawl.urls import UrlFilterConfig
from dots_data.dedup.identity import IdentityConfig
from dots_data.dedup.lines import LinesConfig
from dots_data.dedup.minhash import FuzzyConfig
from dots_data.engines.spark import Resources
from dots_data.extraction import DEFAULT_ENGINE, FAST_MODEL, Engine, ExtractionLimits
from dots_data.language import LanguageConfig, find_model
from dots_data.rules import RulesConfig
from dots_data.typed_yaml import ConfigError, load, to_mapping


@dataclass(frozen=True)
class ExtractionConfig:
    """engine: what finds the main text. limits: what a page may cost before it is quarantined.

    `fast` scores lines by a learned model; `trafilatura` is the tool that the report names; `cascade` asks
    trafilatura where the model of `fast` is unsure.
    """

    engine: Engine = DEFAULT_ENGINE
    limits: ExtractionLimits = field(default_factory=ExtractionLimits)


@dataclass(frozen=True)
class Recipe:
    """The steps in the order in which they run (dots.llm1 report, Appendix C.1 and C.2)."""

    url: UrlFilterConfig = field(default_factory=UrlFilterConfig)
    http: HttpConfig = field(default_factory=HttpConfig)
    sites: SitesConfig = field(default_factory=SitesConfig)
    extraction: ExtractionConfig = field(default_factory=ExtractionConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    identity: IdentityConfig = field(default_factory=IdentityConfig)
    lines: LinesConfig = field(default_factory=LinesConfig)
    rules: RulesConfig = field(default_factory=RulesConfig)
    fuzzy: FuzzyConfig = field(default_factory=FuzzyConfig)

    @property
    def hash(self) -> str:
        """16 hexadecimal digits over every value; written into every output."""
        canonical = json.dumps(to_mapping(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()

    def assets_hash(self) -> str:
        """16 hexadecimal digits over the content of the files that the recipe names (lists, site rules, evaluation
        sets, models) and this software's version.

        Raises ConfigError for a file that is missing or cannot be read.
        """
        digest = hashlib.blake2b(f"{__version__}\0".encode(), digest_size=8)
        named = (*self.url.files, *([self.sites.file] if self.sites.file else []))
        evaluations = self.rules.decontamination.evaluations if self.rules.decontamination else ()
        models = [find_model(self.language.model)]
        if self.extraction.engine != "trafilatura":
            models.append(FAST_MODEL)
        for path in (*map(Path, named), *map(Path, evaluations), *models):
            if not path.exists():
                raise ConfigError(
                    f"{path}: no such block list, word list or evaluation set; give a folder or an archive in the UT1 "
                    "layout, or a file"
                )
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    digest.update(
                        f"{file.relative_to(path)}\0{_content_hash(file)}\0".encode("utf-8", "surrogateescape")
                    )
        return digest.hexdigest()


def _content_hash(file: Path) -> str:
    try:
        with open(file, "rb") as stream:
            return hashlib.file_digest(stream, "blake2b").hexdigest()
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror})") from error


@dataclass(frozen=True)
class Job:
    """One crawl-clean job: what to read (files, folders, globs), where to write, with what, by which recipe.

    dumps: what to read of several crawls by their names, which sort as they came; it replaces `input`.
    index: the folder of a living index (dots_data/dedup/index.py): what earlier dumps hold is dropped.
    """

    input: tuple[str, ...] = ()
    dumps: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    index: str | None = None
    output: str = "build/crawl"
    resources: Resources = field(default_factory=Resources)
    recipe: Recipe = field(default_factory=Recipe)


def load_job(path: str | Path) -> Job:
    """Read a job file. Raises ConfigError naming file and key."""
    return load(Job, path)
