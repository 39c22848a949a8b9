"""The loop and the worker thread, and coroutines that move between them."""

import asyncio
import contextlib
import contextvars
import ctypes
import functools
import threading
import time
import weakref

import pytest

from comfy_execution.executor.hop import call_on_worker, step_within, to_loop, to_worker, travel
from comfy_execution.executor.threads import ExecutionThreads, NodeWorker, WorkerLost


@pytest.fixture
def threads():
    made = ExecutionThreads()
    yield made
    made.close()


def name():
    return threading.current_thread().name


def test_no_thread_exists_before_it_is_needed(threads):
    before = threading.active_count()
    ExecutionThreads().close()
    assert threading.active_count() == before


def test_a_coroutine_moves_as_a_whole(threads):
    async def journey():
        seen = [name()]
        await to_worker(threads.worker)
        seen.append(name())
        await to_worker(threads.worker)
        seen.append(await inner())
        await asyncio.sleep(0)
        seen.append(name())
        await to_worker(threads.worker)
        await to_loop(threads.worker)
        await to_loop(threads.worker)
        seen.append(name())
        return seen

    async def inner():
        await to_worker(threads.worker)
        return name()

    async def main():
        return await travel(journey())

    seen = threads.loop.run(main())
    assert seen == ["execution-loop", "node-worker", "node-worker", "execution-loop", "execution-loop"]


def test_errors_come_out_from_both_sides(threads):
    async def fails(on_worker):
        if on_worker:
            await to_worker(threads.worker)
        raise ValueError(name())

    async def main(on_worker):
        await travel(fails(on_worker))

    for on_worker, where in ((True, "node-worker"), (False, "execution-loop")):
        with pytest.raises(ValueError, match=where):
            threads.loop.run(main(on_worker))


def test_errors_thrown_by_an_await_arrive_inside(threads):
    async def journey():
        await to_worker(threads.worker)
        await to_loop(threads.worker)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 0.001)
        await to_worker(threads.worker)
        return name()

    async def main():
        return await travel(journey())

    assert threads.loop.run(main()) == "node-worker"


def test_the_loop_is_free_while_the_coroutine_is_on_the_worker(threads):
    async def main():
        loop, met = asyncio.get_running_loop(), threading.Event()

        async def journey():
            await to_worker(threads.worker)
            loop.call_soon_threadsafe(met.set)
            return met.wait(10)

        return await travel(journey())

    assert threads.loop.run(main())


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_cancellation_waits_until_the_worker_is_done(threads, comes_back):
    entered, leave, seen = threading.Event(), threading.Event(), []

    async def journey():
        try:
            await to_worker(threads.worker)
            entered.set()
            leave.wait(10)
            if comes_back:
                await to_loop(threads.worker)
        finally:
            seen.append(name())

    async def main():
        task = asyncio.create_task(_travelling(journey()))
        await asyncio.to_thread(entered.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        leave.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    threads.loop.run(main())
    assert seen == ["execution-loop" if comes_back else "node-worker"]


async def _travelling(coroutine):
    return await travel(coroutine)


def test_calls_on_the_worker_from_the_loop(threads):
    class Stop(BaseException):
        pass

    def stop():
        raise Stop

    def end():
        raise StopIteration

    async def main():
        assert await call_on_worker(threads.worker, name) == "node-worker"
        with pytest.raises(Stop):
            await call_on_worker(threads.worker, stop)
        with pytest.raises(RuntimeError, match="StopIteration"):
            await call_on_worker(threads.worker, end)
        return await call_on_worker(threads.worker, name)

    assert threads.loop.run(main()) == "node-worker"


def test_context_variables_travel_along(threads):
    variable = contextvars.ContextVar("variable", default="unset")

    async def journey():
        variable.set("set on the loop")
        await to_worker(threads.worker)
        return variable.get()

    async def main():
        return await travel(journey())

    assert threads.loop.run(main()) == "set on the loop"


def test_a_scope_is_entered_for_each_step_only(threads):
    open_scopes, seen = [], []

    @contextlib.contextmanager
    def scope():
        open_scopes.append(1)
        yield
        open_scopes.pop()

    async def inside():
        seen.append(len(open_scopes))
        await asyncio.sleep(0)
        seen.append(len(open_scopes))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 0.001)
        return "result"

    async def main():
        task = asyncio.create_task(asyncio.wait_for(step_within(scope, inside()), 10))
        while not task.done():
            assert open_scopes == []
            await asyncio.sleep(0)
        return task.result()

    assert threads.loop.run(main()) == "result" and seen == [1, 1]


