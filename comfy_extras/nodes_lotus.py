"""The node that gives Lotus its text."""

from __future__ import annotations

import pathlib

from comfy.lazy_import import lazy_module
from comfy_api.latest import ComfyExtension, io

management = lazy_module("comfy.model_management")
numpy = lazy_module("numpy")
torch = lazy_module("torch")

# What Stable Diffusion 2's text encoder makes of an empty text: two tokens in float16, lowest byte first. Lotus knows no other text.
EMPTY_TEXT = pathlib.Path(__file__).with_name("lotus_text.bin")
WIDTH = 1024


class LotusConditioning(io.ComfyNode):
    """Gives the text that Lotus was trained with, so that no text encoder is needed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        text = io.Conditioning.Output(display_name="conditioning")
        return io.Schema(node_id="LotusConditioning", category="model/conditioning/lotus", inputs=[], outputs=[text])

    @classmethod
    def execute(cls) -> io.NodeOutput:
        """1×2×1024 of text, float32."""
        values = numpy.frombuffer(EMPTY_TEXT.read_bytes(), dtype="<f2").astype(numpy.float32).reshape(1, -1, WIDTH)
        return io.NodeOutput([[torch.from_numpy(values).to(management.get_torch_device()), {}]])


class LotusExtension(ComfyExtension):
    """The node of this module."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The node classes."""
        return [LotusConditioning]


async def comfy_entrypoint() -> LotusExtension:
    """What the server loads."""
    return LotusExtension()
