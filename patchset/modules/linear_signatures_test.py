"""Cache keys against the definition they replace, in long chains and in loops."""

import asyncio
import itertools
import random

import pytest
import torch

from comfy.cli_args import args

if not torch.cuda.is_available():
    args.cpu = True

import execution
import nodes
from comfy_execution.caching import CacheKeySetInputSignature, Unhashable, include_unique_id_in_input, to_hashable
from comfy_execution.graph import DynamicPrompt
from comfy_execution.graph_utils import GraphBuilder, is_link


class Plain:
    RETURN_TYPES = ("IMAGE", "IMAGE")
    FUNCTION = "run"
    CATEGORY = "testing"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}, "optional": {"image": ("IMAGE",), "value": ("INT", {"default": 0})}}

    def run(self, **kwargs):
        return (None, None)


class Counter(Plain):
    NOT_IDEMPOTENT = True


class ToldItsId(Plain):
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}, "hidden": {"me": "UNIQUE_ID"}}


class Restless(Plain):
    pass


class Output(Plain):
    OUTPUT_NODE = True


CLASSES = {"Plain": Plain, "Counter": Counter, "ToldItsId": ToldItsId, "Restless": Restless, "Output": Output}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for name, node_class in CLASSES.items():
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, name, node_class)


class Changed:
    """Answers as the prompt's IS_CHANGED cache does: NaN for nodes that always run."""

    def __init__(self, dynprompt):
        self.dynprompt = dynprompt

    async def get(self, node_id):
        return float("nan") if self.dynprompt.get_node(node_id)["class_type"] == "Restless" else False


def new_keys(dynprompt):
    key_set = CacheKeySetInputSignature(dynprompt, dynprompt.all_node_ids(), Changed(dynprompt))
    asyncio.run(key_set.add_keys(dynprompt.all_node_ids()))
    return key_set.keys


def old_key(dynprompt, node_id):
    """The key as a list of every ancestor's description, in the order in which sorted inputs reach them."""
    order = {}
    waiting = [node_id]
    described = []

    def visit(current):
        inputs = dynprompt.get_node(current)["inputs"]
        for name in sorted(inputs):
            if is_link(inputs[name]) and inputs[name][0] not in order:
                order[inputs[name][0]] = len(order)
                waiting.append(inputs[name][0])
                if dynprompt.has_node(inputs[name][0]):
                    visit(inputs[name][0])

    visit(node_id)
    for current in waiting:
        if not dynprompt.has_node(current):
            described.append([float("nan")])
            continue
        node = dynprompt.get_node(current)
        parts = [node["class_type"], float("nan") if node["class_type"] == "Restless" else False]
        if node["class_type"] == "Counter" or include_unique_id_in_input(node["class_type"]):
            parts.append(current)
        for name in sorted(node["inputs"]):
            value = node["inputs"][name]
            parts.append((name, ("ANCESTOR", order[value[0]], value[1]) if is_link(value) else value))
        described.append(parts)
    return to_hashable(described)


def unfolded(dynprompt, node_id):
    """The node with everything above it written out: what it computes, whether or not ancestors are shared."""
    if not dynprompt.has_node(node_id):
        return Unhashable()
    node = dynprompt.get_node(node_id)
    if node["class_type"] == "Restless":
        return Unhashable()
    own = node_id if node["class_type"] in ("Counter", "ToldItsId") else ""
    return (
        node["class_type"],
        own,
        *(
            (name, unfolded(dynprompt, value[0]), value[1]) if is_link(value) else (name, value)
            for name, value in sorted(node["inputs"].items())
        ),
    )


def random_prompt(dice, size):
    prompt = {}
    for index in range(size):
        inputs = {}
        if index and dice.random() < 0.8:
            inputs["image"] = [str(dice.randrange(index)), dice.randrange(2)]
        if index and dice.random() < 0.3:
            inputs["second"] = [str(dice.randrange(index)), 0]
        if dice.random() < 0.5:
            inputs["value"] = dice.choice([0, 1, 2, "a", [1, 2], {"a": [1]}])
        if dice.random() < 0.03:
            inputs["lost"] = ["nowhere", 0]
        kind = dice.choices(["Plain", "Output", "Counter", "ToldItsId", "Restless"], [10, 4, 1, 1, 1])[0]
        prompt[str(index)] = {"class_type": kind, "inputs": inputs}
    return prompt


@pytest.mark.parametrize("seed", range(40))
def test_hits_and_misses_are_those_of_the_ancestor_lists(seed):
    dice = random.Random(seed)
    dynprompt = DynamicPrompt(random_prompt(dice, 22))
    for index in range(6):
        links = {"image": [str(dice.randrange(22)), 0], "value": index % 2}
        dynprompt.add_ephemeral_node(f"0.{index}", {"class_type": "Plain", "inputs": links}, "0", "0")
    new = new_keys(dynprompt)
    old = {node_id: old_key(dynprompt, node_id) for node_id in new}
    whole = {node_id: unfolded(dynprompt, node_id) for node_id in new}
    for first, second in itertools.combinations(sorted(new), 2):
        if old[first] == old[second]:
            assert new[first] == new[second]
        if new[first] == new[second]:
            assert whole[first] == whole[second]


