"""Files that are compiled from others once, and then found by every process of a machine.

They are named by their content, so nothing stale is ever found; of several processes one makes a file and the others
wait for it. The folder is DOTS_CACHE, else `dots` in the user's cache folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from dots_data.typed_yaml import ConfigError

T = TypeVar("T")

VARIABLE = "DOTS_CACHE"
# What takes longest to compile takes minutes.
_MAX_WAIT_SECONDS = 600.0


def opened(name: str, open_file: Callable[[Path], T], make: Callable[[Path], None]) -> T:
    """The file `name` of the cache, as `open_file` reads it. Where it raises ConfigError, `make` writes the file first.

    Raises:
        ConfigError: what `make` raises; a cache that cannot be written; another process that makes it for too long.
    """
    target = folder() / name
    with contextlib.suppress(ConfigError):
        return open_file(target)
    with _locked(target.with_suffix(".lock")):
        # Another process may have made it meanwhile.
        with contextlib.suppress(ConfigError):
            return open_file(target)
        try:
            make(target)
        except OSError as error:
            raise ConfigError(f"{target}: cannot be written ({error.strerror})") from error
        return open_file(target)


def write(target: Path, parts: Iterator[bytes] | list[bytes]) -> None:
    """Write a file of the cache in one step. Not for two at once with one target."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # One name, so that what a killed process leaves is replaced by the next.
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.unlink(missing_ok=True)
    with open(temporary, "xb") as file:
        for part in parts:
            file.write(part)
    # Other users of the cache read it too.
    temporary.chmod(0o644)
    os.replace(temporary, target)


def folder() -> Path:
    """The folder of compiled files, made where it is missing. Raises ConfigError where it cannot be."""
    given = os.environ.get(VARIABLE)
    base = Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dots"
    try:
        base.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{base}: cannot be written ({error.strerror}); set {VARIABLE} to a folder") from error
    return base


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file; wait for it, but not for ever."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from error
    deadline = time.monotonic() + _MAX_WAIT_SECONDS
    try:
        while not _taken(file):
            if time.monotonic() > deadline:
                raise ConfigError(f"{path}: another process has been compiling this file for too long; end it")
            time.sleep(0.05)
        yield
    finally:
        os.close(file)


def _taken(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
