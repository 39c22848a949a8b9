"""A pack with a node that waits, for jobs that take time but no processor, and need no torch."""

import pathlib
from typing import Any

FLAGS = ("--disable-all-custom-nodes", "--whitelist-custom-nodes", "fleet_wait")
PACK = """
import os
import time

class FleetWait:
    RETURN_TYPES, FUNCTION, OUTPUT_NODE, CATEGORY = (), "wait", True, "fleet"

    @classmethod
    def INPUT_TYPES(cls):
        number, gate = ("INT", {"default": 0, "max": 2**40}), ("STRING", {"default": ""})
        return {"required": {"seconds": ("FLOAT", {"default": 0.3}), "number": number, "gate": gate}}

    def wait(self, seconds, number, gate):
        time.sleep(seconds)
        while gate and not os.path.exists(gate):
            time.sleep(0.01)
        return {"ui": {"text": [str(number)]}}

NODE_CLASS_MAPPINGS = {"FleetWait": FleetWait}
"""


def install(base: pathlib.Path) -> None:
    """Put the pack below *base*."""
    pack = base / "custom_nodes" / "fleet_wait"
    pack.mkdir(parents=True)
    (pack / "__init__.py").write_text(PACK, encoding="utf-8")


def waiting(number: int, seconds: float = 0.33, gate: str = "") -> dict[str, Any]:
    """A prompt that takes *seconds*, and then until the file *gate* is there; equal numbers are equal prompts."""
    return {"1": {"class_type": "FleetWait", "inputs": {"seconds": seconds, "number": number, "gate": gate}}}
