"""The worker runs what is queued, applies what was asked for between prompts, and leaves no memory lying about."""

import threading
from types import SimpleNamespace

import pytest

from app.running.model_upkeep import ModelUpkeep
from app.running.worker import PromptWorker
from comfy.weight_files.fresh_memory import FreshMemory
from comfy.weight_files.spare_memory import spare_memory
from comfy_execution.prompts.queue import PromptQueue

MODEL_BYTES = 32 << 20


class Executor:
    """Loads and drops something in each prompt; remembers what else it was told."""

    success, history_result, status_messages = True, {}, []

    def __init__(self):
        self.ran, self.told, self.spare_bytes = [], [], []

    def execute(self, prompt, prompt_id, extra_data, execute_outputs):
        self.ran.append((prompt_id, extra_data))
        FreshMemory(MODEL_BYTES)
        self.spare_bytes.append(spare_memory().total_bytes())
        if prompt.get("fails"):
            raise RuntimeError("the executor is broken")

    def reset(self):
        self.told.append("reset")
        FreshMemory(MODEL_BYTES)

    def clear_models(self, why):
        self.told.append(why)


class Models:
    """Counts what it is told."""

    def __init__(self):
        self.told = []

    def unload_all_models(self):
        self.told.append("unload")

    def soft_empty_cache(self, force=False):
        self.told.append("empty")


@pytest.fixture
def running():
    """(queue, executor) of a worker that runs."""
    spare_memory().release()
    server = SimpleNamespace(client_id=None, last_prompt_id=None, queue_updated=lambda: None)
    queue, executor = PromptQueue(server), Executor()
    worker = PromptWorker(queue, server, executor, PromptQueue.ExecutionStatus, ModelUpkeep(Models(), spare_memory().release, lambda: True))
    worker.start()
    yield queue, executor
    worker.stop()


def eventually(condition):
    """Wait up to 10 s."""
    waited = threading.Event()
    for _ in range(1000):
        if condition():
            return True
        waited.wait(0.01)
    return False


def test_memory_of_what_a_prompt_dropped_goes_back_at_its_end(running):
    queue, executor = running
    queue.put((0, "first", {}, {"a": 1}, [], {"secret": 2}))
    assert eventually(lambda: "first" in queue.history)
    assert executor.ran == [("first", {"a": 1, "secret": 2})] and executor.spare_bytes[0] >= MODEL_BYTES
    assert eventually(lambda: spare_memory().total_bytes() == 0)


def test_a_broken_executor_is_an_error_of_that_prompt_and_the_next_one_runs(running):
    queue, executor = running
    queue.put((0, "bad", {"fails": True}, {}, [], {}))
    assert eventually(lambda: "bad" in queue.history)
    assert queue.history["bad"]["status"]["status_str"] == "error"
    executor.success = True
    queue.put((1, "good", {}, {}, [], {}))
    assert eventually(lambda: "good" in queue.history) and queue.history["good"]["status"]["completed"]


def test_asked_to_free_memory_it_forgets_results_and_models_and_gives_memory_back(running):
    queue, executor = running
    queue.set_flag("free_memory", True)
    assert eventually(lambda: executor.told == ["reset", "POST /free"])
    assert eventually(lambda: spare_memory().total_bytes() == 0)


@pytest.mark.parametrize("torch_is_imported", [True, False])
def test_models_are_looked_after_only_where_there_can_be_any(torch_is_imported):
    models = Models()
    upkeep = ModelUpkeep(models, lambda: 0, lambda: torch_is_imported)
    upkeep.unload_models()
    upkeep.trim()
    assert models.told == (["unload", "empty"] if torch_is_imported else [])
