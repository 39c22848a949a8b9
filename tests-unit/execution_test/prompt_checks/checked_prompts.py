"""Node classes and prompts of them, and asking for a verdict."""

import asyncio
import json

from comfy_execution.prompt_checks.walk import validate_prompt


def declare(required=None, optional=None, returns=("T",), **attributes):
    calls = []

    def input_types(cls):
        calls.append(1)
        return {"required": required or {}, "optional": optional or {}}

    return type("Declared", (), {"INPUT_TYPES": classmethod(input_types), "RETURN_TYPES": returns, "calls": calls, **attributes})


LONG = [f"option {index}" for index in range(30)]
CLASSES = {
    "Make": declare({"x": ("INT", {"min": 0, "max": 10})}, {"late": ("T", {"lazy": True})}),
    "Pass": declare({"a": ("T",)}, {"b": ("T",)}),
    "Show": declare({"a": ("T",)}, OUTPUT_NODE=True),
    "Two": declare({}, returns=("T", "U,V")),
    "Take": declare({"a": ("V",)}, OUTPUT_NODE=True),
    "Words": declare(
        {},
        {
            "i": ("INT",),
            "f": ("FLOAT", {"min": -1.0}),
            "s": ("STRING",),
            "b": ("BOOLEAN",),
            "c": (["x", "y"],),
            "long": (LONG,),
            "n": ("COMBO", {"options": [1, 2]}),
            "m": ("COMBO", {"options": ["p", "q"], "multiselect": True}),
            "remote": ("COMBO", {}),
        },
        OUTPUT_NODE=True,
    ),
}


def node(class_type, **inputs):
    """A node of a prompt; a tuple is a link."""
    return {"class_type": class_type, "inputs": {name: list(one) if isinstance(one, tuple) else one for name, one in inputs.items()}}


def check(prompt, targets=None, classes=None):
    verdict = asyncio.run(validate_prompt("p", prompt, targets, classes or CLASSES))
    json.dumps(verdict, allow_nan=False)
    return verdict


def errors_of(prompt, node_id="1", classes=None):
    """The errors of the one bad node."""
    good, error, outputs, node_errors = check(prompt, classes=classes)
    assert (good, outputs, error["type"]) == (False, [], "prompt_outputs_failed_validation")
    assert set(node_errors) == {node_id}
    return node_errors[node_id]["errors"]
