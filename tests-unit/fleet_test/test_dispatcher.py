"""Jobs end exactly once; they are sent again only where it is certain that they did not run."""

import asyncio

import pytest
from fleet_books import A, B, ended
from scripted_sender import Setup, changed, history

from fleet.interface import DuplicateJob, FleetError, NoServer, PromptRefused, QueueFull
from fleet.messages import Ended, MayHaveRun, NotRun, Refused, Withdrawn
from fleet.values import Job, JobState, ServerState


@pytest.fixture
async def fleet():
    made = Setup()
    await made.report("s")
    await made.report("t")
    yield made
    await made.dispatcher.close()


async def ended_events(fleet, after):
    return [event for event in await fleet.dispatcher.events(after, 0.0) if event.kind == "ended"]


async def test_a_job_is_placed_runs_and_ends_once(fleet):
    (now,) = await fleet.dispatcher.events(-1)
    accepted = await fleet.submit("a")
    assert (accepted.server_id, accepted.base_url) == ("s", "http://s") and accepted.number > 1e9
    assert await fleet.state("a") is JobState.WAITING
    await fleet.report("s", A, running=["a"])
    assert await fleet.state("a") is JobState.RUNNING and [one.prompt_id for one in await fleet.dispatcher.jobs()] == ["a"]
    await fleet.end("a", Ended(history()))
    assert await fleet.state("a") is JobState.SUCCEEDED and await fleet.dispatcher.history("a") == history()
    events = await fleet.dispatcher.events(now.sequence, 0.0)
    assert [(one.kind, one.prompt_id, one.state) for one in events] == [("placed", "a", None), ("ended", "a", JobState.SUCCEEDED)]
    assert not fleet.dispatcher.books.servers["s"].sent and await fleet.dispatcher.jobs() == []


async def test_ends_are_told_apart(fleet):
    for prompt_id, outcome, state in (
        ("failed", Ended(history("error", ["execution_error", {}])), JobState.FAILED),
        ("interrupted", Ended(history("error", ["execution_interrupted", {}])), JobState.CANCELLED),
        ("withdrawn", Withdrawn(), JobState.CANCELLED),
    ):
        await fleet.submit(prompt_id)
        await fleet.end(prompt_id, outcome)
        assert await fleet.state(prompt_id) is state


async def test_the_second_job_of_a_model_goes_where_the_first_went_and_the_reason_is_kept(fleet):
    await fleet.submit("a", B)
    await fleet.submit("b", B)
    await fleet.submit("c", A)
    assert [server for _, server in fleet.sender.sent] == ["s", "s", "t"]
    newest, second, first = await fleet.dispatcher.decisions()
    assert (newest.prompt_id, first.prompt_id) == ("c", "a") and "warm here" in second.reason


async def test_a_refusal_is_the_clients_and_leaves_nothing(fleet):
    async def refuse(sent):
        yield Refused(400, b'{"error": "no"}')

    fleet.sender.behaviours["s"] = refuse
    with pytest.raises(PromptRefused) as refused:
        await fleet.submit("a")
    assert (refused.value.status, refused.value.body) == (400, b'{"error": "no"}')
    assert await fleet.dispatcher.find("a") is None and not fleet.dispatcher.books.servers["s"].sent


async def test_one_id_is_one_job(fleet):
    await fleet.submit("a")
    with pytest.raises(DuplicateJob) as refused:
        await fleet.submit("a")
    assert refused.value.known.state is JobState.WAITING and len(fleet.sender.sent) == 1
    await fleet.end("a", Ended(history()))
    with pytest.raises(DuplicateJob):
        await fleet.submit("a")


async def test_a_job_that_did_not_run_is_sent_to_another_server(fleet):
    await fleet.submit("a")
    await fleet.end("a", NotRun("its server was killed"))
    assert [server for _, server in fleet.sender.sent] == ["s", "t"] and await fleet.state("a") is JobState.WAITING
    await fleet.end("a", Ended(history()))
    found = await fleet.dispatcher.find("a")
    assert (found.state, found.attempts, found.server_id) == (JobState.SUCCEEDED, 2, "t")


async def test_a_job_that_may_have_run_is_lost_with_a_reason_and_an_entry(fleet):
    (now,) = await fleet.dispatcher.events(-1)
    await fleet.submit("a", extra_data={"api_key_comfy_org": "secret"})
    await fleet.end("a", MayHaveRun("its server was killed while it ran the job"))
    found, entry = await fleet.dispatcher.find("a"), await fleet.dispatcher.history("a")
    assert found.state is JobState.LOST and "while it ran" in found.failure and len(fleet.sender.sent) == 1
    assert entry["status"]["messages"][0][1]["exception_message"] == found.failure and "secret" not in repr(entry)
    assert [(one.state, one.failure) for one in await ended_events(fleet, now.sequence)] == [(JobState.LOST, found.failure)]


