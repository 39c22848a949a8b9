"""What is asked for in cache providers, and in how many rounds, under the real executor."""

import importlib.util

import pytest
from provider_fakes import CACHES, Memory, new_executor, node, ran, registered, row, run, settle, use, wide  # noqa: F401

from comfy_execution import provider_demand


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Where lookups have a deadline, it is not what is tested here."""
    if importlib.util.find_spec("comfy_execution.provider_deadline") is not None:
        deadline = importlib.import_module("comfy_execution.provider_deadline")
        monkeypatch.setattr(deadline, "LOOKUP_S", 600.0)
        monkeypatch.setattr(deadline, "PROMPT_S", 600.0)


def learned(provider, prompt):
    """What *provider* is told of *prompt*'s results, whatever becomes of stores that the prompt's end cuts off."""

    async def store(context, value):
        provider.values[context.cache_key_hash] = value

    provider.on_store = store
    run(prompt)
    settle()
    provider.asked.clear()


@pytest.fixture
def rounds(monkeypatch):
    """What is asked for side by side, round by round."""
    asked, walk = [], provider_demand.walk_in_waves

    async def noting(targets, parents, is_local, may_ask, ask):
        async def ask_noting(wave):
            asked.append(wave)
            return await ask(wave)

        return await walk(targets, parents, is_local, may_ask, ask_noting)

    monkeypatch.setattr(provider_demand, "walk_in_waves", noting)
    return asked


@pytest.mark.parametrize("cache_type", CACHES)
def test_another_server_runs_only_the_output_node(cache_type):
    provider = use(Memory())
    learned(provider, row(5))
    provider.values = {key: value for key, value in provider.values.items() if value.outputs}
    executor = new_executor(cache_type)
    assert run(row(5), executor) == [7] and ran == ["Save"]
    [cached] = [data["nodes"] for event, data in executor.server.sent if event == "execution_cached"]
    assert "n4" in cached and "n0" not in cached


def test_nothing_above_a_result_that_is_found_is_asked_for():
    provider = use(Memory())
    learned(provider, row(200))
    provider.values = {key: value for key, value in provider.values.items() if value.outputs}
    run(row(200))
    assert len(provider.asked) <= 3 and ran == ["Save"]  # the second wave takes two levels


def test_a_row_of_misses_takes_few_round_trips_and_no_key_is_asked_twice(rounds):
    provider = use(Memory())
    run(row(200))
    assert len(rounds) <= 10
    assert len(provider.asked) == len(set(provider.asked)) == 201


def test_nodes_side_by_side_are_asked_for_at_once(rounds):
    provider = use(Memory())
    run(wide(199))
    assert [len(wave) for wave in rounds] == [200] and len(provider.asked) == 200


def test_an_output_that_is_found_does_not_have_all_above_it_fetched(rounds):
    """The executor queues what stands above an output, found or not."""
    provider = use(Memory())
    learned(provider, row(20))
    rounds.clear()
    assert len(provider.values) == 21
    assert run(row(20)) == [7] and ran == []
    assert [sorted(wave) for wave in rounds] == [["n19", "save"]] and len(provider.asked) == 2


def test_what_a_lazy_input_wants_is_asked_for_when_it_is_wanted():
    provider = use(Memory())
    switch = node("Chosen", second=True, a="x", b="n4")
    prompt = {**row(5), "x": node("Number", value=3), "switch": switch, "save": node("Save", v0="switch")}
    learned(provider, prompt)
    run({**prompt, "switch": node("Chosen", second=False, a="x", b="n4")})
    assert [kind for kind, _ in provider.asked] == ["TestSave", "TestChosen", "TestNumber"]


def test_a_new_prompt_asks_again():
    provider, executor = use(Memory()), new_executor()
    run(row(1), executor)
    run(row(1, value=8), executor)
    run(row(1), executor)
    assert [kind for kind, _ in provider.asked].count("TestNumber") == 3


def test_without_providers_nothing_changes():
    executor = new_executor()
    assert run(row(3), executor) == [7] and ran == ["Number"] * 3 + ["Save"]
    assert run(row(3), executor) == [7] and ran == []
