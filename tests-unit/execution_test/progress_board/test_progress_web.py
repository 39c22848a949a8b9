"""What the owner of a prompt is told about its progress, how often, and that nobody else is told."""

import contextvars
import json

import pytest
from executor_harness import FakeServer

from comfy_execution.graph import DynamicPrompt
from comfy_execution.progress import (
    NodeState,
    ProgressHandler,
    ProgressHook,
    ProgressRegistry,
    WebUIProgressHandler,
    add_progress_handler,
    get_progress_state,
    reset_progress_state,
)
from comfy_execution.progress_board.web import BURST_BYTES, BYTES_PER_S
from comfy_execution.utils import CurrentNodeContext
from protocol import BinaryEventTypes


class Timers:
    """A clock that moves when told, and calls what was put off."""

    def __init__(self):
        self.now_s = 100.0
        self.pending = []

    def clock(self):
        return self.now_s

    def call_later(self, delay_s, function):
        timer = Timer(self.now_s + delay_s, function)
        self.pending.append(timer)
        return timer

    def advance(self, seconds):
        self.now_s += seconds
        due = [timer for timer in self.pending if timer.due_s <= self.now_s]
        self.pending = [timer for timer in self.pending if timer.due_s > self.now_s]
        for timer in due:
            if not timer.is_cancelled:
                timer.function()


class Timer:
    def __init__(self, due_s, function):
        self.due_s, self.function, self.is_cancelled = due_s, function, False

    def cancel(self):
        self.is_cancelled = True


class Screen:
    """A registry with a web handler on a fake server."""

    def __init__(self, client_id="owner", prompt=None):
        self.server, self.timers = FakeServer(), Timers()
        self.server.client_id = client_id
        self.registry = ProgressRegistry("p", DynamicPrompt(prompt or {}))
        self.handler = WebUIProgressHandler(self.server, self.timers.call_later, self.timers.clock)
        self.handler.set_registry(self.registry)
        self.registry.register_handler(self.handler)

    def snapshots(self):
        return [data["nodes"] for event, data, _ in self.server.sent if event == "progress_state"]


@pytest.fixture
def screen():
    return Screen()


def test_the_first_change_is_shown_at_once_and_the_next_within_a_quarter_second(screen):
    screen.registry.start_progress("1")
    screen.registry.update_progress("1", 3, 10)
    assert len(screen.snapshots()) == 1
    screen.timers.advance(0.24)
    assert len(screen.snapshots()) == 1
    screen.timers.advance(0.02)
    assert screen.snapshots()[-1] == {
        "1": {
            "value": 3,
            "max": 10,
            "state": "running",
            "node_id": "1",
            "prompt_id": "p",
            "display_node_id": "1",
            "parent_node_id": None,
            "real_node_id": "1",
        }
    }


def test_at_most_four_snapshots_a_second(screen):
    for _ in range(1000):
        screen.registry.update_progress("1", 1, 10)
        screen.timers.advance(0.01)
    assert 35 <= len(screen.snapshots()) <= 41


def test_snapshots_are_complete_and_leave_pending_nodes_out(screen):
    screen.registry.ensure_entry("pending")
    for node_id in "abc":
        screen.registry.start_progress(node_id)
        screen.registry.finish_progress(node_id)
        screen.timers.advance(0.3)
    screen.registry.start_progress("d")
    screen.registry.fail_progress("d")
    screen.registry.close()
    assert {node_id: entry["state"] for node_id, entry in screen.snapshots()[-1].items()} == {
        "a": "finished",
        "b": "finished",
        "c": "finished",
        "d": "error",
    }


def test_the_last_state_is_always_sent_once(screen):
    screen.registry.start_progress("1")
    screen.registry.finish_progress("1")
    screen.registry.close()
    screen.registry.close()
    screen.timers.advance(5)
    assert [nodes["1"]["state"] for nodes in screen.snapshots()] == ["running", "finished"]


def test_bytes_of_large_graphs_stay_within_the_budget():
    screen = Screen()
    seconds = 20
    for index in range(10_000):
        screen.registry.start_progress(str(index))
        screen.registry.finish_progress(str(index))
        screen.timers.advance(seconds / 10_000)
    total_bytes = sum(len(json.dumps({"prompt_id": "p", "nodes": nodes})) for nodes in screen.snapshots())
    last_bytes = len(json.dumps(screen.snapshots()[-1]))
    assert total_bytes <= BURST_BYTES + seconds * BYTES_PER_S + last_bytes
    screen.registry.close()
    assert len(screen.snapshots()[-1]) == 10_000


