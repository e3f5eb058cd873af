"""Two passes as coroutines: while one waits for an exchange between ranks, the other computes.

Each has a thread, of which exactly one runs: the baton changes hands where a pass has launched an exchange and has yet
to wait for it, and when it ends. So the order of all that is launched is fixed by the two passes alone, the same on
every rank that runs the same pair, and nothing that they share needs a lock. Whose turn it is goes by the baton, not by
the thread: on a GPU a backward pass runs in threads of autograd's own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

from dots_train.experts.late import LateGradients

FIRST, SECOND = 0, 1


class Ended(BaseException):
    """Unwinds a pass whose partner failed. No Exception: nothing on the way may take it for an error of its own."""


class Baton:
    """late: weight gradients that were put off, to be computed while an exchange is under way."""

    def __init__(self) -> None:
        self.late: LateGradients | None = None
        self._changed = threading.Condition()
        self._turn = FIRST
        self._running: set[int] = set()
        self._error: BaseException | None = None
        self._limit = 0.0

    def together(self, first: Callable[[], None], second: Callable[[], None], limit: float) -> None:
        """Run both to their ends, `first` in this thread and until its first gap before `second` begins.

        limit: seconds that a pass may wait for its turn; twice as long as its partner may wait for another rank, so
            that what the partner was waiting for is named, not the partner.

        Raises:
            what the pass that failed first raised, once the other has ended too; TimeoutError: a pass kept its turn.
        """
        self._turn, self._running, self._error, self._limit = FIRST, {FIRST, SECOND}, None, limit
        like_here = thread_state()

        def beside() -> None:
            like_here()
            self._run(SECOND, second)

        thread = threading.Thread(target=beside, name="second pass", daemon=True)
        thread.start()
        self._run(FIRST, first)
        thread.join(limit)
        if self._error is not None:
            raise self._error
        if thread.is_alive():
            raise TimeoutError(f"a backward pass did not end within {limit:g} s")

    def gap(self) -> None:
        """An exchange was launched: a weight gradient that was put off is computed, and the other pass goes on.

        Not by a forward pass whose partner waits: on a GPU the thread that would compute it waits with the partner.
        """
        if self.late is not None and (self._turn == SECOND or len(self._running) < 2):
            self.late.run(1)
        self.rest()

    def rest(self) -> None:
        """Nothing is under way here, but something may be there: the other pass goes on."""
        if len(self._running) == 2:
            self._hand_over()

    def _run(self, side: int, work: Callable[[], None]) -> None:
        try:
            self._wait_for_turn(side)
            work()
        except Ended:
            pass
        except BaseException as error:
            with self._changed:
                self._error = self._error or error
        finally:
            with self._changed:
                self._running.discard(side)
                self._turn = 1 - side
                self._changed.notify_all()

    def _hand_over(self) -> None:
        with self._changed:
            side = self._turn
            self._turn = 1 - side
            self._changed.notify_all()
        self._wait_for_turn(side)

    def _wait_for_turn(self, side: int) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._turn == side or self._error is not None, self._limit):
                raise TimeoutError(f"the other pass of a pair kept its turn for more than {self._limit:g} s")
            if self._error is not None:
                raise Ended


def thread_state() -> Callable[[], None]:
    """What makes a new thread compute as this one does: torch keeps autocast, the GPU and its stream for each."""
    on_gpu = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    kinds = ("cpu", "cuda") if on_gpu else ("cpu",)
    autocast = [(kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds]
    cached = torch.is_autocast_cache_enabled()
    stream = torch.cuda.current_stream() if on_gpu else None

    def enter() -> None:
        torch.get_num_threads()  # takes over the number of threads of the process
        for kind, enabled, dtype in autocast:
            torch.set_autocast_enabled(kind, enabled)
            torch.set_autocast_dtype(kind, dtype)
        torch.set_autocast_cache_enabled(cached)
        # Never left again: autocast's cast weights are the process's, and the last block of a thread would drop them.
        torch.autocast_increment_nesting()
        if stream is not None:
            torch.cuda.set_stream(stream)

    return enter


BATON = Baton()
"""Of the process: an operator has no place for one."""
