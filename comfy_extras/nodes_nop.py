"""A node of packs that this server, as ComfyUI, answers for without doing anything: what it did is the residency's own work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io
from comfy_extras.model_patch_schema import model_patch_schema
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher


class wanBlockSwap(io.ComfyNode):  # noqa: N801 - the id that saved workflows name
    """Gives back the model; weights are kept on the host by what a card has room for."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        told = "Does nothing: this server keeps weights on the host by itself. It stands for a node of a pack that gets into its way."
        return model_patch_schema("wanBlockSwap", "", description=told, is_deprecated=True)

    @classmethod
    def execute(cls, model: ModelPatcher) -> io.NodeOutput:
        """*model* itself."""
        return io.NodeOutput(model)


comfy_entrypoint = extension_of(wanBlockSwap)
