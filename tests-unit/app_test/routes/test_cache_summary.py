"""``GET /caches/summary``: what it holds, when it counts as changed, and what is left out."""

import pytest
from aiohttp import web

from app.routes.cache_summary import CacheSummary
from comfy_execution.prompts.queue import ExecutionStatus, PromptQueue


class Server:
    def queue_updated(self):
        pass


class Models:
    """Stands in for ``WarmModels``."""

    def __init__(self):
        self.warm, self.version, self.listed = [], 1, [{"folder": "checkpoints", "name": "a", "bytes": 3}]

    def describe(self):
        return self.warm

    def cap_bytes(self):
        return 1000

    def files(self):
        return self.version, self.listed


@pytest.fixture
def queue():
    return PromptQueue(Server())


@pytest.fixture
def summary(queue):
    made = CacheSummary(lambda: queue)
    made.models = Models()
    return made


@pytest.fixture
async def client(summary, aiohttp_client):
    app, routes = web.Application(), web.RouteTableDef()
    summary.add_routes(routes)
    app.add_routes(routes)
    return await aiohttp_client(app)


async def read(client, path="/caches/summary", **headers):
    answer = await client.get(path, headers=headers)
    return answer.status, answer.headers["ETag"], await answer.json() if answer.status == 200 else None


def put(queue, prompt_id, number):
    queue.put((number, prompt_id, {}, {}, []))


async def test_queue_and_ends_are_reported_in_order(client, queue):
    for number, prompt_id in enumerate(("done", "runs", "second", "first")):
        put(queue, prompt_id, 9 - number if number > 1 else number)
    _, item = queue.get(0)
    messages = [("execution_start", {"timestamp": 1000}), ("execution_success", {"timestamp": 3500})]
    receipts = [{"tier": "disk", "seconds": 1.5}, {"tier": "ram", "seconds": 9.0}]
    queue.task_done(item, {"outputs": {}, "models": receipts}, ExecutionStatus("success", True, messages))
    queue.get(0)
    status, _, told = await read(client)
    assert status == 200 and told["running"] == ["runs"] and told["waiting"] == ["first", "second"] and told["cap_bytes"] == 1000
    assert told["ended"] == [{"prompt_id": "done", "status": "success", "seconds": 2.5, "read_s": 1.5}]
    assert "files" not in told


async def test_nothing_new_is_304_and_each_change_another_version(client, queue, summary):
    _, tag, first = await read(client)
    assert (await read(client, **{"If-None-Match": tag}))[:2] == (304, tag)
    put(queue, "a", 1)
    _, second_tag, second = await read(client, **{"If-None-Match": tag})
    summary.models.warm = [{"name": "x"}]
    _, third_tag, third = await read(client, **{"If-None-Match": second_tag})
    assert [one["version"] for one in (first, second, third)] == [1, 2, 3] and len({tag, second_tag, third_tag}) == 3
    assert {one["boot"] for one in (first, second, third)} == {first["boot"]}


async def test_files_are_sent_to_those_who_do_not_have_them(client, summary):
    _, tag, told = await read(client, "/caches/summary?files=")
    assert told["files"] == summary.models.listed
    _, _, again = await read(client, f"/caches/summary?files={told['files_version']}")
    assert "files" not in again
    summary.models.version = 2
    status, _, changed = await read(client, f"/caches/summary?files={told['files_version']}", **{"If-None-Match": tag})
    assert status == 200 and "files" in changed and changed["files_version"] != told["files_version"]


async def test_a_server_without_caches_yet_has_nothing_warm(client, summary):
    summary.models = None
    _, _, told = await read(client, "/caches/summary?files=")
    assert (told["models"], told["cap_bytes"], told["files"]) == ([], 0, [])
