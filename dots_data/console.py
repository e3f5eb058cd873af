"""What the user sees: a progress bar a stage on a terminal, plain lines elsewhere, one table at the end.

Crawled strings are escaped before they reach a terminal: a page title may hold control sequences.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

T = TypeVar("T")

# A log file has no edge to wrap at.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


def safe(value: object) -> str:
    """A string from outside, fit to be printed: no markup, no control characters."""
    text = escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value)))
    # An odd number of backslashes at the end would take the tag after it for text.
    return text + "\\" * ((len(text) - len(text.rstrip("\\"))) % 2)


@dataclass
class Done:
    """How far a stage is: `steps` of `total`, and what it has passed so far."""

    steps: int
    total: int
    documents: int = 0
    bytes: int = 0


def watch(title: str, work: Callable[[], T], look: Callable[[], Done], whole: Done | None = None) -> T:
    """Run `work` and show `look()` beside it until it ends; its result or its exception is passed on.

    whole: the documents and bytes that go through, where `look` counts steps alone; they pass in proportion.
    The work has the calling thread, so that an interrupt reaches it: what it started can be cancelled there.
    """
    started = time.monotonic()
    columns = (
        TextColumn("{task.description:<26}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    before = replace(look())  # `look` may return one object that it goes on changing
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None, rate="")

        def show() -> None:
            done = _so_far(look(), whole)
            bar.update(task, completed=done.steps, total=done.total or None, rate=rate(done, before, started))

        with _repeated(show):
            result = work()
        steps = look()
        done = whole or steps
        bar.update(task, completed=steps.total, total=steps.total, rate=rate(done, before, started))
    if not console.is_terminal:
        seconds = time.monotonic() - started
        console.print(f"{title:<26} {seconds:7.1f} s  {rate(done, before, started)}")
    return result


def _so_far(done: Done, whole: Done | None) -> Done:
    if whole is None:
        return done
    share = done.steps / max(done.total, 1)
    return replace(done, documents=int(whole.documents * share), bytes=int(whole.bytes * share))


@contextmanager
def _repeated(act: Callable[[], None], seconds: float = 0.5) -> Iterator[None]:
    """Call `act` every so many seconds, in a thread, for the time of a `with` block."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(seconds):
            # A display that fails must not end the work beside it.
            with suppress(Exception):
                act()

    thread = threading.Thread(target=repeat, name="console", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        # An interrupt may not wait for an engine that no longer answers.
        thread.join(timeout=5)


def interruptible(work: Callable[[], T]) -> T:
    """`work()`, for native code that never looks at signals: an interrupt leaves it to end with the process."""
    ended: Future[T] = Future()

    def run() -> None:
        try:
            ended.set_result(work())
        except BaseException as error:
            ended.set_exception(error)

    threading.Thread(target=run, name="native", daemon=True).start()
    return ended.result()


def rate(done: Done, before: Done, started: float) -> str:
    """`1,234 docs, 160 docs/s, 3.2 MB/s`; empty while nothing is known.

    What had passed `before` the start, in a run that was interrupted, is no work of this one.
    """
    if not done.documents:
        return ""
    seconds = max(time.monotonic() - started, 1e-3)
    parts = [f"{done.documents:,} docs"]
    if (documents := done.documents - before.documents) > 0:
        parts.append(f"{documents / seconds:,.0f} docs/s")
    if (size := done.bytes - before.bytes) > 0:
        parts.append(f"{size / seconds / 1e6:,.1f} MB/s")
    return ", ".join(parts)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], left: int = 1) -> None:
    """Print a table whose first `left` columns are text and the rest numbers."""
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        shown.add_column(column, justify="left" if number < left else "right", overflow="fold")
    for row in rows:
        shown.add_row(*(_cell(value) for value in row))
    console.print(shown)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3g}"
    return safe(value)


def program(name: str) -> str:
    """What to type to run a program of this environment, from the folder where the user stands."""
    path, here = Path(sysconfig.get_path("scripts"), name), Path.cwd()
    if shutil.which(name) == str(path):
        return name
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def fail(message: str) -> None:
    """One sentence on standard error."""
    errors.print(f"[bold red]error:[/] {safe(message)}")
