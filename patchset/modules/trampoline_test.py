"""Recursion depth, errors, cancellation and tasks under ``without_recursion``."""

import asyncio

import pytest

from comfy_execution.trampoline import without_recursion


@without_recursion
async def count_down(number):
    if number == 0:
        return 0
    if number % 1000 == 0:
        await asyncio.sleep(0)
    return 1 + await count_down(number - 1)


@without_recursion
async def fail_at(number, seen):
    if number == 0:
        raise KeyError("bottom")
    try:
        await fail_at(number - 1, seen)
    finally:
        seen.append(number)


def test_depth_is_not_bounded_by_the_call_stack():
    assert asyncio.run(count_down(50_000)) == 50_000


def test_errors_pass_through_every_level_in_order():
    seen = []
    with pytest.raises(KeyError, match="bottom"):
        asyncio.run(fail_at(3000, seen))
    assert seen == list(range(1, 3001))


def test_an_error_can_be_caught_on_the_way():
    @without_recursion
    async def guarded(number):
        if number == 0:
            raise ValueError("inner")
        try:
            return await guarded(number - 1)
        except ValueError:
            return number

    assert asyncio.run(guarded(5)) == 1


def test_cancellation_reaches_the_innermost_call():
    reached = []

    @without_recursion
    async def wait_below(number):
        try:
            if number == 0:
                await asyncio.sleep(3600)
            await wait_below(number - 1)
        except asyncio.CancelledError:
            reached.append(number)
            raise

    async def scenario():
        task = asyncio.create_task(wait_below(2))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert reached == [0, 1, 2]


def test_tasks_started_inside_run_by_themselves():
    @without_recursion
    async def sum_tree(depth):
        if depth == 0:
            return 1
        left = asyncio.create_task(sum_tree(depth - 1))
        return await sum_tree(depth - 1) + await left

    assert asyncio.run(sum_tree(6)) == 64
