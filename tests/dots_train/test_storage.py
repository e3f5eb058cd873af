"""Object storage that delays, throttles and cuts gives the batches of a folder, within bounds of tries and bytes."""

from __future__ import annotations

import http.client
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from dots_train.data import DataError, Loader, ShardReader, StorageConfig, shares
from dots_train.data.cache import Cache
from dots_train.data.objects import Objects
from tests.dots_train.datasets import write_dataset

pytest.importorskip("obstore")
moto = pytest.importorskip("moto.server")

BUCKET = "corpus"
URL = f"s3://{BUCKET}/run/tokens"
# Ten thousand tokens in thirty record batches: enough for every fault to come.
MANY = [[[50 + 7 * (shard + batch) % 90] * 3 for batch in range(10)] for shard in range(3)]
QUICK = StorageConfig(tries=40, seconds=60, request_seconds=1, first_wait=0.001, longest_wait=0.02)


class Proxy(BaseHTTPRequestHandler):
    """Hands requests on to `upstream`, and now and then does to them what networks and stores do."""

    protocol_version = "HTTP/1.1"
    upstream: tuple[str, int]
    faults: Callable[[], str]
    seen: Counter[str]

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        fault = type(self).faults() if self.command == "GET" else "none"
        self.seen[fault] += 1
        if fault == "refuse":
            self.close_connection = True
            return self.connection.close()
        if fault in ("503", "500"):
            code = "SlowDown" if fault == "503" else "InternalError"
            return self._answer(int(fault), [], f"<Error><Code>{code}</Code></Error>".encode())
        if fault == "hang":
            time.sleep(1.5)
        if fault == "delay":
            time.sleep(0.05)
        asked = http.client.HTTPConnection(*self.upstream, timeout=10)
        asked.request(self.command, self.path, headers=dict(self.headers))
        answer = asked.getresponse()
        content = answer.read()
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in ("connection", "date")]
        asked.close()
        # Only record batches are asked for again when they are damaged; of all else the damage is named.
        if fault == "damage" and self.path.endswith(".arrow") and "bytes=8-" not in self.headers.get("Range", ""):
            at = random.randrange(len(content))
            content = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        self._answer(answer.status, headers, content, cut=fault == "cut")

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, cut: bool = False) -> None:
        try:
            self.send_response(status)
            for name, value in headers:
                if name.lower() != "content-length":
                    self.send_header(name, value)
            length = next((value for name, value in headers if name.lower() == "content-length"), len(content))
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content[: len(content) // 2] if cut else content)
            if cut:
                self.close_connection = True
        except OSError:  # the reader has given up on us
            self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def serving(handler: Any) -> Iterator[str]:
    """The URL of a server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join(timeout=10)


@contextmanager
def proxied(upstream: tuple[str, int], faults: Callable[[], str]) -> Iterator[tuple[str, Counter[str]]]:
    """The URL of a proxy, and how often it did what."""
    seen: Counter[str] = Counter()
    with serving(
        type("Handler", (Proxy,), {"upstream": upstream, "faults": staticmethod(faults), "seen": seen})
    ) as url:
        yield url, seen


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    write_dataset(path, MANY)
    return path


@pytest.fixture(scope="module")
def endpoint() -> Iterator[tuple[str, int]]:
    """Moto's server."""
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield server.get_host_and_port()
    finally:
        server.stop()


@pytest.fixture(scope="module")
def bucket(folder: Path, endpoint: tuple[str, int]) -> tuple[str, int]:
    """The endpoint with the dataset in it."""
    import obstore
    from obstore.store import S3Store

    asked = http.client.HTTPConnection(*endpoint, timeout=10)
    asked.request("PUT", f"/{BUCKET}")
    assert asked.getresponse().status == 200
    store = S3Store(
        BUCKET,
        endpoint="http://{}:{}".format(*endpoint),
        access_key_id="any",
        secret_access_key="any",
        region="us-east-1",
        client_options={"allow_http": True},
    )
    for path in folder.iterdir():
        obstore.put(store, f"run/tokens/{path.name}", path.read_bytes())
    return endpoint


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a URL the endpoint of S3, as a user does."""

    def use(url: str) -> None:
        named = {"ACCESS_KEY_ID": "any", "SECRET_ACCESS_KEY": "any", "REGION": "us-east-1"}
        for name, value in {**named, "ENDPOINT_URL": url}.items():
            monkeypatch.setenv(f"AWS_{name}", value)

    return use


def same(one: ShardReader, other: ShardReader, workers: int = 0) -> None:
    """Every batch of an epoch and a half, in batches of changing size, is equal."""
    sizes = [1, 5, 2, 9, 4] * (one.windows // 14)
    mine = Loader(one, workers)(shares(0, sizes))
    for a, b in zip(mine, Loader(other)(shares(0, sizes)), strict=True):
        assert torch.equal(a.tokens_BS, b.tokens_BS) and torch.equal(a.cu_seqlens, b.cu_seqlens)
        assert torch.equal(a.targets_BS, b.targets_BS) and torch.equal(a.position_BS, b.position_BS)


@pytest.mark.parametrize(("workers", "packed"), [(0, False), (4, False), (1, True)])
def test_a_store_that_fails_gives_the_same_batches(
    folder: Path,
    bucket: tuple[str, int],
    through: Callable[[str], None],
    tmp_path: Path,
    workers: int,
    packed: bool,
) -> None:
    chosen = random.Random(workers)
    lock = threading.Lock()
    kinds = ("none", "none", "delay", "503", "500", "cut", "refuse", "damage")

    def faults() -> str:
        with lock:
            return "hang" if chosen.random() < 0.01 else chosen.choice(kinds)

    local = ShardReader(folder, 64, seed=3, packed=packed, index_folder=tmp_path)
    with proxied(bucket, faults) as (url, seen):
        through(url)
        config = replace(QUICK, cache=str(tmp_path / "cache"))
        remote = ShardReader(URL, 64, seed=3, packed=packed, storage=config)
        same(remote, local, workers)
        assert remote.where(3) == local.where(3)
    assert all(seen[kind] for kind in kinds), seen
    # Each record batch came whole once: all else was a failure.
    assert len([path for path in (tmp_path / "cache" / "record-batches").iterdir() if path.name.count("-") == 1]) >= 30


def test_a_cache_is_bounded_and_gives_the_same(
    folder: Path, bucket: tuple[str, int], through: Callable[[str], None], tmp_path: Path
) -> None:
    through("http://{}:{}".format(*bucket))
    cache = tmp_path / "cache"
    limit = sum(path.stat().st_size for path in folder.glob("*.arrow")) // 4
    config = replace(QUICK, cache=str(cache), cache_bytes=limit)
    most = 0
    reader, local = ShardReader(URL, 64, seed=3, storage=config), ShardReader(folder, 64, seed=3)
    for g in range(reader.windows):
        assert torch.equal(reader.batch(g, 1).tokens_BS, local.batch(g, 1).tokens_BS)
        most = max(most, sum(path.stat().st_size for path in (cache / "record-batches").iterdir()))
    assert limit // 2 < most <= limit


def test_what_is_cached_is_read_without_the_store(
    folder: Path, bucket: tuple[str, int], through: Callable[[str], None], tmp_path: Path
) -> None:
    config = replace(QUICK, cache=str(tmp_path / "cache"))
    through("http://{}:{}".format(*bucket))
    local = ShardReader(folder, 64, seed=3)
    same(ShardReader(URL, 64, seed=3, storage=config), local)
    with proxied(bucket, lambda: "none") as (url, seen):
        through(url)
        reader = ShardReader(URL, 64, seed=3, storage=config, verify=False)
        first, damaged = sorted((tmp_path / "cache" / "record-batches").glob("*-*"))[:2]
        first.write_bytes(first.read_bytes()[:-1])
        damaged.write_bytes(bytes(damaged.stat().st_size))
        same(reader, local)
    # The manifest, three batch tables, and the two files that were not what they should be.
    assert seen == {"none": 6}


@pytest.mark.parametrize(
    ("faults", "message", "most"),
    [
        ("503", "after 3 tries in .* s: .*503", 3),
        ("cut", "after 3 tries", 3),
        ("refuse", "after 3 tries", 3),
        ("damage", "after 3 tries in .* s: their CRC-32 is", 3),
        ("hang", "after 3 tries", 3),
    ],
)
def test_a_store_that_stays_broken_is_named_in_time(
    bucket: tuple[str, int],
    through: Callable[[str], None],
    tmp_path: Path,
    faults: str,
    message: str,
    most: int,
) -> None:
    through("http://{}:{}".format(*bucket))
    config = replace(QUICK, cache=str(tmp_path / "cache"), tries=most, request_seconds=0.2)
    reader = ShardReader(URL, 64, seed=3, storage=config)
    with proxied(bucket, lambda: faults) as (url, seen):
        through(url)
        storage = reader.layout.stream.dataset.storage
        storage.objects = Objects(URL, config)  # type: ignore[attr-defined]
        with pytest.raises(DataError, match=rf"{URL}/shard-0000\d\.arrow: bytes \d+ to \d+: cannot be read, {message}"):
            reader.batch(0, 1)
        assert seen[faults] == most


def test_seconds_bound_the_tries(bucket: tuple[str, int], through: Callable[[str], None], tmp_path: Path) -> None:
    config = replace(QUICK, cache=str(tmp_path), tries=10_000, seconds=0.3, first_wait=0.05, longest_wait=0.1)
    with proxied(bucket, lambda: "503") as (url, seen):
        through(url)
        with pytest.raises(DataError, match=r"manifest\.json: cannot be read, after \d+ tries in 0\.\d s"):
            ShardReader(URL, 64, seed=3, storage=config)
    assert 2 < seen["503"] < 1000


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"s3://{BUCKET}/elsewhere", "elsewhere/manifest.json: Object at location elsewhere/manifest.json not found"),
        ("s3://nobody/x", "s3://nobody/x/manifest.json"),
    ],
)
def test_what_is_not_there_is_asked_for_once(
    bucket: tuple[str, int], through: Callable[[str], None], tmp_path: Path, url: str, message: str
) -> None:
    with proxied(bucket, lambda: "none") as (endpoint, seen):
        through(endpoint)
        with pytest.raises(DataError, match=message):
            ShardReader(url, 64, seed=3, storage=replace(QUICK, cache=str(tmp_path)))
    assert seen["none"] == 1


class Ranges(SimpleHTTPRequestHandler):
    """A plain web server that knows ranges."""

    def do_GET(self) -> None:
        content = Path(self.translate_path(self.path)).read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, last = map(int, asked.groups()) if asked else (0, len(content) - 1)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        self.wfile.write(content[first : last + 1])

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def test_it_is_read_from_a_web_server_too(folder: Path, tmp_path: Path) -> None:
    """Without TLS here: no test has the certificates."""
    with serving(partial(Ranges, directory=str(folder))) as url:
        config = replace(QUICK, cache=str(tmp_path))
        local = ShardReader(folder, 64, seed=3)
        same(ShardReader(url, 64, seed=3, storage=config), local)
        assert ShardReader(f"{url}/manifest.json", 64, seed=3, storage=config).id == local.id


def test_a_cache_that_cannot_hold_a_record_batch_is_refused(
    bucket: tuple[str, int], through: Callable[[str], None], tmp_path: Path
) -> None:
    through("http://{}:{}".format(*bucket))
    reader = ShardReader(URL, 64, seed=3, storage=replace(QUICK, cache=str(tmp_path / "cache"), cache_bytes=100))
    with pytest.raises(DataError, match="cache_bytes: 100 is too little"):
        reader.batch(0, 1)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"storage\.cache: .*file/below/.*: Not a directory"):
        ShardReader(URL, 64, seed=3, storage=replace(QUICK, cache=str(tmp_path / "file" / "below")))


def test_all_who_share_a_cache_keep_its_bound(tmp_path: Path) -> None:
    """Threads here, for speed: the lock is of the open file, so it holds them apart as it does processes."""

    def fill(seed: int) -> int:
        """Put files of many sizes into a cache; how full it was at most."""
        cache, chosen, most = Cache(tmp_path, 5000), random.Random(seed), 0
        for number in range(60):
            size = chosen.randrange(1, 1500)
            cache.put(f"{seed}-{number}", bytes([seed]) * size)
            found = cache.get(f"{seed}-{number}", size)
            assert found is None or (found == seed).all()
            most = max(most, sum(_size(path) for path in tmp_path.iterdir() if path.suffix != ".tmp"))
        return most

    with ThreadPoolExecutor(3) as pool:
        assert max(pool.map(fill, (1, 2, 3))) <= 5000
    (tmp_path / ".dead.tmp").write_bytes(bytes(4000))
    os.utime(tmp_path / ".dead.tmp", (0, 0))
    Cache(tmp_path, 5000).put("last", bytes(1500))
    assert not list(tmp_path.glob(".*.tmp"))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # another has made room
        return 0


def test_what_was_not_opened_for_longest_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 30)
    for name in ("a", "b", "c"):
        cache.put(name, bytes(10))
        time.sleep(0.02)
    assert cache.get("a", 10) is not None
    cache.put("d", bytes(10))
    assert {path.name for path in tmp_path.iterdir()} == {"a", "c", "d", ".lock"}
    assert cache.get("a", 9) is None and cache.get("b", 10) is None


@pytest.mark.parametrize("value", [{"tries": 0}, {"connections": 0}, {"seconds": 0}, {"cache_bytes": -1}])
def test_bounds_that_are_none_are_refused(value: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="storage"):
        StorageConfig(**value)  # type: ignore[arg-type]
