"""The node that passes one seed to several others."""

from __future__ import annotations

from typing import Any

from comfy_extras.node_inputs import socket


class SeedNode:
    """Returns a seed, which the page can change after each run."""

    RETURN_TYPES, RETURN_NAMES = ("INT",), ("seed",)
    FUNCTION = "execute"
    CATEGORY = "utilities"
    SEARCH_ALIASES = ["seed", "random"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"seed": socket("INT", min=0, max=2**63 - 1, control_after_generate="fixed")}}

    @classmethod
    def execute(cls, seed: int) -> tuple[int]:
        """*seed* unchanged."""
        return (seed,)


NODE_CLASS_MAPPINGS = {"SeedNode": SeedNode}

NODE_DISPLAY_NAME_MAPPINGS = {"SeedNode": "Seed"}
