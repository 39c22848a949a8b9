"""One guarded provider: values, failures and deadlines, from event loops that end while the provider is still busy."""

import asyncio
import logging
import threading
import time

import pytest

from comfy_execution.cache_provider import CacheContext, CacheProvider, CacheValue
from comfy_execution.providers.client import ProviderClient, ProviderLimits
from comfy_execution.providers.store_queue import StoreJob


def context(number):
    return CacheContext(str(number), "Node", f"{number:064x}")


def job(number, size_bytes=10):
    return StoreJob(context(number), CacheValue([[number]]), size_bytes)


class Scripted(CacheProvider):
    """Does what the functions given do, and notes what it was asked to."""

    def __init__(self, lookup=None, store=None, told=None):
        self.lookup, self.store, self.told = lookup, store, told
        self.stored, self.events, self.threads = [], [], set()

    async def on_lookup(self, context):
        self.threads.add(threading.get_ident())
        return await self.lookup(context)

    async def on_store(self, context, value):
        self.threads.add(threading.get_ident())
        if self.store is not None:
            await self.store(context)
        self.stored.append(value.outputs[0][0])

    def on_prompt_start(self, prompt_id):
        self.events.append(("start", prompt_id))
        if self.told is not None:
            self.told()

    def on_prompt_end(self, prompt_id):
        self.events.append(("end", prompt_id))


@pytest.fixture
def client():
    made = []

    def make(provider, **limits):
        made.append(ProviderClient(provider, ProviderLimits(**limits)))
        return made[-1]

    yield make
    for one in made:
        one.close(1.0)


async def seven(context):
    return CacheValue([[7]])


def raising(error):
    async def lookup(context):
        raise error

    return lookup


async def hang(context):
    await asyncio.Event().wait()


async def block(context):
    """Holds its thread for longer than any test here waits."""
    threading.Event().wait(0.6)


def test_many_are_asked_side_by_side_by_one_thread(client):
    asked, all_asked = [], asyncio.Event()

    async def answers_when_all_are_asked(context):
        asked.append(context)
        if len(asked) == 50:
            all_asked.set()
        await all_asked.wait()
        return CacheValue([[int(context.node_id)]])

    provider = Scripted(answers_when_all_are_asked)
    one = client(provider)
    values = asyncio.run(one.lookup_all([context(number) for number in range(50)], 30.0))
    assert [value.outputs for value in values] == [[[number]] for number in range(50)]
    assert provider.threads == {thread.ident for thread in threading.enumerate() if thread.name == "cache-provider-Scripted"}
    stats = one.stats()
    assert (stats.hits, stats.misses, stats.errors, stats.state) == (50, 0, 0, "closed")


def test_the_loop_of_one_prompt_is_that_of_the_next(client):
    loops = []

    async def lookup(context):
        loops.append(asyncio.get_running_loop())

    one = client(Scripted(lookup))
    for number in range(3):
        asyncio.run(one.lookup_all([context(number)], 1.0))
    assert len(loops) == 3 and len(set(loops)) == 1 and not loops[0].is_closed()


class Rogue(BaseException):
    """No ``Exception``, and none of those that Python knows."""


