"""/api/jobs and cancelling."""

import uuid

import pytest

from comfy_execution.prompts.queue import ExecutionStatus

RUNNING, WAITING, DONE, UNKNOWN = (str(uuid.UUID(int=number)) for number in range(1, 5))


def put(server, prompt_id, number=0, created_ms=1, workflow=None, **extra):
    pnginfo = {"workflow": workflow} if workflow is not None else None
    server.prompt_queue.put((number, prompt_id, {}, {"create_time": created_ms, "extra_pnginfo": pnginfo, **extra}, [], {}))


def finish(server, prompt_id, created_ms=1, outputs=None, status="success", messages=(), **more):
    put(server, prompt_id, created_ms=created_ms, **more)
    _, item_id = server.prompt_queue.get(0)
    ended = ExecutionStatus(status, status == "success", list(messages))
    server.prompt_queue.task_done(item_id, {"outputs": outputs or {}, "meta": {}}, ended)


@pytest.fixture
def jobs(server):
    """One of each: done, running and waiting."""
    finish(server, DONE, 100, {"1": {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]}})
    put(server, RUNNING, created_ms=200)
    server.prompt_queue.get(0)
    put(server, WAITING, created_ms=300, workflow={"id": "wf"})


async def get(client, query=""):
    answer = await client.get(f"/api/jobs{query}")
    return answer.status, await answer.json()


async def test_list_has_all_newest_first_with_a_numeric_limit(client, jobs):
    status, answer = await get(client)
    assert status == 200
    assert [(job["id"], job["status"], job["create_time"]) for job in answer["jobs"]] == [
        (WAITING, "pending", 300),
        (RUNNING, "in_progress", 200),
        (DONE, "completed", 100),
    ]
    assert answer["pagination"] == {"offset": 0, "limit": 3, "total": 3, "has_more": False}
    assert answer["jobs"][2]["outputs_count"] == 1 and answer["jobs"][2]["preview_output"]["nodeId"] == "1"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?status=pending", [WAITING]),
        ("?status=in_progress,%20Pending,", [WAITING, RUNNING]),
        ("?status=failed", []),
        ("?status=", [WAITING, RUNNING, DONE]),
        ("?workflow_id=wf", [WAITING]),
        ("?sort_order=asc", [DONE, RUNNING, WAITING]),
        ("?sort_by=created_at&sort_order=DESC", [WAITING, RUNNING, DONE]),
        ("?limit=1", [WAITING]),
        ("?limit=2&offset=2", [DONE]),
        ("?offset=-3&limit=1", [WAITING]),
    ],
)
async def test_filters_sorting_and_pages(client, jobs, query, expected):
    status, answer = await get(client, query)
    assert (status, [job["id"] for job in answer["jobs"]]) == (200, expected)


async def test_pages_say_whether_there_is_more(client, jobs):
    assert (await get(client, "?limit=2"))[1]["pagination"] == {"offset": 0, "limit": 2, "total": 3, "has_more": True}
    assert (await get(client, "?limit=2&offset=1"))[1]["pagination"]["has_more"] is False


@pytest.mark.parametrize(
    "query",
    [
        "status=x",
        "status=pending,x",
        "sort_by=name",
        "sort_order=up",
        "limit=0",
        "limit=-1",
        "limit=x",
        "limit=1e9",
        "limit=",
        "offset=x",
        "limit=" + "9" * 5000,
    ],
)
async def test_odd_queries_are_refused(client, query):
    status, answer = await get(client, "?" + query)
    assert status == 400 and isinstance(answer["error"], str)


async def test_jobs_have_no_path_without_api(client):
    assert (await client.get("/jobs")).status == 404


@pytest.mark.parametrize(
    "extra", [{"extra_pnginfo": None}, {"extra_pnginfo": {"workflow": None}}, {"extra_pnginfo": [1]}, {"create_time": "soon"}]
)
async def test_an_odd_prompt_does_not_break_the_list(server, client, jobs, extra):
    server.prompt_queue.put((5, "odd", {}, extra, [], {}))
    status, answer = await get(client)
    assert status == 200 and len(answer["jobs"]) == 4
    assert all(isinstance(job["create_time"], int) for job in answer["jobs"])


async def test_detail_of_a_finished_job(client, jobs):
    answer = await (await client.get(f"/api/jobs/{DONE}")).json()
    assert answer["outputs"]["1"]["images"][0]["filename"] == "a.png"
    assert answer["execution_status"]["status_str"] == "success"
    assert answer["workflow"]["prompt"] == {}


@pytest.mark.parametrize("job_id", [RUNNING, WAITING])
async def test_detail_of_a_job_in_the_queue(client, jobs, job_id):
    answer = await client.get(f"/api/jobs/{job_id}")
    assert (answer.status, (await answer.json())["id"]) == (200, job_id)


async def test_detail_of_an_unknown_job(client):
    answer = await client.get(f"/api/jobs/{UNKNOWN}")
    assert (answer.status, await answer.json()) == (404, {"error": "Job not found"})


@pytest.mark.parametrize(
    ("job_id", "cancelled", "interrupted"),
    [(RUNNING, True, 1), (WAITING, True, 0), (DONE, False, 0), (UNKNOWN, False, 0), ("no-uuid", False, 0)],
)
async def test_cancelling_one_prompt_by_id(client, jobs, interrupts, job_id, cancelled, interrupted):
    answer = await client.post(f"/api/jobs/{job_id}/cancel")
    assert (answer.status, await answer.json()) == (200, {"cancelled": cancelled})
    assert len(interrupts) == interrupted


async def test_cancelling_twice_is_harmless(client, jobs, interrupts):
    answers = [await (await client.post(f"/api/jobs/{WAITING}/cancel")).json() for _ in range(2)]
    assert answers == [{"cancelled": True}, {"cancelled": False}]


async def test_cancelling_many_stops_each(server, client, jobs, interrupts):
    answer = await client.post("/api/jobs/cancel", json={"job_ids": [UNKNOWN, RUNNING, WAITING, DONE]})
    assert (answer.status, await answer.json()) == (200, {"cancelled": True})
    assert len(interrupts) == 1 and server.prompt_queue.queue == []


async def test_cancelling_ended_prompts_cancels_nothing(client, jobs, interrupts):
    assert await (await client.post("/api/jobs/cancel", json={"job_ids": [DONE]})).json() == {"cancelled": False}
    assert await (await client.post("/api/jobs/cancel", json={"job_ids": []})).json() == {"cancelled": False}


@pytest.mark.parametrize("ids", [["x"], [{}], [5], [None], [WAITING, "x"]])
async def test_cancelling_something_that_is_not_an_id_changes_nothing(server, client, jobs, ids):
    answer = await client.post("/api/jobs/cancel", json={"job_ids": ids})
    assert (answer.status, (await answer.json())["invalid_ids"]) == (400, [str(ids[-1])])
    assert len(server.prompt_queue.queue) == 1


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"job_ids": "x"}', b'{"job_ids": {}}'])
async def test_cancelling_without_a_list_is_refused(client, body):
    answer = await client.post("/api/jobs/cancel", data=body)
    assert answer.status == 400 and isinstance((await answer.json())["error"], str)