def test_without_an_owner_nothing_is_sent():
    screen = Screen(client_id=None)
    screen.registry.update_progress("1", 1, 2, ("JPEG", "image", None))
    screen.registry.close()
    assert screen.server.sent == [] and screen.timers.pending == []


def test_the_owner_is_fixed_when_the_prompt_starts(screen):
    screen.server.client_id = "somebody else"
    screen.registry.start_progress("1")
    assert [sid for _, _, sid in screen.server.sent] == ["owner"]


@pytest.mark.parametrize(
    "flags, event",
    [
        ({"supports_preview_metadata": True}, BinaryEventTypes.PREVIEW_IMAGE_WITH_METADATA),
        ({"supports_preview_metadata": 1}, BinaryEventTypes.UNENCODED_PREVIEW_IMAGE),
        ({}, BinaryEventTypes.UNENCODED_PREVIEW_IMAGE),
    ],
)
def test_previews_go_out_in_the_form_the_client_knows(screen, flags, event):
    screen.server.sockets_metadata = {"owner": {"feature_flags": flags}}
    image = ("JPEG", "picture", 512)
    screen.registry.update_progress("1", 1, 2, image)
    (sent,) = [message for message in screen.server.sent if message[0] != "progress_state"]
    metadata = {"node_id": "1", "prompt_id": "p", "display_node_id": "1", "parent_node_id": None, "real_node_id": "1"}
    expected = (image, metadata) if event is BinaryEventTypes.PREVIEW_IMAGE_WITH_METADATA else image
    assert sent == (event, expected, "owner")


def test_children_of_an_expansion_name_their_parent_and_what_shows_them():
    screen = Screen(prompt={"1": {}})
    screen.registry.dynprompt.add_ephemeral_node("1.0.0.a", {}, "1", "1")
    screen.registry.start_progress("1.0.0.a")
    entry = screen.snapshots()[0]["1.0.0.a"]
    assert (entry["display_node_id"], entry["parent_node_id"], entry["real_node_id"]) == ("1", "1", "1")


def test_registry_tells_enabled_handlers_only():
    calls = []

    class Handler(ProgressHandler):
        def start_handler(self, node_id, state, prompt_id):
            calls.append(("start", node_id, state["state"], prompt_id))

        def finish_handler(self, node_id, state, prompt_id):
            calls.append(("finish", node_id, state["value"], state["max"]))

        def reset(self):
            calls.append("reset")

    registry = ProgressRegistry("p", DynamicPrompt({}))
    registry.register_handler(Handler("mine"))
    registry.start_progress("1")
    registry.disable_handler("mine")
    registry.update_progress("1", 4, 8)
    registry.enable_handler("mine")
    registry.finish_progress("1")
    registry.unregister_handler("mine")
    registry.unregister_handler("mine")
    assert calls == [("start", "1", NodeState.Running, "p"), ("finish", "1", 8, 8), "reset"]


def test_a_straggler_of_an_earlier_prompt_does_not_report_in_the_next():
    reset_progress_state("first", DynamicPrompt({}))
    straggler = contextvars.copy_context()
    reset_progress_state("second", DynamicPrompt({}))
    straggler.run(lambda: get_progress_state().update_progress("1", 1, 2))
    assert straggler.run(get_progress_state).is_closed
    assert get_progress_state().prompt_id == "second" and get_progress_state().nodes == {}


def test_threads_without_a_context_reach_the_latest_prompt():
    reset_progress_state("latest", DynamicPrompt({}))
    assert contextvars.Context().run(get_progress_state).prompt_id == "latest"


def run_hook(server, client_id, check=lambda: None, **arguments):
    server.client_id = client_id
    reset_progress_state("p", DynamicPrompt({}))
    add_progress_handler(WebUIProgressHandler(server, Timers().call_later))
    with CurrentNodeContext("p", "7", 0):
        ProgressHook(server, check)(3, 10, **arguments)
    return [message for message in server.sent if message[0] == "progress"]


def test_the_hook_reports_for_the_running_node():
    assert run_hook(FakeServer(), "owner") == [("progress", {"value": 3, "max": 10, "prompt_id": "p", "node": "7"}, "owner")]
    assert get_progress_state().nodes["7"]["value"] == 3
    assert run_hook(FakeServer(), "owner", node_id="9")[0][1]["node"] == "9"


def test_the_hook_sends_nothing_when_no_client_owns_the_prompt():
    server = FakeServer()
    run_hook(server, None)
    assert server.sent == [] and get_progress_state().nodes["7"]["value"] == 3


def test_the_hook_is_a_cancellation_point():
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_hook(FakeServer(), "owner", stop)
    assert get_progress_state().nodes == {}
