"""Order, history paging, bounds and flags of the prompt queue."""

import threading

import pytest

from comfy_execution.prompts import history_size
from comfy_execution.prompts import queue as prompt_queue
from comfy_execution.prompts.queue import DuplicatePromptId, ExecutionStatus, PromptQueue, QueueRow

SUCCESS = ExecutionStatus("success", True, [("execution_success", {"prompt_id": "p"})])


class Observer:
    """Counts updates and notes, at each, what the queue holds."""

    def __init__(self):
        self.queue = None
        self.updates = []

    def queue_updated(self):
        self.updates.append((self.queue.get_tasks_remaining(), list(self.queue.history)))


class Clock:
    """Seconds that pass when told to."""

    now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def queue(clock):
    observer = Observer()
    observer.queue = PromptQueue(observer, clock=clock)
    return observer.queue


def row(number, prompt_id, prompt=None):
    return (number, prompt_id, {} if prompt is None else prompt, {"client_id": "c"}, ["1"], {"secret": "s"})


def finish(queue, prompt_id, status=SUCCESS, **result):
    queue.put(row(0, prompt_id))
    _, item_id = queue.get()
    queue.task_done(item_id, {"outputs": {}, "meta": {}, **result}, status)


def test_rows_come_by_number_then_by_arrival(queue):
    for number, prompt_id in [(5, "e"), (1, "b"), (-2, "a"), (1, "a2")]:
        queue.put(row(number, prompt_id))
    assert [queue.get()[0][1] for _ in range(4)] == ["a", "b", "a2", "e"]


def test_same_number_and_id_twice_do_not_compare_prompts(queue):
    import heapq

    queue.put(row(1, "same", {"1": {"class_type": "A"}}))
    for _ in range(2):
        heapq.heappush(queue.queue, QueueRow(row(1, "same", {"1": {"class_type": "A"}})))
    assert [queue.get()[0][1] for _ in range(3)] == ["same"] * 3


def test_an_id_is_free_again_only_a_moment_after_its_prompt_has_ended(queue, clock):
    queue.put(row(1, "p"))
    with pytest.raises(DuplicatePromptId, match="p waits or runs already"):
        queue.put(row(0, "p"))
    _, item_id = queue.get(0)
    with pytest.raises(DuplicatePromptId, match="p waits or runs already"):
        queue.put(row(0, "p"))
    assert queue.get_tasks_remaining() == 1
    queue.task_done(item_id, {}, SUCCESS)
    with pytest.raises(DuplicatePromptId, match="has just ended"):
        queue.put(row(1, "p"))
    queue.put(row(1, "q"))
    clock.now_s += 0.6
    queue.put(row(1, "p"))


def test_only_one_of_many_simultaneous_puts_of_an_id_gets_through(queue):
    together, refused = threading.Barrier(8), []

    def put():
        together.wait()
        try:
            queue.put(row(1, "p"))
        except DuplicatePromptId:
            refused.append(1)

    threads = [threading.Thread(target=put) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 7 and len(queue.queue) == 1


def test_an_id_used_again_takes_the_newest_place_in_the_history(queue, clock):
    for prompt_id in "aba":
        clock.now_s += 1
        finish(queue, prompt_id)
    assert list(queue.history) == ["b", "a"]


def test_plain_tuples_that_packs_push_still_sort(queue):
    import heapq

    queue.put(row(3, "own"))
    heapq.heappush(queue.queue, row(2, "foreign"))
    heapq.heappush(queue.queue, row(3, "foreign"))
    assert [queue.get()[0][:2] for _ in range(3)][0] == (2, "foreign")


def test_row_is_a_plain_six_tuple_and_history_keeps_what_was_submitted(queue):
    prompt = {"1": {"class_type": "A", "inputs": {"x": [1, 2]}}}
    queue.put(row(1, "p", prompt))
    taken, item_id = queue.get()
    assert type(taken) is tuple and len(taken) == 6 and taken[2] is prompt
    taken[2]["1"]["inputs"]["x"].append(3)
    assert queue.currently_running[item_id][2] == {"1": {"class_type": "A", "inputs": {"x": [1, 2]}}}
    queue.task_done(item_id, {"outputs": {"1": {}}, "meta": {}}, SUCCESS)
    entry = queue.get_history("p")["p"]
    assert entry["prompt"] == (1, "p", {"1": {"class_type": "A", "inputs": {"x": [1, 2]}}}, {"client_id": "c"}, ["1"])
    assert entry["outputs"] == {"1": {}} and entry["status"]["status_str"] == "success"


def test_get_times_out_and_a_flag_wakes_a_waiting_worker(queue):
    assert queue.get(timeout=0) is None
    woken = []
    entered = threading.Event()
    original_wait = queue.not_empty.wait

    def wait(timeout=None):
        entered.set()
        return original_wait(timeout)

    queue.not_empty.wait = wait
    thread = threading.Thread(target=lambda: woken.append(queue.get(timeout=30)))
    thread.start()
    assert entered.wait(5)
    queue.set_flag("free_memory", True)
    thread.join(5)
    assert woken == [None] and queue.get_flags(reset=False) == {"free_memory": True}
    assert queue.get_flags() == {"free_memory": True} and queue.get_flags() == {}


def test_a_flag_that_was_set_before_the_worker_waits_is_not_missed(queue):
    queue.set_flag("free_memory", True)
    assert queue.get(timeout=30) is None
    queue.put(row(1, "p"))
    assert queue.get(timeout=30)[0][1] == "p" and queue.get_flags() == {"free_memory": True}


def test_history_is_stored_before_the_status_is_sent(queue):
    finish(queue, "p")
    counts = [count for count, _ in queue.server.updates]
    assert counts == [1, 1, 0]
    assert queue.server.updates[-1][1] == ["p"]


def test_missing_status_still_gives_an_object(queue):
    finish(queue, "p", status=None)
    assert queue.get_history("p")["p"]["status"] == {"status_str": "error", "completed": False, "messages": []}


def test_process_item_rewrites_the_kept_row(queue):
    queue.put(row(1, "p"))
    _, item_id = queue.get()
    queue.task_done(item_id, {}, SUCCESS, process_item=lambda item: (*item[:4], ["changed"]))
    assert queue.history["p"]["prompt"][4] == ["changed"]


def test_history_is_bounded(queue, monkeypatch):
    monkeypatch.setattr(prompt_queue, "MAXIMUM_HISTORY_SIZE", 3)
    for index in range(7):
        finish(queue, f"p{index}")
    assert list(queue.history) == ["p4", "p5", "p6"]


def test_history_is_bounded_by_bytes_and_keeps_the_newest(queue, monkeypatch):
    monkeypatch.setattr(history_size, "MAXIMUM_HISTORY_BYTES", 100_000)
    for index in range(5):
        finish(queue, f"p{index}", outputs={"1": {"text": [str(index) * 30_000]}})
    assert list(queue.history) == ["p2", "p3", "p4"]
    finish(queue, "huge", outputs={"1": {"text": ["x" * 500_000]}})
    assert list(queue.history) == ["huge"]
    finish(queue, "small")
    assert list(queue.history) == ["small"]


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ({}, "0123456789"),
        ({"max_items": 3}, "789"),
        ({"max_items": 30}, "0123456789"),
        ({"max_items": 0}, ""),
        ({"offset": 4}, "456789"),
        ({"offset": 2, "max_items": 3}, "234"),
        ({"offset": 8, "max_items": 5}, "89"),
        ({"offset": 10}, ""),
        ({"offset": 99, "max_items": 2}, ""),
        ({"offset": 0, "max_items": 2}, "01"),
        ({"offset": -5}, "0123456789"),
    ],
)
def test_the_history_is_read_in_pages(queue, arguments, expected):
    for index in range(10):
        finish(queue, str(index))
    assert "".join(queue.get_history(**arguments)) == expected
    assert "".join(queue.get_history(map_function=dict, **arguments)) == expected


