"""Which node of a graph is handed out next, what it waits for, and what is kept for it."""

import asyncio
import random

import pytest

from comfy_execution.graph import DependencyCycleError, DynamicPrompt, ExecutionList, NodeInputError, NodeNotFoundError, TopologicalSort
from comfy_execution.nodes_graph.schema_class import SchemaNode


class Step:
    FUNCTION = "run"
    asked = 0

    @classmethod
    def INPUT_TYPES(cls):
        Step.asked += 1
        return {"required": {"a": ("*",), "b": ("*",)}, "optional": {"late": ("*", {"lazy": True}), "raw": ("*", {"rawLink": True})}}

    def run(self):
        pass


class Show(Step):
    OUTPUT_NODE = True


class Fetch(Step):
    async def run(self):
        pass


class Grown(SchemaNode):
    """A class of the newer API whose groups depend on the prompt."""

    FUNCTION = "run"
    expanded = 0

    @classmethod
    def GET_SCHEMA(cls):
        return "schema"

    @classmethod
    def INPUT_TYPES(cls, live_inputs=None):
        Grown.expanded += 1
        return {"required": {name: ("*", {"lazy": name.endswith("1")}) for name in live_inputs or ()}}


CLASSES = {"Step": Step, "Show": Show, "Fetch": Fetch, "Grown": Grown}


class Results:
    """A cache of outputs that is a dictionary."""

    def __init__(self, **entries):
        self.entries = entries

    def get_local(self, node_id):
        return self.entries.get(node_id)


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": {name: [value, 0] if isinstance(value, str) else value for name, value in inputs.items()}}


def listing(graph, outputs=(), cache=None):
    made = ExecutionList(DynamicPrompt(graph), cache or Results(), classes=lambda: CLASSES)
    for node_id in outputs:
        made.add_node(node_id)
    return made


def stage(nodes):
    node_id, details, error = asyncio.run(nodes.stage_node_execution())
    assert details is None and error is None
    return node_id


def run_all(nodes):
    async def scenario():
        order = []
        while (node_id := (await nodes.stage_node_execution())[0]) is not None:
            order.append(node_id)
            nodes.complete_node_execution()
        return order

    return asyncio.run(scenario())


def test_every_node_runs_once_after_what_it_depends_on():
    dice = random.Random(3)
    graph = {str(i): node("Step", **{f"i{k}": str(dice.randrange(i)) for k in range(dice.randrange(3))} if i else {}) for i in range(400)}
    order = run_all(listing(graph, graph))
    place = {node_id: index for index, node_id in enumerate(order)}
    assert sorted(order) == sorted(graph)
    assert all(place[link[0]] < place[one] for one, found in graph.items() for link in found["inputs"].values())


@pytest.mark.parametrize("count", [1000, 10_000])
def test_a_long_chain_needs_no_recursion_and_few_cache_questions(count):
    graph = {"0": node("Step")} | {str(i): node("Step", a=str(i - 1)) for i in range(1, count)}
    cache = Results()
    asked = []
    cache.get_local = asked.append
    assert run_all(listing(graph, [str(count - 1)], cache)) == [str(i) for i in range(count)]
    assert len(asked) <= 4 * count


def test_a_class_is_asked_for_its_inputs_once():
    Step.asked = 0
    listing({"0": node("Step")} | {str(i): node("Step", a=str(i - 1), b="0") for i in range(1, 50)}, ["49"])
    assert Step.asked == 1


def test_groups_of_a_node_are_expanded_once_and_may_be_lazy():
    Grown.expanded = 0
    graph = {"x": node("Step"), "y": node("Step"), "g": node("Grown", **{"group.0": "x", "group.1": "y", "group.2": "x"})}
    assert run_all(listing(graph, ["g"])) == ["x", "g"]
    assert Grown.expanded == 1


def test_output_and_async_nodes_come_first_then_what_leads_to_outputs():
    graph = {
        "plain": node("Step"),
        "two": node("Step"),
        "one": node("Step", a="two"),
        "out": node("Show", a="one"),
        "feed": node("Step"),
        "out2": node("Show", a="feed"),
        "async": node("Fetch"),
        "late": node("Step", a="plain"),
        "alone": node("Show"),
    }
    nodes = listing(graph, ["late", "out", "out2", "async", "alone"])
    assert nodes.get_ready_nodes() == ["async", "alone", "feed", "two", "plain"]
    assert run_all(nodes) == ["async", "alone", "feed", "out2", "two", "one", "out", "plain", "late"]


