"""Cache keys against the definition they replace, and validation of graphs deeper than the Python stack."""

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
from comfy_execution.graph_utils import is_link


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


def test_long_chains_get_keys_and_pass_validation():
    prompt = chain(3000)
    assert len(set(new_keys(DynamicPrompt(prompt)).values())) == 3001
    valid, error, outputs, _ = asyncio.run(execution.validate_prompt("id", prompt, None))
    assert (valid, error, outputs) == (True, None, ["out"])


def test_errors_at_the_far_end_of_a_chain_are_reported_there():
    prompt = chain(1500)
    prompt["0"]["inputs"]["value"] = "x"
    valid, error, _, node_errors = asyncio.run(execution.validate_prompt("id", prompt, None))
    assert not valid
    assert error["type"] == "prompt_outputs_failed_validation"
    assert [problem["type"] for problem in node_errors["0"]["errors"]] == ["invalid_input_type"]
    assert node_errors["0"]["dependent_outputs"] == ["out"]
