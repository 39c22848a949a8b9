"""Validation of graphs deeper than the Python stack, with results and errors as before."""

import asyncio

import pytest
import torch

from comfy.cli_args import args

if not torch.cuda.is_available():
    args.cpu = True

import execution
import nodes


class Plain:
    RETURN_TYPES = ("IMAGE", "IMAGE")
    FUNCTION = "run"
    CATEGORY = "testing"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}, "optional": {"image": ("IMAGE",), "value": ("INT", {"default": 0})}}

    def run(self, **kwargs):
        return (None, None)


class Output(Plain):
    OUTPUT_NODE = True


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for name, node_class in (("Plain", Plain), ("Output", Output)):
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, name, node_class)


def chain(length):
    prompt = {"0": {"class_type": "Plain", "inputs": {"value": 1}}}
    for index in range(1, length):
        prompt[str(index)] = {"class_type": "Plain", "inputs": {"image": [str(index - 1), 0]}}
    prompt["out"] = {"class_type": "Output", "inputs": {"image": [str(length - 1), 0]}}
    return prompt


def test_long_chains_pass_validation():
    prompt = chain(3000)
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
