"""`make bench-urls`: the URL filter over real block lists: load time, memory of several workers, look-ups, equality.

    python -m benchmarks.urls --lists ut1.tar.gz [--urls 1000000]

The URLs are made from the lists' own lines and from names beside them: listed domains and hosts below them, listed
URLs and paths below them, near misses of both, and hosts of no list. Equality is with a plain reference: sets of what
the standard library makes of the lines, and the rules of the UT1 layout spelled out. Memory is the proportional set
size: a page that eight workers share counts an eighth in each.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import platform
import random
import re
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pyarrow as pa
import pyarrow.compute as pc

from dots_data import cache, console
from dots_data.crawl.urls import UrlFilter, UrlFilterConfig

RESULTS = Path(__file__).parent / "results"
WORKERS = 8


def config_of(path: Path) -> UrlFilterConfig:
    """Every category; no words, which the reference does not know."""
    return UrlFilterConfig((str(path),), None, hard_words=(), soft_words=(), subwords=())


class Reference:
    """The lists as sets, read anew and taken apart by `urllib.parse.urlsplit`; `lines` are those of `urls` as they
    stand in the list.
    """

    def __init__(self, path: Path) -> None:
        self.domains: set[str] = set()
        self.urls: set[tuple[str, tuple[str, ...], str]] = set()
        self.lines: set[str] = set()
        with tarfile.open(path) as archive:
            for member in archive:
                name = Path(member.name).name
                content = archive.extractfile(member) if name in ("domains", "urls") else None
                if content is None:
                    continue
                stripped = map(str.strip, content.read().decode("utf-8", "replace").splitlines())
                lines = [line for line in stripped if line and not line.startswith("#")]
                if name == "domains":
                    self.domains |= {_ascii(line.lstrip(".")) for line in lines}
                else:
                    self.lines |= set(lines)
                    self.urls |= {parts for line in lines if any((parts := _parts(f"http://{line}"))[1:])}

    def is_listed(self, url: str) -> bool:
        """Whether a URL is on a list."""
        host, path, query = _parts(url)
        labels = _ascii(urlsplit(url).hostname or "").split(".")
        hosts = [labels] if "".join(labels).isdigit() else [labels[i:] for i in range(max(1, len(labels) - 1))]
        if any(".".join(one) in self.domains for one in hosts):
            return True
        prefixes = [(host, path[:count], "") for count in range(1, min(len(path), 16) + 1)]
        return any(one in self.urls for one in prefixes) or (bool(query) and (host, path, query) in self.urls)


def _parts(url: str) -> tuple[str, tuple[str, ...], str]:
    """Host without `www.`, segments of the path, query."""
    parts = urlsplit(url)
    path = tuple(segment for segment in parts.path.replace("\\", "/").split("/") if segment)
    return _ascii(parts.hostname or "").removeprefix("www."), path, parts.query


def _ascii(host: str) -> str:
    host = host.rstrip(".").lower()
    try:
        return host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        return host


def made_urls(reference: Reference, count: int, seed: int = 0) -> Iterator[str]:
    """URLs of all kinds, the same for the same lists and seed."""
    pick = random.Random(seed)
    domains = sorted(domain for domain in reference.domains if domain.isascii() and " " not in domain)
    urls = sorted(line for line in reference.lines if line.isascii() and " " not in line)
    for _ in range(count):
        kind, domain = pick.randrange(8), pick.choice(domains)
        path = f"/{pick.randrange(10**4)}/page.html"
        if kind == 0:
            yield f"http://{domain}{path}"
        elif kind == 1:
            yield f"http://www.{domain}{path}?q={pick.randrange(100)}"
        elif kind == 2:
            yield f"http://x{domain}{path}"
        elif kind == 3:
            yield f"http://{domain}.example{path}"
        elif kind == 4 and urls:
            yield f"http://{pick.choice(urls)}"
        elif kind == 5 and urls:
            yield f"http://www.{re.split('[?#]', pick.choice(urls))[0]}{path}"
        elif kind == 6 and urls:
            yield f"http://{pick.choice(urls)}x"
        else:
            yield f"http://site{pick.randrange(10**6)}.example{path}"


def worker(path: Path, urls: list[str], ready: Any, answer: Any) -> None:
    """Load, look up, say how much memory is ours alone and how much shared."""
    # What Arrow takes at its first call it takes in every worker, lists or not.
    UrlFilter(UrlFilterConfig())
    pc.match_substring_regex(pa.scalar("a"), "a")
    before = psutil.Process().memory_full_info()
    started = time.process_time()
    judges = UrlFilter(config_of(path))
    loaded = time.process_time() - started
    for url in urls:
        judges.check(url)
    # Nobody measures before all have the lists in memory.
    ready.wait()
    after = psutil.Process().memory_full_info()
    answer.put({"pss": after.pss - before.pss, "uss": after.uss - before.uss, "load": loaded})
    ready.wait()


def memory_of_workers(path: Path, urls: list[str]) -> list[dict[str, float]]:
    """What the filter costs each of WORKERS processes, bytes."""
    spawn = multiprocessing.get_context("spawn")
    ready, answer = spawn.Barrier(WORKERS), spawn.Queue()
    workers = [spawn.Process(target=worker, args=(path, urls, ready, answer)) for _ in range(WORKERS)]
    for one in workers:
        one.start()
    answers = [answer.get() for _ in workers]
    for one in workers:
        one.join()
    return answers


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.urls", description=__doc__)
    parser.add_argument("--lists", type=Path, required=True, help="block lists in the UT1 layout, as a tar file")
    parser.add_argument("--urls", type=int, default=1_000_000, help="URLs to compare (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ[cache.VARIABLE] = folder
        started = time.process_time()
        UrlFilter(config_of(options.lists))
        compiling = time.process_time() - started
        started = time.process_time()
        judges = UrlFilter(config_of(options.lists))
        loading = time.process_time() - started
        assert judges.lists is not None
        reference = Reference(options.lists)
        urls = list(made_urls(reference, options.urls))
        started = time.process_time()
        verdicts = [judges.check(url) for url in urls]
        seconds = time.process_time() - started
        by_words = UrlFilter(UrlFilterConfig((str(options.lists),), UrlFilterConfig().categories))
        some = urls[: len(urls) // 10]
        started = time.process_time()
        for url in some:
            by_words.check(url)
        usual = time.process_time() - started
        listed = [verdict is not None and verdict.rule in ("url.domain", "url.url") for verdict in verdicts]
        differing = [url for url, found in zip(urls, listed, strict=True) if found != reference.is_listed(url)]
        workers = memory_of_workers(options.lists, urls[:20_000])
    megabytes = 1 / (1 << 20)
    result = {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "entries": len(judges.lists),
        "compile_seconds": round(compiling, 2),
        "load_seconds": round(loading, 4),
        "file_mib": round(judges.lists.nbytes * megabytes, 1),
        "lookups_per_cpu_second": round(len(urls) / seconds),
        "lookups_per_cpu_second_default_recipe": round(len(some) / usual),
        "urls": len(urls),
        "listed": sum(listed),
        "differing_from_reference": len(differing),
        "workers": WORKERS,
        "workers_mib_together": round(sum(one["pss"] for one in workers) * megabytes, 1),
        "worker_mib_own": round(max(one["uss"] for one in workers) * megabytes, 1),
    }
    console.table("URL filter", ("figure", "value"), list(result.items()), left=1)
    for url in differing[:10]:
        console.console.print(f"differs: {console.safe(url)}")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "urls.json").write_text(json.dumps(result, indent=1) + "\n")
    return bool(differing)


if __name__ == "__main__":
    sys.exit(main())
