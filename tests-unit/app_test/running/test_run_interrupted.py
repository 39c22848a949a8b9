"""Ctrl-C while ``--run`` runs a workflow: it is heard at any moment, and the run ends."""

import asyncio
import io
import types

import pytest
from rich.console import Console

import execution
from app.running import run_once
from comfy_execution.prompts.queue import ExecutionStatus, PromptQueue


class Observer:
    def queue_updated(self):
        pass


@pytest.fixture
def queue(monkeypatch):
    """A queue whose *asked* notes when the running prompt is asked to stop."""

    async def good(prompt_id, prompt, targets):
        return True, None, ["1"], {}

    monkeypatch.setattr(execution, "validate_prompt", good)
    asked = []
    made = PromptQueue(Observer(), interrupt=lambda: asked.append(True), withdraw_interrupt=asked.clear)
    made.asked = asked
    return made


def run(monkeypatch, queue, when_pressed):
    """Run a workflow; *when_pressed* is called with its owner at the moment of Ctrl-C, and the next wait ends if the run has."""
    waits = []

    def wait(owner):
        waits.append(owner)
        if len(waits) == 1:
            when_pressed(owner)
            raise KeyboardInterrupt
        assert not queue.queue, "nobody would end it"

    monkeypatch.setattr(run_once.ConsoleOwner, "wait", wait)
    loop = asyncio.new_event_loop()
    server = types.SimpleNamespace(prompt_queue=queue, send_sync=None)
    try:
        run_once._run(Console(file=io.StringIO()), loop, server, {"1": {"class_type": "Any", "inputs": {}}}, "")
    finally:
        loop.close()
    return waits


def test_a_prompt_that_was_not_begun_is_taken_away(monkeypatch, queue):
    with pytest.raises(run_once.RunError, match="interrupted"):
        run(monkeypatch, queue, lambda owner: None)
    assert queue.get_tasks_remaining() == 0 and not queue.asked


def test_a_running_prompt_stops_even_if_no_node_checks_for_interrupts(monkeypatch, queue):
    def begin(owner):
        (_, prompt_id, *_), _ = queue.get()
        owner.error = {"type": "execution_interrupted"}
        begun.append(prompt_id)

    begun = []
    with pytest.raises(run_once.RunError, match="interrupted"):
        run(monkeypatch, queue, begin)
    assert queue.asked and queue.was_cancelled(begun[0])


def test_a_prompt_that_has_just_ended_is_reported(monkeypatch, queue):
    def finish(owner):
        _, item_id = queue.get()
        queue.task_done(item_id, {"outputs": {}, "meta": {}}, ExecutionStatus("success", True, []))

    assert len(run(monkeypatch, queue, finish)) == 2


def test_a_prompt_that_never_came_into_the_queue_is_not_waited_for(monkeypatch, queue):
    def pressed(row):
        raise KeyboardInterrupt

    monkeypatch.setattr(queue, "put", pressed)
    with pytest.raises(run_once.RunError, match="interrupted"):
        run(monkeypatch, queue, lambda owner: None)