ERRORS = [
    ValueError("no"),
    OSError("down"),
    asyncio.CancelledError(),
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    Rogue(),
    TimeoutError("own"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_lookup_that_raises_is_a_miss_and_its_neighbour_is_not(client, error):
    async def lookup(context):
        if context.node_id == "0":
            raise error
        return CacheValue([[1]])

    one = client(Scripted(lookup))
    values = asyncio.run(one.lookup_all([context(0), context(1)], 1.0))
    assert values[0] is None and values[1].outputs == [[1]]
    assert one.stats().errors == 1 and one.stats().timeouts == 0
    assert asyncio.run(one.lookup_all([context(2)], 1.0))[0].outputs == [[1]]


@pytest.mark.parametrize("lookup", [hang, block], ids=["waits", "blocks its thread"])
def test_a_lookup_that_does_not_answer_costs_its_deadline(client, lookup):
    one = client(Scripted(lookup))
    began = time.monotonic()
    assert asyncio.run(one.lookup_all([context(0), context(1)], 0.2)) == [None, None]
    assert time.monotonic() - began < 0.5
    assert one.stats().timeouts == 2


def test_a_provider_that_ignores_prompts_and_blocks_its_thread_is_known_not_to_react(client):
    released = threading.Event()

    class Plain(CacheProvider):
        async def on_lookup(self, context):
            released.wait(20)

        async def on_store(self, context, value):
            pass

    one = client(Plain())
    asyncio.run(one.notify("start", "first", 1.0))
    asyncio.run(one.lookup_all([context(0)], 0.1))
    began = time.monotonic()
    asyncio.run(one.notify("end", "first", 5.0))
    asyncio.run(one.notify("start", "second", 5.0))
    assert time.monotonic() - began < 2 and not one.is_reacting()
    released.set()


@pytest.mark.parametrize("answer", ["text", 7, CacheValue(3), object()], ids=lambda value: repr(value).partition(" at 0x")[0])
def test_an_answer_that_is_not_a_result_counts_as_an_error(client, answer):
    async def lookup(context):
        return answer

    one = client(Scripted(lookup))
    assert asyncio.run(one.lookup_all([context(0)], 1.0)) == [None]
    assert one.stats().errors == 1


def test_three_failures_open_the_circuit(client):
    one = client(Scripted(raising(OSError("down"))))
    for number in range(3):
        asyncio.run(one.lookup_all([context(number)], 1.0))
    assert one.stats().state == "open"
    assert asyncio.run(one.lookup_all([context(9)], 1.0)) == [None] and one.stats().errors == 3
    assert one.offer(job(1)) and one.drained().result(2.0) is None
    assert one.stats().not_stored == 1


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_store_that_raises_holds_up_no_other(client, error):
    async def store(context):
        if context.node_id == "0":
            raise error

    provider = Scripted(store=store)
    one = client(provider, concurrent_stores=1)
    for number in range(4):
        assert one.offer(job(number))
    one.drained().result(5.0)
    assert sorted(provider.stored) == [1, 2, 3]
    stats = one.stats()
    assert (stats.stores, stats.not_stored, stats.errors, stats.queued, stats.queued_bytes) == (3, 1, 1, 0, 0)


def test_a_store_that_hangs_is_given_up_and_the_next_is_made(client):
    async def store(context):
        if context.node_id == "0":
            await asyncio.Event().wait()

    provider = Scripted(store=store)
    one = client(provider, concurrent_stores=1, store_timeout_s=0.2)
    one.offer(job(0))
    one.offer(job(1))
    one.drained().result(5.0)
    assert provider.stored == [1] and one.stats().not_stored == 1


def test_stores_go_on_after_the_loop_that_waited_for_them_has_ended(client, caplog):
    ended = asyncio.Event()

    async def store(context):
        await ended.wait()

    provider = Scripted(store=store)
    one = client(provider)

    async def prompt():
        for number in range(40):
            one.offer(job(number))
        await one.wait_for_room(1 << 40, 0.05)

    with caplog.at_level(logging.WARNING):
        asyncio.run(prompt())
        assert not provider.stored
        one._thread.call_later(0, ended.set)
        one.drained().result(5.0)
    assert sorted(provider.stored) == list(range(40))
    assert not caplog.records


def test_no_more_stores_run_at_once_than_allowed_whoever_hands_them_over(client):
    running, most = [], []

    async def store(context):
        running.append(context)
        most.append(len(running))
        await asyncio.sleep(0.005)
        running.remove(context)

    provider = Scripted(store=store)
    one = client(provider, concurrent_stores=4)
    threads = [threading.Thread(target=lambda start=start: [one.offer(job(start + n)) for n in range(25)]) for start in range(0, 100, 25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one.drained().result(5.0)
    assert sorted(provider.stored) == list(range(100)) and max(most) == 4


def test_a_full_queue_takes_nothing_until_something_is_stored(client):
    gate = threading.Event()

    async def store(context):
        while not gate.is_set():
            await asyncio.sleep(0.005)

    provider = Scripted(store=store)
    one = client(provider, queue_bytes=100_000)
    assert one.offer(job(1, 300_000)), "one that is larger than the queue is taken alone"
    assert not one.offer(job(2)) and not one.has_room(1)
    began = time.monotonic()
    assert not asyncio.run(one.wait_for_room(1, 0.1))
    assert time.monotonic() - began < 0.5
    threading.Timer(0.05, gate.set).start()
    assert asyncio.run(one.wait_for_room(1, 5.0)) and one.offer(job(3))
    one.drained().result(5.0)
    assert provider.stored == [1, 3]


def test_starts_and_ends_are_announced_in_order_and_waited_for_briefly(client, caplog):
    may_go_on = threading.Event()
    provider = Scripted(told=lambda: may_go_on.wait(20))
    one = client(provider)

    async def prompt(number):
        await one.notify("start", f"p{number}", 0.05)
        await one.notify("end", f"p{number}", 0.05)

    with caplog.at_level(logging.WARNING):
        asyncio.run(prompt(1))
        assert provider.events == [("start", "p1")], "nobody waits until it has come back"
        asyncio.run(prompt(2))
        may_go_on.set()
        one._thread.submit(asyncio.sleep(0)).result(20)
    assert provider.events == [("start", "p1"), ("end", "p1"), ("start", "p2"), ("end", "p2")]
    assert not caplog.records


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_a_provider_raises_when_it_is_told_something_is_only_logged(client, caplog, error):
    def told():
        raise error

    async def aclose():
        raise error

    provider = Scripted(seven, told=told)
    provider.aclose = aclose
    one = client(provider)
    asyncio.run(one.notify("start", "p", 5.0))
    assert asyncio.run(one.lookup_all([context(0)], 1.0))[0].outputs == [[7]]
    one.close(1.0)
    assert "failed at the start" in caplog.text and "could not be closed" in caplog.text


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), Rogue()], ids=lambda error: type(error).__name__)
def test_an_attribute_that_raises_anything_has_its_default(client, error):
    class Odd(Scripted):
        @property
        def read_only(self):
            raise error

    assert client(Odd()).is_writable()


def test_closing_ends_the_thread_and_tells_the_provider(client):
    provider = Scripted(seven)
    closed = []

    async def aclose():
        closed.append(True)

    provider.aclose = aclose
    one = client(provider)
    asyncio.run(one.lookup_all([context(0)], 1.0))
    one.close(1.0)
    assert closed == [True]
    assert not [thread for thread in threading.enumerate() if thread.ident in provider.threads]


def test_limits_must_be_positive():
    with pytest.raises(ValueError, match="lookup_timeout_s"):
        ProviderLimits(lookup_timeout_s=0)


def test_a_store_that_cancels_itself_late_harms_no_other(client):
    stored = []

    class Odd(CacheProvider):
        async def on_lookup(self, context):
            return None

        async def on_store(self, context, value):
            stored.append(context.node_id)
            if context.node_id == "0":
                asyncio.current_task().cancel()  # noticed at the task's next wait, which is not in this call any more

    one = client(Odd(), concurrent_stores=1)
    for number in range(3):
        assert one.offer(job(number))
    one.drained().result(5)
    assert stored == ["0", "1", "2"] and one.stats().stores == 3 and one.stats().queued == 0


def test_stores_that_never_wait_leave_the_loop_its_turns(client):
    class Busy(CacheProvider):
        async def on_lookup(self, context):
            return CacheValue([[1]])

        async def on_store(self, context, value):
            threading.Event().wait(0.02)

    one = client(Busy(), concurrent_stores=1)
    for number in range(100):
        assert one.offer(job(number))
    asyncio.run(one.lookup_all([context(200)], 1.0))
    assert one.stats().hits == 1 and one.stats().queued > 50
    one.drained().result(10)
    assert one.stats().stores == 100
