"""Real texts for the benchmarks: those of WARC pages, of JSON lines, of crawl-clean's documents."""

from __future__ import annotations

import datetime
import gzip
import json
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import xxhash

import dots_data
from dots_data.crawl.sources import expand
from dots_data.crawl.warc import Page, read_pages
from dots_data.extraction import extract_text
from dots_data.language import LanguageIdentifier

CACHE = Path("build/bench")
ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("DOTS_REAL_DATA", ROOT.parent / "shared" / "data"))
RESULTS = Path(__file__).parent / "results"
OURS = Path(dots_data.__file__).parent


class Text(NamedTuple):
    """One text, where it is from, and what fastText takes its language for."""

    source: str
    language: str
    text: str


def save_result(name: str, texts: Iterable[Text], **measured: Any) -> None:
    """Write results/`name`.json: when and on what it was measured, how many texts of each source, what came out."""
    RESULTS.mkdir(exist_ok=True)
    result = {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "processor": platform.processor() or platform.machine(),
        "input": dict(sorted(Counter(text.source for text in texts).items())),
        **measured,
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


def real_texts() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The rows of each file of real texts."""
    for path in sorted((DATA / "text").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            yield path.name, [json.loads(line) for line in lines]


def texts_of(path: str, most: int | None = None) -> list[Text]:
    """The texts of a file, glob or folder, the first `most` of each file. Pages are extracted once and kept in
    build/bench/."""
    found = sorted(Path().glob(path)) if not path.startswith("/") else sorted(Path("/").glob(path[1:]))
    files = [file for one in found for file in (sorted(one.iterdir()) if one.is_dir() else [one])]
    languages = LanguageIdentifier()
    texts: list[Text] = []
    for file in files:
        if file.name.endswith((".jsonl.gz", ".jsonl")):
            rows: Iterator[Text] = _json_lines(file, languages)
        elif file.suffix == ".parquet":
            table = pq.read_table(file, columns=["language", "text"]).to_pylist()
            rows = (Text(file.parent.parent.name, row["language"], row["text"]) for row in table)
        elif ".warc" in file.name:
            rows = _pages(file, languages)
        else:
            continue
        texts += [text for text, _ in zip(rows, range(most or 1 << 60), strict=False)]
    return texts


def _json_lines(file: Path, languages: LanguageIdentifier) -> Iterator[Text]:
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            language = row["language"] if "language" in row else languages.identify(row["text"]).code
            yield Text(file.name.partition(".")[0], language, row["text"])


def _pages(file: Path, languages: LanguageIdentifier) -> Iterator[Text]:
    """The extracted text of every page, from the cache if the file was read before, by the same code and model."""

    def extract() -> Iterator[str]:
        for source in expand([str(file)]):
            for page in read_pages(source.path):
                if isinstance(page, Page) and page.status == 200 and len(page.body) < 1 << 20:
                    text = extract_text(page.body, page.url).encode("utf-8", "replace").decode()
                    if any(map(str.isalnum, text)):
                        row = {"text": text, "language": languages.identify(text).code}
                        yield json.dumps(row, ensure_ascii=False) + "\n"

    for one in _json_lines(cached("texts", [file.read_bytes(), _extraction()], extract), languages):
        yield one._replace(source=file.name.partition(".")[0])


@cache
def _extraction() -> bytes:
    """A digest of what makes a text of a page: code, models, and the packages installed."""
    files = [*OURS.glob("*.py"), *(OURS / "extraction").rglob("*"), *(OURS / "crawl").rglob("*")]
    installed = sorted(f"{one.name} {one.version}" for one in distributions())
    return digest([*contents(files), *map(str.encode, installed)])


def contents(files: Iterable[Path]) -> Iterator[bytes]:
    """The names and contents of the files, in order of their paths, what Python compiled left out."""
    for file in sorted(files):
        if file.is_file() and "__pycache__" not in file.parts:
            yield file.name.encode()
            yield file.read_bytes()


def digest(parts: Iterable[bytes]) -> bytes:
    """One digest of all the parts, of their borders too."""
    whole = xxhash.xxh3_128()
    for part in parts:
        whole.update(xxhash.xxh3_128_digest(part))
    return whole.digest()


def cached(kind: str, parts: Iterable[bytes], make: Callable[[], Iterable[str]]) -> Path:
    """A compressed file of lines in build/bench/ that depend on nothing but `parts`; `make` makes them if it is not
    there. A run that breaks off leaves none."""
    path = CACHE / kind / f"{digest(parts).hex()}.jsonl.gz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        with gzip.open(temporary, "wt", encoding="utf-8", compresslevel=1) as out:
            out.writelines(make())
        temporary.replace(path)
    return path