def end_from_outside(thread):
    """Have *thread* end at its next step, as packs that stop threads do."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))


def test_a_job_that_raises_leaves_the_worker_to_the_next_one(threads, caplog):
    async def main():
        return await call_on_worker(threads.worker, name)

    def fail():
        raise SystemExit

    threads.worker.submit(fail)
    assert threads.loop.run(main()) == "node-worker" and "A job of the thread node-worker failed" in caplog.text


def test_what_a_lost_worker_was_to_do_fails_and_the_next_job_runs(threads, caplog, monkeypatch):
    monkeypatch.setattr(NodeWorker, "_run", lambda self, jobs: jobs.get())

    async def journey():
        await to_worker(threads.worker)

    async def main(direct):
        await (call_on_worker(threads.worker, name) if direct else travel(journey()))

    for direct in (True, False):
        with pytest.raises(WorkerLost, match="ended from outside"):
            threads.run(main(direct))
    assert caplog.text.count("node-worker is gone") == 2
    monkeypatch.undo()

    async def hello():
        return await call_on_worker(threads.worker, name)

    assert threads.run(hello()) == "node-worker"


def test_a_worker_lost_while_idle_costs_nobody_anything(threads):
    async def main():
        return await call_on_worker(threads.worker, name)

    assert threads.run(main()) == "node-worker"
    first = threads.worker._thread
    threads.worker._jobs.put(None)
    first.join(5)
    assert threads.run(main()) == "node-worker" and threads.worker._thread is not first


def test_a_worker_ended_while_it_works_goes_on_after_that(threads):
    entered = threading.Event()

    def busy():
        entered.set()
        while True:
            time.sleep(0.001)

    async def main(function):
        return await call_on_worker(threads.worker, function)

    def end():
        assert entered.wait(5)
        end_from_outside(threads.worker._thread)

    ender = threading.Thread(target=end)
    ender.start()
    with pytest.raises(SystemExit):
        threads.run(main(busy))
    ender.join()
    assert threads.run(main(name)) == "node-worker"


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_callback_that_raises_does_not_end_the_loop_or_lose_what_is_due_on_it(threads, error):
    def fail():
        raise error

    async def main():
        loop = asyncio.get_running_loop()
        loop.call_soon(fail)
        await asyncio.sleep(0)
        loop.stop()
        await asyncio.sleep(0.01)
        return name()

    assert threads.run(main()) == "execution-loop"


def test_a_loop_whose_thread_is_gone_fails_its_callers_and_is_started_again(threads, caplog, monkeypatch):
    async def forever():
        threads.loop._closing.set()
        asyncio.get_running_loop().stop()
        await asyncio.Event().wait()

    async def ignores_its_end():
        with contextlib.suppress(asyncio.CancelledError):
            await forever()
        await asyncio.Event().wait()

    monkeypatch.setattr("comfy_execution.executor.threads.CLOSE_TIMEOUT_S", 0.01)
    with pytest.raises(WorkerLost, match="execution loop"):
        threads.run(ignores_its_end())

    async def main():
        return name()

    assert threads.run(main()) == "execution-loop" and "execution-loop is gone" in caplog.text


def test_the_loop_refuses_to_wait_for_itself(threads):
    async def nothing():
        pass

    async def main():
        with pytest.raises(RuntimeError, match="cannot wait for itself"):
            threads.loop.run(nothing())
        return True

    assert threads.loop.run(main())


def test_closing_cancels_what_runs_and_the_threads_can_start_again(threads):
    ended, started = [], threading.Event()

    async def forever():
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name())

    task = asyncio.run_coroutine_threadsafe(forever(), threads.loop.loop)
    assert started.wait(5)
    threads.close()
    assert ended == ["execution-loop"] and task.cancelled()

    async def hello():
        return await call_on_worker(threads.worker, name)

    assert threads.loop.run(hello()) == "node-worker"


def test_closing_leaves_a_hanging_node_behind(threads, caplog):
    hang, entered = threading.Event(), threading.Event()

    def job():
        entered.set()
        hang.wait(30)

    threads.worker.submit(job)
    assert entered.wait(5)
    threads.worker.close(timeout_s=0.01)
    hang.set()
    assert "still running" in caplog.text


def test_closing_both_waits_for_each_within_its_limit(threads):
    hang, entered = threading.Event(), threading.Event()

    async def block():
        entered.set()
        hang.wait(30)

    asyncio.run_coroutine_threadsafe(block(), threads.loop.loop)
    threads.worker.submit(lambda: hang.wait(30))
    assert entered.wait(5)
    began_s = time.monotonic()
    threads.close(timeout_s=0.05)
    assert time.monotonic() - began_s < 5
    hang.set()


def test_the_worker_keeps_nothing_of_a_job_while_it_waits():
    class Result:
        """What a job refers to."""

    worker, done, kept = NodeWorker(), threading.Event(), Result()
    watched = weakref.ref(kept)
    worker.submit(functools.partial(lambda kept: done.set(), kept))
    del kept
    assert done.wait(10)
    deadline_s = time.monotonic() + 10
    while watched() is not None and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert watched() is None
    worker.close()