async def test_a_job_is_tried_so_often_and_then_lost(fleet):
    await fleet.report("u")
    await fleet.report("v")
    await fleet.submit("a")
    for _ in range(3):
        await fleet.end("a", NotRun("its server was killed"))
    assert len(fleet.sender.sent) == 3 and len({server for _, server in fleet.sender.sent}) == 3
    assert "could not be sent on" in (await fleet.dispatcher.find("a")).failure


@pytest.mark.parametrize(("begun", "state"), [(frozenset(), JobState.WAITING), ({"a"}, JobState.LOST), (None, JobState.LOST)])
async def test_when_a_replica_dies_its_notes_decide(fleet, begun, state):
    fleet.begun["started-s"] = begun
    await fleet.submit("a")
    fleet.sender.outcomes["a"].set_exception(ConnectionError("the actor died"))
    await fleet.settle()
    assert await fleet.state("a") is state
    assert [one.state for one in await fleet.dispatcher.servers()] == [ServerState.GONE, ServerState.READY]


async def test_a_replica_that_dies_before_it_answers(fleet):
    async def die(sent):
        raise ConnectionError("the actor died")
        yield

    fleet.sender.behaviours["s"] = die
    fleet.begun["started-s"] = frozenset()
    assert (await fleet.submit("a")).server_id == "t"
    await fleet.report("s")
    fleet.begun["started-s"] = {"b"}
    fleet.dispatcher.books.remove("t")
    fleet.dispatcher.servers_known.reports.pop("t")
    with pytest.raises(FleetError, match="may have run"):
        await fleet.submit("b")
    assert await fleet.dispatcher.find("b") is None


async def test_a_carrier_that_sends_twice_by_itself_runs_nothing_twice(fleet):
    async def again(sent):
        fleet.dispatcher.place(sent)
        assert sent.tried == ("s",)
        yield MayHaveRun("it was sent to another server before")

    fleet.sender.behaviours["s"] = again
    fleet.begun["started-s"] = {"a"}
    with pytest.raises(FleetError, match="may have run"):
        await fleet.submit("a")
    await fleet.report("s")
    fleet.begun["started-s"] = frozenset()
    assert (await fleet.submit("b")).server_id == "t"


async def test_a_cancelled_job_is_not_sent_on(fleet):
    await fleet.submit("a")
    (await_cancel,) = [fleet.dispatcher.cancel("a")]
    assert await await_cancel is False, "its server cannot be reached"
    await fleet.end("a", NotRun("its server was killed"))
    assert await fleet.state("a") is JobState.CANCELLED and len(fleet.sender.sent) == 1
    assert not await fleet.dispatcher.cancel("a") and not await fleet.dispatcher.cancel("unknown")


async def test_a_full_fleet_says_when_to_come_again():
    fleet = Setup(most_per_server=2)
    with pytest.raises(NoServer, match="starting, or lost"):
        await fleet.submit("a")
    await fleet.report("s")
    await fleet.submit("a")
    await fleet.submit("b")
    with pytest.raises(QueueFull) as full:
        await fleet.submit("c")
    assert full.value.retry_after_s >= 5
    await fleet.end("a", Ended(history()))
    await fleet.submit("c")


async def test_servers_that_start_drain_or_fell_silent_get_nothing(fleet):
    await fleet.report("s", state=ServerState.STARTING)
    assert (await fleet.submit("a")).server_id == "t"
    assert not fleet.dispatcher.servers_known.drain("t")
    with pytest.raises(NoServer):
        await fleet.submit("b")
    await fleet.end("a", Ended(history()))
    assert fleet.dispatcher.servers_known.drain("t")
    states = {view.server_id: view.state for view in await fleet.dispatcher.servers()}
    assert states == {"s": ServerState.STARTING, "t": ServerState.DRAINING}
    await fleet.report("t", state=ServerState.GONE)
    assert [view.server_id for view in await fleet.dispatcher.servers()] == ["s"]


async def test_numbers_of_clients_are_kept_and_cold_jobs_let_warm_ones_pass(fleet):
    await fleet.report("t", state=ServerState.GONE)
    await fleet.report("s", A)
    assert (await fleet.submit("mine", A, number=3)).number == 3
    cold, warm = (await fleet.submit("cold", B)).number, (await fleet.submit("warm", A)).number
    assert cold > warm + 5
    assert (await fleet.submit("front", A, front=True)).number == 0, "left to the server"


async def test_a_job_is_not_sent_on_to_other_contents_of_the_same_name(fleet):
    await fleet.report("s", A)
    await fleet.report("t", changed(A, identity="other contents"), files=(changed(A, size_bytes=A.size_bytes), B))
    await fleet.submit("a", A)
    first = fleet.sender.sent[0][1]
    await fleet.end("a", NotRun("its server was killed"))
    assert [server for _, server in fleet.sender.sent] == [first]
    assert await fleet.state("a") is JobState.LOST


