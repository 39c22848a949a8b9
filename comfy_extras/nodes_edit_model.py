"""The node that gives an edit model pictures to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import node_helpers
from comfy_extras.node_inputs import socket

if TYPE_CHECKING:
    from comfy_extras.node_values import Conditioning, Latent


class ReferenceLatent:
    """Adds a latent that the model looks at while it samples; several of these nodes in a row add several."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "execute"
    CATEGORY = "model/conditioning"
    DESCRIPTION = "Gives an edit model a picture to look at. Chain several for several pictures, where the model takes them."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"conditioning": socket("CONDITIONING")}, "optional": {"latent": socket("LATENT")}}

    @classmethod
    def execute(cls, conditioning: Conditioning, latent: Latent | None = None) -> tuple[Conditioning]:
        """*conditioning* with *latent* behind the ones it has; as it is without one."""
        if latent is None:
            return (conditioning,)
        return (node_helpers.conditioning_set_values(conditioning, {"reference_latents": [latent["samples"]]}, append=True),)


NODE_CLASS_MAPPINGS = {"ReferenceLatent": ReferenceLatent}
NODE_DISPLAY_NAME_MAPPINGS = {"ReferenceLatent": "Set Reference Latent"}
