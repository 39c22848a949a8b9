"""The network of Chroma: Flux's blocks, whose modulations one small network makes from the time and the guidance value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from comfy.ldm.chroma.layers import Approximator, ChromaModulationOut, LastLayer
from comfy.ldm.flux.layers import timestep_embedding
from comfy.ldm.flux.model import Flux

MODULATIONS = 344  # rows, of which the last two belong to the last layer
TIME_WIDTH, INDEX_WIDTH = 16, 32


class Chroma(Flux):
    """The network, with Flux's hooks and ``params``. Channels are those of a patch; *in_dim*, *hidden_dim*, *out_dim* and *n_layers* are
    the small network's sizes, the rest is Flux's.
    """

    def __init__(
        self,
        *,
        patch_size: int,
        out_channels: int,
        in_channels: int,
        n_layers: int,
        hidden_dim: int,
        out_dim: int,
        in_dim: int,
        **flux: Any,
    ) -> None:
        self.in_dim, self.hidden_dim, self.out_dim, self.n_layers = in_dim, hidden_dim, out_dim, n_layers
        own = {"in_channels": in_channels // patch_size**2, "out_channels": out_channels // patch_size**2, "patch_size": patch_size}
        super().__init__(**{**flux, **own, "vec_in_dim": None, "guidance_embed": False, "global_modulation": True})

    def _build_conditioning(self, made: dict[str, Any], bias: bool) -> None:
        self.distilled_guidance_layer = Approximator(self.in_dim, self.out_dim, self.hidden_dim, self.n_layers, **made)

    def _build_end(self, made: dict[str, Any], bias: bool) -> torch.nn.Module:
        return LastLayer(self.hidden_size, 1, self.out_channels, **made)

    @staticmethod
    def parameter_name(key: str) -> str:
        """Files of the authors say ``scale`` for the weight of any norm."""
        return f"{key.removesuffix('.scale')}.weight" if key.endswith(".scale") else key

    def get_modulations(self, tensor: torch.Tensor, block_type: str, *, idx: int = 0) -> Any:
        """Those of block *idx* of a kind ("single", "double_img", "double_txt", "final") among all, *tensor* (B x rows x C).

        The rows are those of single blocks, of the picture in double blocks, of the text in double blocks, and the last layer's.
        """
        if block_type == "final":
            return tensor[:, -2:-1], tensor[:, -1:]
        if block_type == "single":
            return ChromaModulationOut.from_offset(tensor, 3 * idx)
        start = 3 * self.params.depth_single_blocks + 6 * (idx + (self.params.depth if block_type == "double_txt" else 0))
        return tuple(ChromaModulationOut.from_offset(tensor, start + half) for half in (0, 3))

    def _conditioning(
        self, timesteps: torch.Tensor, y: torch.Tensor | None, guidance: torch.Tensor | None, img: torch.Tensor
    ) -> torch.Tensor:
        """All modulations, B x rows x C."""
        guidance = torch.zeros_like(timesteps) if guidance is None else guidance.expand(len(timesteps))
        known = torch.cat([timestep_embedding(value, TIME_WIDTH).to(img.dtype) for value in (timesteps, guidance)], dim=1)
        rows = timestep_embedding(torch.arange(MODULATIONS, device=img.device, dtype=torch.float32), INDEX_WIDTH).to(img.dtype)
        batch = len(timesteps)
        return self.distilled_guidance_layer(
            torch.cat((known[:, None].expand(-1, MODULATIONS, -1), rows[None].expand(batch, -1, -1)), dim=-1)
        )

    def _double_modulation(self, vec: torch.Tensor, txt_vec: torch.Tensor) -> Callable[[int], Any]:
        return lambda number: tuple(self.get_modulations(vec, kind, idx=number) for kind in ("double_img", "double_txt"))

    def _single_modulation(self, vec: torch.Tensor) -> Callable[[int], Any]:
        return lambda number: self.get_modulations(vec, "single", idx=number)