async def test_jobs_found_on_a_server_after_a_restart_are_taken_over(fleet):
    await fleet.report("s", running=["theirs"], waiting=["next"])
    assert [(one.prompt_id, one.state) for one in await fleet.dispatcher.jobs()] == [
        ("theirs", JobState.RUNNING),
        ("next", JobState.WAITING),
    ]
    with pytest.raises(DuplicateJob):
        await fleet.dispatcher.submit(Job("next", {"prompt": {}}))
    await fleet.report("s", running=["next"], ended=[ended("theirs")])
    assert await fleet.state("theirs") is JobState.LOST, "its server cannot be asked here"
    await fleet.report("s", state=ServerState.GONE)
    assert await fleet.state("next") is JobState.LOST


async def test_connections_end_with_their_server_and_with_the_fleet(fleet):
    table = fleet.dispatcher.servers_known
    sessions = [table._of(server_id).api.session for server_id in ("s", "t")]
    table.remove("s")
    while not sessions[0].closed:
        await asyncio.sleep(0)
    assert not sessions[1].closed
    await fleet.dispatcher.close()
    assert sessions[1].closed


async def test_a_server_that_was_restarted_has_nothing_warm(fleet):
    await fleet.report("s", A)
    assert fleet.dispatcher.books.servers["s"].warm
    await fleet.dispatcher.servers_known.take(
        changed(fleet.dispatcher.servers_known.reports["s"], state=ServerState.STARTING, summary=changed_summary())
    )
    assert not fleet.dispatcher.books.servers["s"].warm


def changed_summary():
    from fleet.values import ServerSummary

    return ServerSummary()


async def test_histories_are_cut_and_forgotten_as_a_server_does(fleet):
    for prompt_id in "abc":
        await fleet.submit(prompt_id)
        await fleet.end(prompt_id, Ended(history()))
    assert list(await fleet.dispatcher.histories(2)) == ["b", "c"] and list(await fleet.dispatcher.histories(1, 0)) == ["a"]
    await fleet.dispatcher.forget(["b", "unknown"])
    assert list(await fleet.dispatcher.histories()) == ["a", "c"]
    await fleet.dispatcher.forget(None)
    assert await fleet.dispatcher.histories() == {} and await fleet.dispatcher.find("a") is None


async def test_events_wait_and_tell_of_servers(fleet):
    (now,) = await fleet.dispatcher.events(-1)
    waiting = asyncio.create_task(fleet.dispatcher.events(now.sequence, 5.0))
    await asyncio.sleep(0)
    await fleet.report("u")
    assert [one.kind for one in await waiting] == ["servers"]
    assert await fleet.dispatcher.events(now.sequence + 1, 0.0) == []


async def test_scale_in_takes_the_server_whose_loss_costs_least(fleet):
    await fleet.report("s", A, B)
    await fleet.report("t", B)
    assert fleet.dispatcher.servers_known.cheapest_to_lose() == "t", "what is warm there is warm elsewhere too"
    for number in range(3):
        fleet.dispatcher.books.send("t", fleet_work(number), 0.0)
    assert fleet.dispatcher.servers_known.cheapest_to_lose() == "s"


def fleet_work(number):
    from fleet_books import work

    return work(str(number), B)


async def test_an_end_that_a_gateway_saw_outlives_the_server(fleet):
    (now,) = await fleet.dispatcher.events(-1)
    await fleet.submit("a")
    await fleet.dispatcher.note_end("a", "t", history("error"))
    assert await fleet.state("a") is JobState.WAITING, "it is not there"
    await fleet.dispatcher.note_end("a", "s", history())
    await fleet.dispatcher.note_end("unknown", "s", history())
    assert await fleet.state("a") is JobState.SUCCEEDED and not fleet.dispatcher.books.servers["s"].sent
    for prompt_id, outcome in (("a", MayHaveRun("s was killed")), ("b", NotRun("s was killed"))):
        if prompt_id == "b":
            await fleet.submit("b")
            await fleet.dispatcher.note_end("b", fleet.sender.sent[-1][1], history())
        await fleet.end(prompt_id, outcome)
        assert await fleet.state(prompt_id) is JobState.SUCCEEDED and await fleet.dispatcher.history(prompt_id) == history()
    assert [event.prompt_id for event in await ended_events(fleet, now.sequence)] == ["a", "b"]
    assert [prompt_id for prompt_id, _ in fleet.sender.sent] == ["a", "b"], "nothing is sent again"


async def test_an_end_may_be_seen_before_the_job_is_known_to_be_taken(fleet):
    (now,) = await fleet.dispatcher.events(-1)
    gate = asyncio.Event()

    async def slow(sent):
        await gate.wait()
        async for reply in fleet.sender.take(sent):
            yield reply

    fleet.sender.behaviours["s"] = slow
    submitting = asyncio.create_task(fleet.submit("a"))
    await fleet.settle()
    await fleet.dispatcher.note_end("a", "s", history())
    gate.set()
    assert (await submitting).server_id == "s" and await fleet.state("a") is JobState.SUCCEEDED
    await fleet.end("a", Ended(history()))
    assert [event.kind for event in await fleet.dispatcher.events(now.sequence, 0.0) if event.prompt_id] == ["ended"]
