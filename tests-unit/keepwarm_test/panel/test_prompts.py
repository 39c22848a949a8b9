"""What ended prompts and the running one used, for the chart and the receipts."""

from types import SimpleNamespace

from custom_nodes.keepwarm.panel.prompts import Prompts, point


def receipt(tier, seconds):
    return {"model": "m", "tier": tier, "seconds": seconds}


def entry(nodes=2, cached=(), models=None, ended_ms=5000):
    messages = [("execution_start", {"timestamp": 1000}), ("execution_cached", {"nodes": list(cached), "timestamp": 1001})]
    status = {"messages": [*messages, ("execution_success", {"timestamp": ended_ms})]}
    found = {"prompt": (0, "id", dict.fromkeys(map(str, range(nodes)))), "status": status}
    return found if models is None else {**found, "models": models}


class Queue:
    """A queue of the given history and running prompts."""

    def __init__(self):
        self.history, self.running, self.whole_reads = {}, [], 0

    def get_history(self, max_items, map_function):
        self.whole_reads += max_items > 1
        return {key: map_function(value) for key, value in list(self.history.items())[-max_items:]}

    def get_current_queue_volatile(self):
        return self.running, []


def test_a_point_counts_models_that_were_there_and_models_that_were_read():
    models = [receipt("ram", 2), receipt("vram", 1.5), receipt("store", 3), receipt("disk", 4), receipt("none", 0), receipt("bypass", 0)]
    shown = point("p", entry(3, ["1"], models))
    assert shown == {"id": "p", "at": 5.0, "hits": 3, "reads": 1, "saved_s": 6.5, "read_s": 4, "cached_nodes": 1, "nodes": 3}


def test_a_point_of_a_server_without_receipts_or_of_a_prompt_without_messages():
    assert point("p", entry(cached=["0", "1"]))["cached_nodes"] == 2
    assert point("p", {"prompt": (0, "p", {}), "status": None})["at"] is None


def test_the_history_is_read_again_only_when_another_prompt_has_ended():
    queue = Queue()
    prompts = Prompts(queue, None)
    assert prompts.points() == [] and queue.whole_reads == 0
    queue.history["a"] = entry()
    assert [one["id"] for one in prompts.points()] == ["a"]
    prompts.points()
    assert queue.whole_reads == 1
    queue.history["b"] = entry()
    assert [one["id"] for one in prompts.points()] == ["a", "b"]


def test_the_running_prompt_is_shown_and_else_the_last_one():
    queue, cache = Queue(), SimpleNamespace(receipts=lambda prompt_id: [prompt_id])
    prompts = Prompts(queue, cache)
    prompts.points()
    assert prompts.current() == {"id": None, "running": False, "receipts": []}
    queue.history["a"] = entry()
    queue.running = [(0, "b", {})]
    prompts.points()
    assert prompts.current() == {"id": "b", "running": True, "receipts": ["b"]}
    queue.running = []
    assert prompts.current() == {"id": "a", "running": False, "receipts": ["a"]}
    assert Prompts(queue, None).current()["receipts"] == []