@pytest.mark.parametrize("seed", range(10))
def test_a_second_prompt_hits_what_the_first_left_behind(seed):
    dice = random.Random(1000 + seed)
    prompt = random_prompt(dice, 30)
    first = new_keys(DynamicPrompt(prompt))
    again = new_keys(DynamicPrompt(prompt))
    old = {node_id: old_key(DynamicPrompt(prompt), node_id) for node_id in prompt}
    old_again = {node_id: old_key(DynamicPrompt(prompt), node_id) for node_id in prompt}
    assert {node_id for node_id in prompt if first[node_id] == again[node_id]} == {
        node_id for node_id in prompt if old[node_id] == old_again[node_id]
    }


def chain(length):
    prompt = {"0": {"class_type": "Plain", "inputs": {"value": 1}}}
    for index in range(1, length):
        prompt[str(index)] = {"class_type": "Plain", "inputs": {"image": [str(index - 1), 0]}}
    prompt["out"] = {"class_type": "Output", "inputs": {"image": [str(length - 1), 0]}}
    return prompt


def test_long_chains_get_keys():
    assert len(set(new_keys(DynamicPrompt(chain(3000))).values())) == 3001


class Replaceable(DynamicPrompt):
    """As newer versions have it: a loop's node puts another node in the place of one, in the middle of a prompt."""

    def __init__(self, prompt):
        super().__init__(prompt)
        self.node_overrides = {}

    def get_node(self, node_id):
        return self.node_overrides.get(node_id) or super().get_node(node_id)

    def override_node(self, node_id, node_info):
        self.node_overrides[node_id] = node_info


def test_a_node_put_in_the_place_of_another_changes_the_keys_of_all_below_it():
    prompt = {"a": {"class_type": "Plain", "inputs": {"value": 1}}, "b": {"class_type": "Plain", "inputs": {"image": ["a", 0]}}}
    dynprompt = Replaceable(prompt)
    keys = CacheKeySetInputSignature(dynprompt, ["a", "b"], Changed(dynprompt))
    seen = []
    for value in (1, 2, 3, 2):
        if value > 1:
            dynprompt.override_node("a", {"class_type": "Plain", "inputs": {"value": value}})
        child = f"child {len(seen)}"
        dynprompt.add_ephemeral_node(child, {"class_type": "Plain", "inputs": {"image": ["b", 0]}}, "b", "b")
        asyncio.run(keys.add_keys([child]))
        seen.append(keys.keys[child])
    assert seen[1] == seen[3] and len({*seen}) == 3
    assert seen[0] == new_keys(DynamicPrompt({**prompt, "c": {"class_type": "Plain", "inputs": {"image": ["b", 0]}}}))["c"]


class CountDown(Plain):
    """Runs itself again with one less, by an expansion, until nothing is left; adds what *step* gives each time."""

    RETURN_TYPES = ("INT",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"left": ("INT", {"default": 0}), "total": ("INT", {"default": 0, "forceInput": True})}}

    def run(self, left, total):
        if not left:
            return (total,)
        graph = GraphBuilder()
        step = graph.node("Add", first=total, second=left)
        again = graph.node("CountDown", left=left - 1, total=step.out(0))
        return {"result": (again.out(0),), "expand": graph.finalize()}


class Add(Plain):
    RETURN_TYPES = ("INT",)
    runs: list[int] = []

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"first": ("INT", {"default": 0}), "second": ("INT", {"default": 0})}}

    def run(self, first, second):
        self.runs.append(second)
        return (first + second,)


class Total(Add):
    OUTPUT_NODE = True
    seen: list[int] = []

    def run(self, first, second):
        self.seen.append(first)
        return {"ui": {}, "result": (first,)}


class Server:
    client_id = last_node_id = last_prompt_id = None
    sockets_metadata: dict = {}

    def send_sync(self, *message):
        pass


@pytest.mark.parametrize("kind", ["CLASSIC", "LRU", "NONE"])
def test_a_loop_of_expansions_gives_the_same_total_and_runs_again_only_what_changed(monkeypatch, kind):
    for name, node_class in (("CountDown", CountDown), ("Add", Add), ("Total", Total)):
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, name, node_class)
    Add.runs.clear()
    Total.seen.clear()
    executor = execution.PromptExecutor(Server(), execution.CacheType[kind], {"lru": 50, "ram": 1.0, "ram_inactive": 1.0})
    for number, (left, expected) in enumerate([(5, 15), (5, 15), (3, 6), (5, 15)]):
        prompt = {
            "start": {"class_type": "Add", "inputs": {"first": 0, "second": 0}},
            "loop": {"class_type": "CountDown", "inputs": {"left": left, "total": ["start", 0]}},
            "end": {"class_type": "Total", "inputs": {"first": ["loop", 0], "second": number}},
        }
        executor.execute(prompt, str(number), {}, ["end"])
        assert executor.success and Total.seen[-1] == expected
    if kind != "NONE":
        assert Add.runs[:6] == [0, 5, 4, 3, 2, 1] and Add.runs[6:9] == [3, 2, 1]
