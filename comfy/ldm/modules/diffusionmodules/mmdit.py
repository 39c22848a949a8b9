"""Parts that transformers share, and names of Stable Diffusion 3 models that node packs import; see :mod:`comfy.placeholders`."""

from typing import Any

import torch

from comfy.families.timestep_embedding import timestep_embedding
from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(
    __name__,
    "Stable Diffusion 3 models",
    "default() Mlp PatchEmbed modulate() get_2d_sincos_pos_embed() get_2d_sincos_pos_embed_from_grid() "
    "get_1d_sincos_pos_embed_from_grid() get_1d_sincos_pos_embed_from_grid_torch() get_2d_sincos_pos_embed_torch() "
    "VectorEmbedder split_qkv() SelfAttention RMSNorm SwiGLUFeedForward DismantledBlock gate_cat() block_mixing() JointBlock "
    "FinalLayer SelfAttentionContext ContextProcessorBlock ContextProcessor MMDiT OpenAISignatureMMDITWrapper:MMDiT",
)


class TimestepEmbedder(torch.nn.Module):
    """Embeds times by sines and cosines and two linear layers with SiLU between them."""

    def __init__(
        self,
        hidden_size: int,
        frequency_embedding_size: int = 256,
        output_size: int | None = None,
        dtype: Any = None,
        device: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept = {"dtype": dtype, "device": device}
        self.mlp = torch.nn.Sequential(
            operations.Linear(frequency_embedding_size, hidden_size, **kept),
            torch.nn.SiLU(),
            operations.Linear(hidden_size, hidden_size if output_size is None else output_size, **kept),
        )
        self.frequency_embedding_size = frequency_embedding_size

    def forward(self, t: torch.Tensor, dtype: torch.dtype, **kwargs: Any) -> torch.Tensor:
        """Times (B) as B x output size in *dtype*."""
        return self.mlp(timestep_embedding(t, self.frequency_embedding_size).to(dtype))
