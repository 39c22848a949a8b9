"""The worker runs what is queued, applies what was asked for between prompts, and leaves no memory lying about."""

import threading
import time
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


class Replaced:
    """Stands for what a pack put in the place of a function: raises *error*, the first *times* (None: always)."""

    def __init__(self, error, original=None, times=None):
        self.error, self.original, self.times, self.calls = error, original, times, 0

    def __call__(self, *arguments, **named):
        self.calls += 1
        if self.times is not None and self.calls > self.times:
            return self.original(*arguments, **named)
        raise self.error("replaced")


@pytest.fixture(params=[RuntimeError, SystemExit, KeyboardInterrupt, BaseException])
def error(request):
    return request.param


def still_runs(queue, executor, prompt_id="after"):
    queue.put((9, prompt_id, {}, {}, [], {}))
    return eventually(lambda: prompt_id in queue.history) and queue.history[prompt_id]["status"]["completed"]


@pytest.mark.parametrize("name", ["unload_models", "trim", "release_spare"])
def test_no_replaced_function_of_the_models_ends_the_worker(running, monkeypatch, error, name):
    queue, executor = running
    broken = Replaced(error)
    monkeypatch.setattr(ModelUpkeep, name, broken)
    queue.set_flag("free_memory", True)
    assert still_runs(queue, executor, "first")
    assert eventually(lambda: broken.calls) and eventually(lambda: "POST /free" in executor.told)
    assert still_runs(queue, executor)


@pytest.mark.parametrize("name", ["get", "get_flags"])
def test_no_replaced_function_of_the_queue_ends_the_worker(running, monkeypatch, error, name):
    queue, executor = running
    broken = Replaced(error, getattr(queue, name), times=2)
    monkeypatch.setattr(queue, name, broken)
    monkeypatch.setattr("app.running.worker.PAUSE_S", 0.01)
    queue.set_flag("wake up", True)
    assert still_runs(queue, executor) and still_runs(queue, executor, "later") and broken.calls > 1


@pytest.mark.parametrize("takes_part", [True, False])
def test_a_prompt_whose_end_cannot_be_noted_ends_as_an_error(running, monkeypatch, error, takes_part):
    queue, executor = running
    original = queue.task_done

    def task_done(*arguments, **named):
        if takes_part:
            original(*arguments, **named)
        raise error("replaced")

    monkeypatch.setattr(queue, "task_done", task_done)
    queue.put((0, "p", {}, {}, [], {}))
    assert eventually(lambda: "p" in queue.history) and not queue.currently_running
    assert queue.history["p"]["status"]["status_str"] == ("success" if takes_part else "error")
    monkeypatch.undo()
    assert still_runs(queue, executor)


def test_a_replaced_executor_may_raise_anything_and_the_owner_is_told(running, monkeypatch, error):
    queue, executor = running
    sent = []
    queue.server.send_sync = lambda *message: sent.append(message)
    executor.status_messages = [("execution_start", {"prompt_id": "earlier"}), ("execution_start", {"prompt_id": "bad"})]
    executor.history_result = {"outputs": {"1": "of an earlier prompt"}}
    monkeypatch.setattr(executor, "execute", Replaced(error))
    queue.put((0, "bad", {}, {"client_id": "me"}, [], {}))
    assert eventually(lambda: sent and sent[-1][0] == "executing")
    entry = queue.history["bad"]
    assert entry["outputs"] == {} and entry["status"]["status_str"] == "error"
    assert [event for event, _ in entry["status"]["messages"]] == ["execution_start", "execution_error"]
    assert [(event, data["prompt_id"], client) for event, data, client in sent] == [
        ("execution_error", "bad", "me"),
        ("executing", "bad", "me"),
    ]
    assert sent[0][1]["exception_message"] == "replaced"


def test_a_server_that_cannot_send_does_not_end_the_worker(running, error):
    queue, executor = running
    queue.server.send_sync, queue.server.client_id = Replaced(error), "me"
    assert still_runs(queue, executor, "first") and still_runs(queue, executor)


def test_rows_of_another_shape_do_not_end_the_worker(running):
    queue, executor = running
    for row in ((0, "short"), (0, "odd", 1, 2, 3), (0, "none", {}, None, None, None)):
        queue.put(row)
    assert still_runs(queue, executor)
    assert eventually(lambda: not queue.currently_running)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_was_ended_from_outside_is_reported_and_restarted(running, monkeypatch, caplog):
    queue, executor = running
    sent = []
    queue.server.send_sync = lambda *message: sent.append(message)

    def ends(worker, item, item_id):
        monkeypatch.undo()
        raise SystemExit

    monkeypatch.setattr(PromptWorker, "_execute", ends)
    began_s = time.monotonic()
    queue.put((0, "lost", {}, {"client_id": "me"}, [], {}))
    assert eventually(lambda: "lost" in queue.history) and time.monotonic() - began_s < 1
    assert queue.history["lost"]["status"]["status_str"] == "error"
    assert [event for event, *_ in sent] == ["execution_error", "executing"] and "started again" in sent[0][1]["exception_message"]
    assert caplog.text.count("prompt-worker is gone") == 1
    assert still_runs(queue, executor)


@pytest.mark.parametrize("torch_is_imported", [True, False])
def test_models_are_looked_after_only_where_there_can_be_any(torch_is_imported):
    models = Models()
    upkeep = ModelUpkeep(models, lambda: 0, lambda: torch_is_imported)
    upkeep.unload_models()
    upkeep.trim()
    assert models.told == (["unload", "empty"] if torch_is_imported else [])


def test_each_start_is_noted_and_what_cannot_be_noted_does_not_run():
    server = SimpleNamespace(client_id=None, last_prompt_id=None, queue_updated=lambda: None)
    queue, noted = PromptQueue(server), []

    def note(prompt_id):
        noted.append(prompt_id)
        if prompt_id == "unnoted":
            raise OSError("the disk is full")

    upkeep = ModelUpkeep(Models(), spare_memory().release, lambda: True)
    worker = PromptWorker(queue, server, Executor(), PromptQueue.ExecutionStatus, upkeep, note)
    worker.start()
    for prompt_id in ("unnoted", "noted"):
        queue.put((0, prompt_id, {}, {}, []))
    eventually(lambda: "noted" in queue.history)
    worker.stop()
    assert noted == ["unnoted", "noted"] and queue.history["unnoted"]["status"]["status_str"] == "error"


def test_what_is_to_be_done_between_prompts_waits_for_the_running_one_and_a_call_that_fails_stops_nothing(running, caplog):
    queue, executor = running
    begun, may_end, called = threading.Event(), threading.Event(), []
    executor.execute = lambda *_: (begun.set(), may_end.wait(10), called.append("prompt"))
    assert queue.between_prompts(lambda: called.append("before")) is False
    assert eventually(lambda: called == ["before"])
    queue.put((0, "runs", {}, {}, [], {}))
    assert begun.wait(10)
    assert queue.between_prompts(lambda: 1 / 0) is True
    assert queue.between_prompts(lambda: called.append("after")) is True
    may_end.set()
    assert eventually(lambda: called == ["before", "prompt", "after"])
    assert "ZeroDivisionError" in caplog.text
