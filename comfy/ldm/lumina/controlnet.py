"""The Fun ControlNets for Z-Image: blocks like the model's own, over a picture's latent, whose results are added to the model's tokens.

Shapes: B batch, I tokens of the picture, C the model's width. Rotations are those of the model's own picture.
"""

from __future__ import annotations

from typing import Any

import torch

import comfy.ldm.common_dit
from comfy.ldm.lumina.layers import JointTransformerBlock

PATCH = 2
KIND = "2-1"  # patches of two by two pixels in one frame
LATENT_CHANNELS = 16
REFINERS = 2
Pair = tuple[torch.Tensor | None, torch.Tensor]


class ZImageControlTransformerBlock(JointTransformerBlock):
    """A block of the model with a layer for what is added; the first of a stack (*block_id* 0) also takes the model's tokens in."""

    def __init__(self, *sizes: Any, block_id: int = 0, operation_settings: dict[str, Any] | None = None) -> None:
        kind: dict[str, Any] = {"modulation": True, "z_image_modulation": True, "operation_settings": operation_settings}
        super().__init__(block_id, *sizes, **kind)
        settings = dict(operation_settings or {})
        linear = settings.pop("operations").Linear
        self.block_id = block_id
        if block_id == 0:
            self.before_proj = linear(self.dim, self.dim, **settings)
        self.after_proj = linear(self.dim, self.dim, **settings)

    def controlled(self, c: torch.Tensor, x: torch.Tensor, freqs_cis: torch.Tensor, adaln_input: torch.Tensor) -> Pair:
        """(what to add to the model's tokens, the picture's tokens for the next block), each B x I x C; *x* are the model's tokens."""
        if self.block_id == 0:
            c = self.before_proj(c) + x
        c = self(c, None, freqs_cis, adaln_input)
        return self.after_proj(c), c


class ZImage_Control(torch.nn.Module):  # noqa: N801 - ComfyUI's name
    """A ControlNet of *n_control_layers* blocks.

    *additional_in_dim*: channels for a mask and a picture to fill in, beside the *control_in_dim* of the latent. *refiner_control*: the
    model's refining layers are corrected too. *broken*: by the blocks for the layers, because those for refining were never trained.
    """

    source_name = ""  # the file it comes from

    def __init__(
        self,
        dim: int = 3840,
        n_heads: int = 30,
        n_kv_heads: int = 30,
        multiple_of: int = 256,
        ffn_dim_multiplier: float = 8.0 / 3.0,
        norm_eps: float = 1e-5,
        qk_norm: bool = True,
        n_control_layers: int = 6,
        control_in_dim: int = LATENT_CHANNELS,
        additional_in_dim: int = 0,
        broken: bool = False,
        refiner_control: bool = False,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        settings = {"operations": operations, "device": device, "dtype": dtype}
        sizes = (dim, n_heads, n_kv_heads, multiple_of, ffn_dim_multiplier, norm_eps, qk_norm)
        self.dim, self.n_control_layers, self.additional_in_dim = dim, n_control_layers, additional_in_dim
        self.broken, self.refiner_control = broken, refiner_control

        def blocks(count: int) -> torch.nn.ModuleList:
            made = (ZImageControlTransformerBlock(*sizes, block_id=number, operation_settings=settings) for number in range(count))
            return torch.nn.ModuleList(made)

        self.control_layers = blocks(n_control_layers)
        values = PATCH**2 * (control_in_dim + additional_in_dim)
        self.control_all_x_embedder = torch.nn.ModuleDict({KIND: operations.Linear(values, dim, device=device, dtype=dtype)})
        if refiner_control:
            self.control_noise_refiner = blocks(REFINERS)
        else:
            plain = (JointTransformerBlock(number, *sizes, True, True, operation_settings=settings) for number in range(REFINERS))
            self.control_noise_refiner = torch.nn.ModuleList(plain)

    def forward(self, control_context: torch.Tensor, freqs_cis: torch.Tensor, adaln_input: torch.Tensor) -> torch.Tensor:
        """B x I x C for *control_context* (B x channels x height x width): the picture's tokens, refined if the model's are not."""
        latent = comfy.ldm.common_dit.pad_to_patch_size(control_context, (PATCH, PATCH))
        rows, columns = latent.shape[2] // PATCH, latent.shape[3] // PATCH
        cells = latent.unflatten(3, (columns, PATCH)).unflatten(2, (rows, PATCH))  # B C rows patch columns patch
        tokens: torch.Tensor = self.control_all_x_embedder[KIND](cells.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2))
        for layer in () if self.refiner_control else self.control_noise_refiner:
            tokens = layer(tokens, None, freqs_cis[:, : tokens.shape[1]], adaln_input)
        return tokens

    def refine(self, number: int, c: torch.Tensor, x: torch.Tensor, freqs_cis: torch.Tensor, adaln_input: torch.Tensor) -> Pair:
        """(what to add after the model's refining layer *number*, the next *c*); nothing to add where those are not corrected."""
        if not self.refiner_control:
            return None, c
        if not self.broken:
            return self._run(self.control_noise_refiner[number], c, x, freqs_cis, adaln_input)
        if number == 0:
            return self.control(0, c, x, freqs_cis, adaln_input)
        added, c = self.control(1, c, x, freqs_cis, adaln_input)
        for later in range(2, self.n_control_layers):
            _, c = self.control(later, c, x, freqs_cis, adaln_input)
        return added, c

    def control(self, number: int, c: torch.Tensor, x: torch.Tensor, freqs_cis: torch.Tensor, adaln_input: torch.Tensor) -> Pair:
        """(what to add to the model's tokens, the next *c*) by the block *number*."""
        return self._run(self.control_layers[number], c, x, freqs_cis, adaln_input)

    @staticmethod
    def _run(block: Any, c: torch.Tensor, x: torch.Tensor, freqs_cis: torch.Tensor, adaln_input: torch.Tensor) -> Pair:
        pair: Pair = block.controlled(c, x, freqs_cis[:, : c.shape[1]], adaln_input)
        return pair
