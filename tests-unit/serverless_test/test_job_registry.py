"""Jobs by id and input: who shares a run, and who may end it."""

import asyncio
import uuid

import pytest

from serverless.job_book import BookFull, IdInUse, JobBook
from serverless.job_registry import JobRegistry, job_key, prompt_id_for


class Work:
    """Coroutines that wait until ``go`` is set."""

    def __init__(self):
        self.begun = self.cancelled = 0
        self.go = asyncio.Event()

    async def __call__(self):
        self.begun += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return {"number": self.begun}


async def started(registry, work, key="key"):
    task = asyncio.create_task(registry.run(key, work))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


def test_job_keys_ignore_order_and_prompt_ids_follow_them():
    key = job_key("job", {"a": 1, "b": 2})
    assert key == job_key("job", {"b": 2, "a": 1}) != job_key("job", {"a": 1}) and key != job_key("other", {"a": 1, "b": 2})
    assert prompt_id_for(key) == prompt_id_for(key) != prompt_id_for(key, 1)
    assert str(uuid.UUID(prompt_id_for(key))) == prompt_id_for(key), "servers take ids of this form only"


async def test_callers_of_one_key_share_a_run_and_get_results_of_their_own():
    registry, work = JobRegistry(), Work()
    first, second = await started(registry, work), await started(registry, work)
    work.go.set()
    results = await asyncio.gather(first, second)
    assert results == [{"number": 1}] * 2 and results[0] is not results[1] and work.begun == 1
    assert await registry.run("key", work) == {"number": 2}, "what has ended is not remembered"


async def test_only_the_last_caller_that_leaves_ends_the_run():
    registry, work = JobRegistry(), Work()
    first, second = await started(registry, work), await started(registry, work)
    for task, cancelled in ((first, 0), (second, 1)):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert work.cancelled == cancelled


async def test_a_caller_that_arrives_while_a_run_is_ending_gets_a_new_one():
    registry, release, calls = JobRegistry(), asyncio.Event(), []

    async def slow_to_end():
        calls.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            await release.wait()

    async def quick():
        return {"quick": True}

    leaving = await started(registry, slow_to_end)
    leaving.cancel()
    await asyncio.sleep(0)
    coming = await started(registry, quick)
    release.set()
    assert await coming == {"quick": True} and calls == ["begun"]


async def test_a_run_that_raises_raises_for_every_caller():
    registry = JobRegistry()

    async def fail():
        raise RuntimeError("no")

    results = await asyncio.gather(registry.run("key", fail), registry.run("key", fail), return_exceptions=True)
    assert [str(result) for result in results] == ["no", "no"]


async def finish(job, report):
    return {"done": job["id"]}


async def test_the_book_keeps_the_newest_that_have_ended():
    book = JobBook(finish, keep=2)
    for number in range(4):
        await asyncio.wait([book.take({}, str(number)).task])
    assert [book.get(str(number)) is not None for number in range(4)] == [False, False, True, True]


async def test_the_book_refuses_what_is_too_much_or_contradicts_itself():
    forever = asyncio.Event()

    async def wait(job, report):
        await forever.wait()

    book = JobBook(wait, max_waiting=1)
    book.take({}, "1")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    book.take({}, "2")
    assert (book.running, book.waiting) == (1, 1)
    with pytest.raises(BookFull):
        book.take({}, "3")
    with pytest.raises(IdInUse):
        book.take({"other": 1}, "1")
    assert book.take({}, "1") is book.get("1")
    await book.close()
    assert {book.get(job_id).status for job_id in "12"} == {"CANCELLED"}


async def test_the_book_tells_of_a_handler_that_raises_and_takes_the_job_again():
    async def fail(job, report):
        raise RuntimeError("no")

    book = JobBook(fail)
    job = book.take({}, "1")
    await asyncio.wait([job.task])
    assert job.answer()["status"] == "FAILED" and "RuntimeError: no" in job.answer()["error"]
    assert book.take({}, "1") is not job
    await book.close()
