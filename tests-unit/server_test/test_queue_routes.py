"""/queue, /history, /interrupt, /free."""

import pytest

from comfy_execution.prompts.queue import ExecutionStatus

EMPTY = {"1": {"class_type": "A", "inputs": {}}}


def put(server, prompt_id, number=0, **extra):
    server.prompt_queue.put((number, prompt_id, EMPTY, {"client_id": "me", **extra}, ["1"], {"api_key_comfy_org": "secret"}))


def finish(server, prompt_id, output=None):
    put(server, prompt_id)
    _, item_id = server.prompt_queue.get(0)
    server.prompt_queue.task_done(item_id, {"outputs": {"1": output or {}}, "meta": {}}, ExecutionStatus("success", True, []))


async def get(client, path):
    return await (await client.get(path)).json()


@pytest.fixture
def history(server):
    for index in range(5):
        finish(server, f"p{index}")


async def test_queue_rows_have_five_columns_in_order_of_execution(server, client):
    put(server, "running")
    server.prompt_queue.get(0)
    for prompt_id, number in (("c", 3), ("a", 1), ("b", 2), ("front", -4), ("a2", 1)):
        put(server, prompt_id, number)
    answer = await get(client, "/queue")
    assert answer["queue_running"] == [[0, "running", EMPTY, {"client_id": "me"}, ["1"]]]
    assert [row[1] for row in answer["queue_pending"]] == ["front", "a", "a2", "b", "c"]
    assert all(len(row) == 5 for row in answer["queue_pending"])


async def test_queue_is_cleared_but_what_runs_stays(server, client):
    put(server, "running")
    server.prompt_queue.get(0)
    put(server, "waiting")
    answer = await client.post("/queue", data='{"clear": true}')
    assert (answer.status, await answer.text()) == (200, "")
    assert server.prompt_queue.get_tasks_remaining() == 1


async def test_queued_prompts_are_deleted_and_unknown_ids_ignored(server, client):
    for prompt_id in "abc":
        put(server, prompt_id)
    assert (await client.post("/queue", json={"delete": ["b", "unknown", "c"], "clear": False})).status == 200
    assert [row[1] for row in server.prompt_queue.queue] == ["a"]


@pytest.mark.parametrize("path", ["/queue", "/history", "/free"])
@pytest.mark.parametrize("body", [b"", b"{", b"3", b"[]", b"null", b'"x"', b"\xff"])
async def test_bodies_that_are_not_an_object_are_refused(client, path, body):
    answer = await client.post(path, data=body)
    assert answer.status == 400
    assert isinstance((await answer.json())["error"], str)


@pytest.mark.parametrize("path", ["/queue", "/history"])
@pytest.mark.parametrize("delete", ["abc", 5, {"a": 1}, [1], [["a"]], [None]])
async def test_deletions_that_are_not_a_list_of_ids_are_refused(server, client, history, path, delete):
    put(server, "a")
    assert (await client.post(path, json={"delete": delete})).status == 400
    assert len(server.prompt_queue.queue) == 1 and len(server.prompt_queue.history) == 5


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "01234"),
        ("?max_items=2", "34"),
        ("?max_items=0", ""),
        ("?max_items=99", "01234"),
        ("?offset=0", "01234"),
        ("?offset=3", "34"),
        ("?offset=5", ""),
        ("?offset=99", ""),
        ("?max_items=2&offset=0", "01"),
        ("?max_items=2&offset=3", "34"),
        ("?max_items=2&offset=4", "4"),
        ("?max_items=2&offset=-1", "34"),
        ("?max_items=2&offset=-7", "34"),
        ("?offset=-1", "01234"),
    ],
)
async def test_the_history_is_read_in_pages(client, history, query, expected):
    assert list(await get(client, "/history" + query)) == [f"p{digit}" for digit in expected]


@pytest.mark.parametrize("key", ["max_items", "offset"])
@pytest.mark.parametrize("value", ["x", "", "1.5", "%00", "[]", "9" * 5000, "1_0", "٣"])
async def test_paging_by_anything_but_integers_is_refused(client, key, value):
    answer = await client.get(f"/history?{key}={value}")
    assert (answer.status, await answer.json()) == (400, {"error": f"{key} must be an integer"})


