"""Filling patched values on the host, each block of rows on one thread from the first read to the last write.

Where torch spreads each operation over its threads, what one of them has in its core's cache is another's to read next, and all wait for
each other after every one. Values are filled once all have been looked up: while Python code runs, threads wait for its lock after each
operation.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch

from comfy.one_thread import one_thread
from comfy.patching.on_host.freed_memory import FreedMemory

MOST_THREADS = 8  # a guess, measured with two only: more would wait for Python's lock, so torch spreads each block over them instead


class Filling:
    """Values to fill, which the end of its ``with`` block does, unless that raised. Raises there what filling raised. Not thread-safe."""

    def __init__(self) -> None:
        self._errors: list[BaseException] = []
        self._threads = torch.get_num_threads()
        self._waiting: deque[tuple[Callable[..., None], Sequence[Any]]] = deque()

    def __enter__(self) -> Filling:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:  # nobody will have the values
            return
        helpers: list[threading.Thread] = []
        for _ in range(min(self._threads, len(self._waiting))):
            helper = threading.Thread(target=self._work, name="patched-values")
            try:
                helper.start()
            except RuntimeError:  # the system has no more threads
                break
            helpers.append(helper)
        if not helpers:
            self._work()
        for helper in helpers:
            helper.join()
        if self._errors:
            raise self._errors.pop()

    @property
    def is_worth_it(self) -> bool:
        """Whether threads of its own are of use here."""
        return 1 < self._threads <= MOST_THREADS

    def add(self, fill: Callable[..., None], *arguments: Any) -> None:
        """Have *fill* called with *arguments* by the end of the block, under inference mode, on a thread that computes alone."""
        self._waiting.append((fill, arguments))

    def _work(self) -> None:
        try:
            with one_thread(), torch.inference_mode():
                while True:
                    try:
                        fill, arguments = self._waiting.popleft()
                    except IndexError:
                        return
                    fill(*arguments)
        except BaseException as error:
            self._waiting.clear()
            self._errors.append(error)


@dataclass(frozen=True, slots=True)
class OnHost:
    """How a value is made on the host: in the memory *freed*, by *filling* (None: at once)."""

    freed: FreedMemory | None = None
    filling: Filling | None = None


AT_ONCE = OnHost()
