"""HyperTile: self-attention at high resolutions within tiles of the picture, whose number changes at random from call to call."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.model_patch_schema import model_patch_schema
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.model_patcher import ModelPatcher

torch = lazy_module("torch")

PIXELS_PER_CELL = 8
SMALLEST_TILE = 32  # pixels


def random_divisor(value: int, min_value: int, /, max_options: int = 1) -> int:
    """Into how many parts, each at least *min_value* long, *value* is cut: one of the *max_options* most, the fewest of them left out."""
    smallest = min(min_value, value)
    counts = [value // length for length in range(smallest, value + 1) if value % length == 0][:max_options]
    if len(counts) < 2:
        return counts[0]
    return counts[int(torch.randint(low=0, high=len(counts) - 1, size=(1,)).item())]


class Tiling:
    """Cuts the queries of an attention into tiles, and puts its result together again."""

    def __init__(self, tile_size: int, swap_size: int, max_depth: int, scale_depth: bool) -> None:
        self.settings = tile_size, swap_size, max_depth, scale_depth
        self._cut: tuple[int, int, int, int, int] | None = None

    def patch_identity_key(self) -> tuple[int, int, int, bool]:
        """Its settings: how it cut counts until the same attention is put together."""
        return self.settings

    def cut(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """*q* (B×N×C) as tiles along the batch, where its features are as large as the latent or a depth that is asked for."""
        tile_size, swap_size, max_depth, scale_depth = self.settings
        height, width = extra_options["original_shape"][-2:]
        sizes = [height / 2**depth * (width / 2**depth) for depth in range(max_depth + 1)]
        if q.shape[-2] not in sizes:
            return q, k, v
        tokens, aspect = q.shape[1], width / height
        rows, columns = round(math.sqrt(tokens * aspect)), round(math.sqrt(tokens / aspect))
        smallest = max(SMALLEST_TILE, tile_size) // PIXELS_PER_CELL * (2 ** sizes.index(q.shape[-2]) if scale_depth else 1)
        down, across = (random_divisor(side, smallest, swap_size) for side in (rows, columns))
        if down * across > 1:
            self._cut = q.shape[0], down, across, rows // down, columns // across
            tiles = q.unflatten(1, (down, rows // down, across, columns // across)).transpose(2, 3)
            q = tiles.flatten(3, 4).flatten(0, 2)
        return q, k, v

    def join(self, out: Tensor, extra_options: dict[str, Any]) -> Tensor:
        """The result of the attention whose queries were cut last; that of others as it is, and of those that do not use their queries."""
        if self._cut is None:
            return out
        (batch, down, across, rows, columns), self._cut = self._cut, None
        if out.shape[0] != batch * down * across:
            return out
        tiles = out.unflatten(0, (-1, down, across)).unflatten(3, (rows, columns))
        return tiles.transpose(2, 3).flatten(1, 4)


class HyperTile(io.ComfyNode):
    """Lets self-attention work within tiles, which is faster for large pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return model_patch_schema(
            "HyperTile",
            "model/patch/unet",
            *(
                io.Int.Input(name, default=default, min=lowest, max=highest, advanced=True)
                for name, default, lowest, highest in (("tile_size", 256, 1, 2048), ("swap_size", 2, 1, 128), ("max_depth", 0, 0, 10))
            ),
            io.Boolean.Input("scale_depth", default=False, advanced=True),
        )

    @classmethod
    def execute(cls, model: ModelPatcher, tile_size: int, swap_size: int, max_depth: int, scale_depth: bool) -> io.NodeOutput:
        """A clone of *model*."""
        tiling = Tiling(tile_size, swap_size, max_depth, scale_depth)
        clone = model.clone()
        clone.set_model_attn1_patch(tiling.cut)
        clone.set_model_attn1_output_patch(tiling.join)
        return io.NodeOutput(clone)


comfy_entrypoint = extension_of(HyperTile)
