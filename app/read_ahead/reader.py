"""Decides what is read ahead, and when."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from app.read_ahead.loads import Load, NodeLoad, States, node_load
from app.read_ahead.running_load import Outcome, Place, RunningLoad
from app.read_ahead.waiting_prompts import WaitingPrompts
from comfy.interruption import interrupt_flag
from comfy_execution.executor.isolation import Isolation

log = logging.getLogger(__name__)

POLL_S = 0.25  # how soon prompts that come while one runs are noticed
AT_ONCE = 2  # loads of the running prompt, beside the one that its node does
FAILURES_KEPT = 64
PAUSE_TIMEOUT_S = 2.0

Source = Callable[[], Sequence[Load]]


class _Known(NamedTuple):
    """What a load asked the cache for, when its files were in *states*."""

    states: States
    keys: frozenset[Hashable]


class ReadAhead:
    """While a prompt runs, has read what comes next: loaders of the running prompt, waiting prompts in order, further sources.

    Implements ``Foresight``. One thread, ``read-ahead``, plans, each load has its own; the lock guards what both and the callers share,
    and nothing blocks under it. Any thread may call any method. Its maker calls :meth:`close`.
    """

    def __init__(self, cache: Any, queue: Callable[[], Any], classes: Callable[[], Mapping[str, type]]) -> None:
        """*cache* is the ``RamModelCache``; *queue* gives the ``PromptQueue``, *classes* the node classes, at each look."""
        self._cache, self._queue, self._classes = cache, queue, classes
        self._waiting_prompts = WaitingPrompts(classes)
        self._sources: list[Source] = []
        self._changed = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._coming: dict[str, NodeLoad] | None = None  # of the running prompt, by node; None: none runs
        self._active: dict[Hashable, RunningLoad] = {}
        self._tried: set[Hashable] = set()
        self._known: dict[Hashable, _Known] = {}
        self._failed: OrderedDict[tuple[Hashable, States], None] = OrderedDict()
        self._is_paused = self._is_closed = self._has_news = False
        self._interrupts = 0
        self._moves = 0  # prompts that began and loaders that ran: a plan from before the last one is out of date

    def add_source(self, source: Source) -> None:
        """Ask *source* what else to read when prompts want nothing; on the thread ``read-ahead``."""
        self._sources.append(source)

    # What the executor tells

    def begin(self, nodes: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """A prompt begins: (id, node) of its nodes that wait for no other, in order. The first runs at once, so it is not read ahead."""
        coming: dict[str, NodeLoad] = {}
        with Isolation("Foreseeing what a prompt will load", log):
            classes = self._classes()
            coming = {node_id: load for node_id, node in nodes if (load := node_load(node, classes)) is not None}
        with self._changed:
            self._coming, self._is_paused, self._interrupts = coming, False, interrupt_flag.requests
            self._moves += 1
            self._tried = {coming[node_id].key for node_id, _ in nodes[:1] if node_id in coming}
            if self._thread is None and not self._is_closed:
                self._thread = threading.Thread(target=self._plan_on, name="read-ahead", daemon=True)
                self._thread.start()
            self._tell()

    def ran(self, node_id: str) -> None:
        """A node has run: what it loads is not to be read any more, nor any further."""
        coming = self._coming
        load = coming.pop(node_id, None) if coming else None
        if load is not None:
            self._moves += 1
            running = self._active.get(load.key)
            if running is not None:
                running.stop()

    def end(self) -> None:
        """The prompt has ended."""
        with self._changed:
            self._coming = None
            self._tell()

    def pause(self, why: str) -> None:
        """Stop reading until the next prompt begins; waits until that is so, ``PAUSE_TIMEOUT_S`` at most."""
        with self._changed:
            self._stop_all()
            self._changed.wait_for(lambda: not self._active, PAUSE_TIMEOUT_S)
        log.debug("Nothing is read ahead until the next prompt: %s", why)

    def close(self) -> None:
        """End the threads; a read that hangs is left behind."""
        with self._changed:
            self._is_closed = True
            self._tell()
        self.pause("the server ends")

    def _tell(self) -> None:
        """Something changed; the lock is held."""
        self._has_news = True
        self._changed.notify_all()

    def _stop_all(self) -> None:
        self._is_paused = True
        for running in self._active.values():
            running.stop()

    # The thread

    def _plan_on(self) -> None:
        while not self._is_closed:
            with Isolation("Planning what to read ahead", log):
                self._step()
            with self._changed:
                is_busy = self._coming is not None or self._active or self._cache.ahead.waiting()
                self._changed.wait_for(lambda: self._has_news, POLL_S if is_busy else None)
                self._has_news = False

    def _step(self) -> None:
        """Stop what is not wanted any more, and begin what may be read now."""
        moves, plan = self._moves, self._plan()
        with self._changed:
            if interrupt_flag.requests != self._interrupts or getattr(self._queue(), "flags", None):
                self._stop_all()
            for key, running in self._active.items():
                if key not in plan:
                    running.stop()
        self._let_go_of_unwanted(plan)
        for load, place in plan.values():
            if not self._may_start(place):
                return
            self._start(load, place, moves)

    def _plan(self) -> dict[Hashable, tuple[Load, Place]]:
        """Everything that is foreseen, by key, what is wanted first leading."""
        running, waiting = self._queue().get_current_queue_volatile()
        coming = self._coming
        if coming is not None:
            of_running: list[Load] = list(coming.copy().values())
        else:  # a prompt that has been taken from the queue, and is not known to have begun
            of_running = [load for loads in WaitingPrompts(self._classes).loads(running) for load in loads]
        found: list[tuple[Load, Place]] = [(load, Place.RUNNING) for load in of_running]
        for position, loads in enumerate(self._waiting_prompts.loads(waiting)):
            found += [(load, Place.LATER if position else Place.NEXT) for load in loads]
        found += [(load, Place.LATER) for source in self._sources for load in source()]
        plan: dict[Hashable, tuple[Load, Place]] = {}
        for load, place in found:
            plan.setdefault(load.key, (load, place))
        return plan

    def _may_start(self, place: Place) -> bool:
        with self._changed:
            if self._is_paused or self._is_closed or self._coming is None:
                return False
            return len(self._active) < (AT_ONCE if place is Place.RUNNING else 1)

    def _start(self, load: Load, place: Place, moves: int) -> None:
        """Begin *load*, unless it was tried for this prompt, has failed before, or is there; or more than *moves* were made: plan again."""
        states = None if load.key in self._tried or load.key in self._active else load.states()
        if states is None or (load.key, states) in self._failed:
            return
        known = self._known.get(load.key)
        if known is not None and known.states == states and self._cache.ahead.has(known.keys):
            return
        running = RunningLoad(load, states, place, self._cache, self._ended)
        with self._changed:
            if self._is_paused or self._coming is None:
                return
            if self._moves != moves:
                self._tell()
                return
            self._tried.add(load.key)
            self._active[load.key] = running
        running.start()

    def _ended(self, running: RunningLoad) -> None:
        """On the thread of *running*: it has ended."""
        with self._changed:
            key, keys = running.load.key, running.asked_for()
            self._active.pop(key, None)
            if keys:
                self._known[key] = _Known(running.states, keys)
            if running.outcome is Outcome.FAILED:
                self._failed[key, running.states] = None
                while len(self._failed) > FAILURES_KEPT:
                    self._failed.popitem(last=False)
            self._tell()

    def _let_go_of_unwanted(self, plan: Mapping[Hashable, tuple[Load, Place]]) -> None:
        """Drop what was read for loads that nobody foresees any more, or of files that have been replaced since."""
        # Before what is wanted is noted: a load that asks the cache only after that note, and ends at once, is not in this list.
        there = self._cache.ahead.waiting()
        with self._changed:
            known = {key: self._known[key] for key in plan if key in self._known}
            wanted: set[Hashable] = {key for running in self._active.values() for key in running.asked_for()}
            self._known = {key: one for key, one in self._known.items() if key in plan or self._cache.ahead.has(one.keys)}
        if not there:
            return
        for key, one in known.items():
            if plan[key][0].states() == one.states:
                wanted |= one.keys
        unwanted = [key for key in there if key not in wanted]
        if unwanted:
            self._cache.ahead.let_go(*unwanted)