def test_single_history_entry_is_a_copy_and_unknown_is_empty(queue):
    finish(queue, "p", outputs={"1": {"images": [1]}})
    queue.get_history("p")["p"]["outputs"]["1"]["images"].append(2)
    assert queue.history["p"]["outputs"] == {"1": {"images": [1]}}
    assert queue.get_history("p", map_function=lambda entry: 7) == {"p": 7}
    assert queue.get_history("absent") == {}
    queue.delete_history_item("absent")
    queue.delete_history_item("p")
    assert queue.history == {}


def test_deleting_keeps_the_heap_in_order(queue):
    for number in (7, 3, 9, 1, 5):
        queue.put(row(number, str(number)))
    assert queue.delete_queue_item(lambda item: item[1] == "3")
    assert not queue.delete_queue_item(lambda item: item[1] == "3")
    assert [queue.get()[0][0] for _ in range(4)] == [1, 5, 7, 9]


def test_the_queue_is_listed_and_wiped(queue):
    queue.put(row(1, "runs", {"1": {}}))
    queue.get()
    queue.put(row(2, "waits", {"1": {}}))
    running, waiting = queue.get_current_queue()
    waiting[0][2]["1"]["x"] = 1
    assert [item[1] for item in running] == ["runs"] and len(running[0]) == 6
    assert queue.get_current_queue_volatile()[1][0][2] == {"1": {}}
    queue.wipe_queue()
    assert queue.get_tasks_remaining() == 1


def test_interrupt_hits_only_the_running_prompt():
    observer, calls = Observer(), []
    queue = observer.queue = PromptQueue(observer, interrupt=lambda: calls.append("stop"))
    queue.put(row(1, "p"))
    queue.put(row(2, "q"))
    queue.get()
    assert not queue.interrupt_if_running("q") and calls == []
    assert queue.interrupt_if_running("p") and calls == ["stop"]


def test_taking_a_prompt_withdraws_what_was_asked_of_the_one_before():
    observer, calls = Observer(), []
    queue = observer.queue = PromptQueue(observer, lambda: calls.append("stop"), lambda: calls.append("go on"))
    for prompt_id in "pq":
        queue.put(row(1, prompt_id))
    _, first = queue.get()
    assert queue.interrupt_if_running("p") and queue.conclude("p")
    queue.task_done(first, {}, SUCCESS)
    queue.get()
    assert calls == ["go on", "stop", "go on"] and not queue.conclude("q")


def test_a_prompt_whose_end_is_decided_cannot_be_stopped_any_more(queue, clock):
    queue.put(row(1, "p"))
    _, item_id = queue.get()
    assert not queue.conclude("p") and not queue.interrupt_if_running("p")
    queue.interrupt_all()
    assert not queue.conclude("p")
    queue.task_done(item_id, {}, SUCCESS)
    clock.now_s += 1
    queue.put(row(1, "p"))
    queue.get()
    queue.interrupt_all()
    assert queue.conclude("p")


def test_finishing_an_unknown_row_is_an_error(queue):
    with pytest.raises(KeyError):
        queue.task_done(99, {}, SUCCESS)