def test_async_nodes_do_not_count_as_outputs_for_what_leads_to_them():
    graph = {"p": node("Step"), "f": node("Fetch", a="p"), "q": node("Step"), "o": node("Show", a="q")}
    assert listing(graph, ["f", "o"]).get_ready_nodes() == ["q", "p"]


def test_a_branch_that_was_begun_is_carried_on_before_the_next():
    graph = {"end": node("Step", a="a3", b="b3")}
    for branch in "ab":
        graph |= {f"{branch}1": node("Step"), f"{branch}2": node("Step", a=f"{branch}1"), f"{branch}3": node("Step", a=f"{branch}2")}
    assert run_all(listing(graph, ["end"])) == ["b1", "b2", "b3", "a1", "a2", "a3", "end"]


def test_links_added_later_change_what_is_urgent():
    graph = {"p": node("Step"), "q": node("Step"), "mid": node("Step", late="q"), "o": node("Show", a="mid")}
    nodes = listing(graph, ["p", "o"])
    assert nodes.get_ready_nodes() == ["mid", "p"]
    assert stage(nodes) == "mid"
    nodes.make_input_strong_link("mid", "late")
    nodes.unstage_node_execution()
    assert nodes.get_ready_nodes() == ["q", "p"], "q is two steps before an output now"
    assert run_all(nodes) == ["q", "mid", "o", "p"]


def test_a_node_that_begins_to_feed_an_output_hurries_what_leads_to_it():
    graph = {"first": node("Step"), "deep": node("Step"), "mid": node("Step", a="deep"), "wait": node("Show", late="mid")}
    nodes = listing(graph, ["first", "mid"])
    assert nodes.get_ready_nodes() == ["first", "deep"]
    nodes.add_node("wait")
    assert stage(nodes) == "wait"
    nodes.make_input_strong_link("wait", "late")
    nodes.unstage_node_execution()
    assert nodes.get_ready_nodes() == ["deep", "first"]


def test_lazy_and_raw_links_are_weak():
    graph = {"x": node("Step"), "y": node("Step"), "n": node("Step", late="x", raw="y")}
    assert run_all(listing(graph, ["n"])) == ["n"]
    nodes = TopologicalSort(DynamicPrompt(graph), classes=lambda: CLASSES)
    nodes.add_node("n", include_lazy=True)
    assert set(nodes.pendingNodes) == {"n", "x"}


def test_nodes_outside_a_subgraph_are_left_out():
    graph = {"x": node("Step"), "y": node("Step", a="x"), "n": node("Step", a="y")}
    nodes = TopologicalSort(DynamicPrompt(graph), classes=lambda: CLASSES)
    nodes.add_node("n", subgraph_nodes={"n", "y"})
    assert (nodes.get_ready_nodes(), nodes.blocking, nodes.blockCount) == (["y"], {"n": {}, "y": {"n": {0: True}}}, {"n": 1, "y": 0})
    nodes.pop_node("y")
    assert nodes.get_ready_nodes() == ["n"]
    nodes.pop_node("n")
    assert nodes.is_empty()


def test_asking_for_an_input_that_is_not_a_link_is_an_error():
    nodes = listing({"n": node("Step", late=3)}, ["n"])
    with pytest.raises(NodeInputError, match="constant"):
        nodes.make_input_strong_link("n", "late")
    with pytest.raises(NodeInputError, match="gives it none"):
        nodes.make_input_strong_link("n", "other")
    with pytest.raises(NodeNotFoundError):
        nodes.add_node("nobody")


def test_two_links_between_two_nodes_are_one_wait():
    graph = {"x": node("Step"), "n": {"class_type": "Step", "inputs": {"a": ["x", 0], "b": ["x", 1]}}}
    nodes = listing(graph, ["n"])
    assert nodes.blockCount["n"] == 1 and nodes.blocking["x"] == {"n": {0: True, 1: True}}
    assert run_all(nodes) == ["x", "n"]