async def test_a_history_entry_has_prompt_outputs_and_status(server, client):
    finish(server, "p", {"images": [{"filename": "a.png"}]})
    entry = (await get(client, "/history/p"))["p"]
    assert entry["prompt"] == [0, "p", EMPTY, {"client_id": "me"}, ["1"]]
    assert entry["outputs"] == {"1": {"images": [{"filename": "a.png"}]}}
    assert entry["status"] == {"status_str": "success", "completed": True, "messages": []}


async def test_history_of_an_unknown_or_running_prompt_is_empty(server, client):
    put(server, "running")
    server.prompt_queue.get(0)
    for prompt_id in ("running", "unknown"):
        answer = await client.get(f"/history/{prompt_id}")
        assert (answer.status, await answer.json()) == (200, {})


async def test_results_that_json_cannot_hold_do_not_break_the_history(server, client):
    finish(server, "odd", {"value": [float("nan"), float("inf"), object()]})
    finish(server, "good")
    answer = await get(client, "/history")
    assert list(answer) == ["odd", "good"]
    assert answer["odd"]["outputs"]["1"]["value"] == [None, None, "<builtins.object>"]


async def test_history_is_cleared_and_entries_are_deleted(server, client, history):
    assert (await client.post("/history", json={"delete": ["p1", "unknown"]})).status == 200
    assert list(server.prompt_queue.history) == ["p0", "p2", "p3", "p4"]
    answer = await client.post("/history", json={"clear": True})
    assert (answer.status, await answer.text()) == (200, "")
    assert server.prompt_queue.history == {}


@pytest.mark.parametrize("body", [b"", b"{}", b"nonsense", b"[]", b'{"prompt_id": null}'])
async def test_interrupt_without_an_id_stops_what_runs(client, interrupts, body):
    assert (await client.post("/interrupt", data=body)).status == 200
    assert len(interrupts) == 1


@pytest.mark.parametrize(("wanted", "count"), [("running", 1), ("waiting", 0), ("unknown", 0)])
async def test_interrupt_with_an_id_stops_only_that_prompt(server, client, interrupts, wanted, count):
    put(server, "running")
    server.prompt_queue.get(0)
    put(server, "waiting")
    assert (await client.post("/interrupt", json={"prompt_id": wanted})).status == 200
    assert len(interrupts) == count


@pytest.mark.parametrize("wanted", [[], {}, "", 0, False, True, 7, ["running"], {"running": 1}])
async def test_interrupt_with_anything_else_than_an_id_stops_nothing(server, client, interrupts, wanted):
    put(server, "running")
    server.prompt_queue.get(0)
    answer = await client.post("/interrupt", json={"prompt_id": wanted})
    assert answer.status == 400 and "prompt_id" in (await answer.json())["error"]
    assert interrupts == [] and not server.prompt_queue.conclude("running")


@pytest.mark.parametrize("value", ["false", "true", 0, 1, [], {}, [1]])
async def test_flags_that_are_neither_true_nor_false_do_nothing(server, client, history, value):
    put(server, "a")
    for path, body in (
        ("/queue", {"clear": value}),
        ("/queue", {"clear": value, "delete": ["a"]}),
        ("/history", {"clear": value}),
        ("/free", {"unload_models": value}),
        ("/free", {"unload_models": True, "free_memory": value}),
    ):
        assert (await client.post(path, json=body)).status == 400, (path, body)
    assert len(server.prompt_queue.queue) == 1 and len(server.prompt_queue.history) == 5 and server.prompt_queue.get_flags() == {}


async def test_a_prompt_that_was_told_to_stop_before_it_began_is_remembered(server, client, interrupts):
    put(server, "running")
    server.prompt_queue.get(0)
    assert (await client.post("/interrupt", json={})).status == 200
    assert server.prompt_queue.conclude("running")


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ({}, {}),
        ({"unload_models": True}, {"unload_models": True}),
        ({"free_memory": True}, {"free_memory": True}),
        ({"unload_models": False, "free_memory": True}, {"free_memory": True}),
    ],
)
async def test_free_leaves_flags_for_the_worker(server, client, body, left):
    assert (await client.post("/free", json=body)).status == 200
    assert server.prompt_queue.get_flags() == left


async def test_every_change_of_the_queue_is_sent_to_all(server, connect):
    socket = await connect("me")
    put(server, "a")
    _, item_id = server.prompt_queue.get(0)
    put(server, "b")
    server.prompt_queue.task_done(item_id, {}, None)
    server.prompt_queue.wipe_queue()
    counts = [(await socket.next())["data"]["status"]["exec_info"]["queue_remaining"] for _ in range(5)]
    assert counts == [1, 1, 2, 1, 0]
