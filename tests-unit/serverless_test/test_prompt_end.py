"""How the end of a prompt is found out, with a server that answers by script and a clock that the test moves."""

import asyncio

import aiohttp
import pytest

from serverless.prompt_end import Patience, PromptLost, PromptWait
from serverless.server_api import ServerUnreachable
from serverless.server_events import LOST, Event

ENTRY = {"outputs": {"1": {}}, "status": {"status_str": "success", "messages": []}}
PATIENCE = Patience(0.001, 15.0, 2.0)
REFUSED, BUSY, RESET = ConnectionRefusedError("refused"), TimeoutError("slow"), aiohttp.ServerDisconnectedError()


class Answers:
    """One step of the script for each look: (history, is queued, history again), or an error."""

    def __init__(self, *steps, seconds_per_look=1.0):
        self.steps, self.looks, self.now_s, self._seconds = list(steps), 0, 0.0, seconds_per_look
        self._again = None

    def clock(self):
        return self.now_s

    async def history_entry(self, prompt_id):
        if self._again is not None:
            again, self._again = self._again[0], None
            return again
        self.now_s += self._seconds
        step = self.steps[min(self.looks, len(self.steps) - 1)]
        self.looks += 1
        if isinstance(step, BaseException):
            raise ServerUnreachable("GET /history", step)
        self._step = step
        return step[0]

    async def is_queued(self, prompt_id):
        if not self._step[1]:
            self._again = [self._step[2]]
        return self._step[1]


async def end(answers, *events):
    queue = asyncio.Queue()
    for event in events:
        queue.put_nowait(event)
    return await PromptWait(answers, "p", queue, PATIENCE, clock=answers.clock).end(ask_now=True)


async def test_a_prompt_in_the_history_has_ended():
    assert (await end(Answers((ENTRY, False, None)))).entry == ENTRY


async def test_a_prompt_that_ends_between_two_questions_is_found_in_the_history():
    assert (await end(Answers((None, False, ENTRY)))).entry == ENTRY


async def test_a_queued_prompt_is_waited_for():
    answers = Answers((None, True, None), (None, True, None), (ENTRY, False, None))
    await end(answers)
    assert answers.looks == 3


async def test_a_prompt_unknown_to_the_server_is_lost():
    with pytest.raises(PromptLost, match="does not know prompt p any more"):
        await end(Answers((None, False, None)))


async def test_the_history_may_come_a_moment_after_the_prompts_end():
    answers = Answers((None, False, None), (ENTRY, False, None), seconds_per_look=0.1)
    assert (await end(answers, Event("executing", {"node": None}))).entry == ENTRY


async def test_an_error_message_is_enough_when_the_history_never_comes():
    told = Event("execution_error", {"node_id": "1"})
    found = await end(Answers((None, False, None)), told)
    assert found.messages("execution_error") == [{"node_id": "1"}] and found.entry["status"]["status_str"] == "error"


async def test_nodes_that_ran_are_noted_once():
    events = [Event("executing", {"node": node}) for node in ("3", "5", "3", None)]
    assert (await end(Answers((None, True, None), (ENTRY, False, None)), *events)).ran == ("3", "5")


async def test_a_prompt_is_lost_when_the_server_refuses_connections():
    with pytest.raises(PromptLost, match="the ComfyUI server died while the prompt ran"):
        await end(Answers(REFUSED), LOST)


async def test_a_server_that_is_busy_is_waited_for_however_long():
    answers = Answers(*[BUSY] * 50, (ENTRY, False, None))
    assert (await end(answers)).entry == ENTRY and answers.looks == 51


async def test_other_errors_are_retried_until_the_time_is_up():
    with pytest.raises(PromptLost, match="no answer for 15 s"):
        await end(Answers(RESET))
    assert (await end(Answers(*[RESET] * 10, (ENTRY, False, None)))).entry == ENTRY