def test_nothing_above_a_cached_node_is_needed_and_its_entry_is_kept_for_the_reader():
    cache = Results(y="entry")
    nodes = listing({"x": node("Step"), "y": node("Step", a="x"), "n": node("Step", a="y")}, ["n"], cache)
    cache.entries.clear()
    assert nodes.get_cache("y", "n") == "entry"
    assert nodes.get_cache("x", "n") is None and nodes.get_cache("y", "other") is None
    assert run_all(nodes) == ["n"]
    assert nodes.get_cache("y", "n") is None, "let go once the reader has run"


def test_a_result_reaches_every_waiting_node_even_if_the_cache_keeps_nothing():
    nodes = listing({"x": node("Step"), "n": node("Step", a="x"), "m": node("Step", a="x")}, ["n", "m"])
    assert stage(nodes) == "x"
    nodes.cache_update("x", "entry")
    nodes.complete_node_execution()
    assert nodes.get_cache("x", "n") == nodes.get_cache("x", "m") == "entry"
    assert not nodes.execution_cache_listeners


def test_a_held_back_node_waits_for_its_release_while_others_run():
    nodes = listing({"f": node("Fetch"), "p": node("Step"), "o": node("Show", a="f")}, ["o", "p"])

    async def scenario():
        order = [(await nodes.stage_node_execution())[0]]
        release = nodes.add_external_block("f")
        nodes.unstage_node_execution()
        order.append((await nodes.stage_node_execution())[0])
        nodes.complete_node_execution()
        assert not nodes.has_ready_nodes()
        asyncio.get_running_loop().call_soon(release)
        order.append((await nodes.stage_node_execution())[0])
        release()
        assert nodes.externalBlocks == 0, "a second release changes nothing"
        nodes.complete_node_execution()
        order.append((await nodes.stage_node_execution())[0])
        return order

    assert asyncio.run(scenario()) == ["f", "p", "f", "o"]


def test_a_release_after_the_node_is_gone_changes_nothing():
    nodes = listing({"f": node("Fetch")}, ["f"])
    release = nodes.add_external_block("f")
    nodes.pop_node("f")
    release()
    assert nodes.is_empty() and nodes.externalBlocks == 0
    with pytest.raises(NodeNotFoundError):
        nodes.add_external_block("f")


def test_misuse_of_staging_is_an_error():
    nodes = listing({"n": node("Step")}, ["n"])
    with pytest.raises(RuntimeError, match="No node is staged"):
        nodes.complete_node_execution()
    stage(nodes)
    with pytest.raises(RuntimeError, match="staged already"):
        stage(nodes)


def test_a_circle_made_by_expansion_is_blamed_on_the_node_that_the_user_sees():
    prompt = DynamicPrompt({"maker": node("Step"), "after": node("Step", a="maker"), "o": node("Show", a="after")})
    nodes = ExecutionList(prompt, Results(), classes=lambda: CLASSES)
    nodes.add_node("o")
    assert stage(nodes) == "maker"
    for one, other in (("maker.0.1", "maker.0.2"), ("maker.0.2", "maker.0.1")):
        prompt.add_ephemeral_node(one, node("Step", a=other), "maker", "maker")
    nodes.add_strong_link("maker.0.1", 0, "maker")
    nodes.unstage_node_execution()
    node_id, details, error = asyncio.run(nodes.stage_node_execution())
    assert node_id is None and isinstance(error, DependencyCycleError)
    assert details["node_id"] == "maker" and "maker.0.1 (Step)" in details["exception_message"]
    assert sorted(nodes.get_nodes_in_cycle()) == ["maker.0.1", "maker.0.2"], "neither what waits for the circle nor what it stands on"


def test_a_long_circle_is_found_without_searching_it_again_for_each_node():
    count = 10_000
    graph = {str(i): node("Step", a=str((i + 1) % count)) for i in range(count)}
    nodes = listing(graph, ["0"])
    assert len(nodes.get_nodes_in_cycle()) == count
    assert asyncio.run(nodes.stage_node_execution())[1]["node_id"] in graph


def test_a_node_may_come_back_after_it_ran():
    """With no cache of results, an expansion that links to a finished node has it run again."""
    nodes = listing({"x": node("Step"), "n": node("Step", late="x")}, ["x", "n"])
    assert stage(nodes) == "x"
    nodes.complete_node_execution()
    assert stage(nodes) == "n"
    nodes.make_input_strong_link("n", "late")
    nodes.unstage_node_execution()
    assert run_all(nodes) == ["x", "n"]
