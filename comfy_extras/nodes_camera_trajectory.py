"""The node that says how the camera moves, as Wan's camera models take it: the ray of every pixel of every frame."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from comfy import model_management
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.empty_latents import size_inputs
from comfy_extras.node_extension import extension_of
from comfy_extras.wan_conditioning import FRAMES_PER_CELL

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")

# How the camera moves along right, down and forward, and how it turns around its own axis, from the first frame to the end.
MOVES = {
    "Static": ((0.0, 0.0, 0.0), 0.0),
    "Pan Up": ((0.0, -1.0, 0.0), 0.0),
    "Pan Down": ((0.0, 1.0, 0.0), 0.0),
    "Pan Left": ((-1.0, 0.0, 0.0), 0.0),
    "Pan Right": ((1.0, 0.0, 0.0), 0.0),
    "Zoom In": ((0.0, 0.0, 2.0), 0.0),
    "Zoom Out": ((0.0, 0.0, -2.0), 0.0),
    "Anti Clockwise (ACW)": ((0.0, 0.0, 0.0), -1.0),
    "ClockWise (CW)": ((0.0, 0.0, 0.0), 1.0),
}
REACH, TURN = 1.5, math.pi / 3  # of a move of length one at speed one
LENS_ASPECT = 1280 / 720  # of the pictures that the focal lengths are shares of


class WanCameraEmbedding(io.ComfyNode):
    """Describes a move of the camera."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        lens = [
            io.Float.Input(name, default=0.5, min=0, max=1, step=step, optional=True, advanced=True)
            for name, step in (("fx", 1e-9), ("fy", 1e-9), ("cx", 0.01), ("cy", 0.01))
        ]
        return io.Schema(
            node_id="WanCameraEmbedding",
            category="model/conditioning/wan/camera",
            inputs=[
                io.Combo.Input("camera_pose", options=list(MOVES), default="Static"),
                *size_inputs(832, 480, 16, length=(81, 1, FRAMES_PER_CELL))[:-1],
                io.Float.Input("speed", default=1.0, min=0, max=10.0, step=0.1, optional=True),
                *lens,
            ],
            outputs=[
                io.WanCameraEmbedding.Output(display_name="camera_embedding"),
                *(io.Int.Output(display_name=name) for name in ("width", "height", "length")),
            ],
        )

    @classmethod
    def execute(
        cls,
        camera_pose: str,
        width: int,
        height: int,
        length: int,
        speed: float = 1.0,
        fx: float = 0.5,
        fy: float = 0.5,
        cx: float = 0.5,
        cy: float = 0.5,
    ) -> io.NodeOutput:
        """The rays (1 x 24 x latent frames x *height* x *width*): six numbers for each of the four frames that a latent one stands for.

        Focal lengths *fx*, *fy* and the picture's middle *cx*, *cy* are shares of its sides.
        """
        aspect = width / height
        lens = (fx * max(1.0, LENS_ASPECT / aspect), fy * max(1.0, aspect / LENS_ASPECT), cx, cy)
        rays = _rays(camera_pose, speed, length, width, height, lens)
        frames = torch.cat((rays[:1].expand(FRAMES_PER_CELL - 1, -1, -1, -1), rays))  # the first frame fills a latent one
        embedding = frames.unflatten(0, (-1, FRAMES_PER_CELL)).permute(2, 1, 0, 3, 4).flatten(0, 1)[None]
        return io.NodeOutput(embedding.contiguous().to(model_management.intermediate_device()), width, height, length)


def _rays(pose: str, speed: float, length: int, width: int, height: int, lens: tuple[float, float, float, float]) -> Tensor:
    """Plücker coordinates (Sitzmann et al. 2021, arXiv:2106.02634) of the pixels' rays: moment, then direction; frames x 6 x H x W."""
    way, turn = MOVES[pose]
    done = torch.arange(length, dtype=torch.float64) / length * speed
    angles = done * TURN * turn
    cosines, sines, none = angles.cos(), angles.sin(), torch.zeros_like(angles)
    turned = torch.stack((cosines, -sines, none, sines, cosines, none, none, none, none + 1), dim=1).view(-1, 3, 3).float()
    places = (done[:, None] * REACH * torch.tensor(way, dtype=torch.float64)).float()
    fx, fy, cx, cy = lens
    across = (torch.arange(width) + 0.5 - cx * width) / (fx * width)
    down = (torch.arange(height) + 0.5 - cy * height) / (fy * height)
    rows, columns = torch.meshgrid(down, across, indexing="ij")
    directions = torch.nn.functional.normalize(torch.stack((columns, rows, torch.ones_like(rows))), dim=0)
    seen = torch.einsum("fij,jhw->fihw", turned, directions)
    moments = torch.cross(places[:, :, None, None].expand_as(seen), seen, dim=1)
    return torch.cat((moments, seen), dim=1)


comfy_entrypoint = extension_of(WanCameraEmbedding)
