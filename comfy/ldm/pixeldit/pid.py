"""PiD's network in ComfyUI's tree and published weight names: PixelDiT's, which makes a larger picture of a latent.

Shapes: B batch, I patches of the picture, C width of a token.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ops
import comfy.utils
from comfy.ldm.pixeldit.model import PixDiT_T2I

Options = dict[str, Any]
NORM_GROUPS = 4


class SigmaAwareGate(torch.nn.Module):
    """Adds to tokens what is told of them, the less the noisier the latent is."""

    def __init__(self, dim: int, per_token: bool = False, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        self.content_proj = operations.Linear(2 * dim, 1 if per_token else dim, dtype=dtype, device=device)
        self.log_alpha = torch.nn.Parameter(torch.empty((), dtype=dtype, device=device))

    def forward(self, x: torch.Tensor, lq: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """*x* and *lq* B x I x C; *sigma*: the noise in the latent, B, from 0 to 1."""
        steepness = comfy.ops.cast_to(self.log_alpha, torch.float32, x.device).exp()
        gate = torch.sigmoid(self.content_proj(torch.cat((x, lq), dim=-1)) - steepness * sigma[:, None, None])
        return x + (gate * lq).to(x.dtype)


class ResBlock(torch.nn.Module):
    """Two convolutions, each after a norm and SiLU, beside what goes in."""

    def __init__(self, channels: int, padding_mode: str = "zeros", dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        kept: Options = {"dtype": dtype, "device": device}
        parts: list[torch.nn.Module] = []
        for _ in range(2):
            conv = operations.Conv2d(channels, channels, 3, padding=1, padding_mode=padding_mode, **kept)
            parts += [operations.GroupNorm(NORM_GROUPS, channels, **kept), torch.nn.SiLU(), conv]
        self.block = torch.nn.Sequential(*parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x channels x rows x columns to the same."""
        result: torch.Tensor = x + self.block(x)
        return result


@dataclasses.dataclass(frozen=True, slots=True)
class LatentPart:
    """What a file says of the part that reads a latent, under the names of ComfyUI's settings.

    A latent has a cell of *latent_spatial_down_factor* pixels for each of its own; *rope_ref_h* and *rope_ref_w* are the size in pixels
    that the network was trained with. Every *lq_interval*-th block is told of the latent, and with *pit_lq_inject* the pixels are.
    """

    rope_ref_w: int = 1024
    rope_ref_h: int = 1024
    latent_spatial_down_factor: int = 8
    lq_latent_channels: int = 16
    lq_latent_unpatchify_factor: int = 1
    lq_interval: int = 2
    lq_num_res_blocks: int = 4
    lq_hidden_dim: int = 512
    lq_gate_per_token: bool = False
    lq_conv_padding_mode: str = "zeros"
    pit_lq_inject: bool = False
    sr_scale: int = 4


class LQProjection2D(torch.nn.Module):
    """What each of several blocks is told of a latent, patch by patch."""

    def __init__(self, part: LatentPart, out_dim: int, blocks: int, dtype: Any = None, device: Any = None, operations: Any = None) -> None:
        super().__init__()
        kept: Options = {"dtype": dtype, "device": device}
        conv: Options = {"padding": 1, "padding_mode": part.lq_conv_padding_mode, **kept}
        inner, told = part.lq_hidden_dim, -(-blocks // part.lq_interval)
        self.latent_channels, self.interval, self.sr_scale = part.lq_latent_channels, part.lq_interval, part.sr_scale
        self.latent_spatial_down_factor = part.latent_spatial_down_factor
        self.latent_unpatchify_factor = part.lq_latent_unpatchify_factor
        self.latent_proj = torch.nn.Sequential(
            operations.Conv2d(self.latent_channels // self.latent_unpatchify_factor**2, inner, 3, **conv),
            torch.nn.SiLU(),
            operations.Conv2d(inner, inner, 3, **conv),
            *(ResBlock(inner, part.lq_conv_padding_mode, operations=operations, **kept) for _ in range(part.lq_num_res_blocks)),
        )
        self.output_heads = torch.nn.ModuleList(operations.Linear(inner, out_dim, **kept) for _ in range(told))
        self.pit_head = operations.Linear(inner, out_dim, **kept) if part.pit_lq_inject else None
        self.gate_modules = torch.nn.ModuleList(
            SigmaAwareGate(out_dim, part.lq_gate_per_token, operations=operations, **kept) for _ in range(told)
        )

    def forward(self, lq_latent: torch.Tensor, target_rows: int, target_columns: int) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """(B x I x C for each block that is told, the same for the pixels or None) of *lq_latent* on a grid of so many patches."""
        latent = F.pixel_shuffle(lq_latent, self.latent_unpatchify_factor)
        if latent.shape[2:] != (target_rows, target_columns):
            latent = F.interpolate(latent, size=(target_rows, target_columns), mode="nearest")
        tokens = self.latent_proj(latent).flatten(2).transpose(1, 2)
        return [head(tokens) for head in self.output_heads], None if self.pit_head is None else self.pit_head(tokens)


class PidNet(PixDiT_T2I):
    """The network; its *settings* are those of :class:`LatentPart` and PixelDiT's."""

    def __init__(
        self,
        image_model: str | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        operations: Any = None,
        **settings: Any,
    ) -> None:
        kept: Options = {"dtype": dtype, "device": device, "operations": operations}
        names = {field.name for field in dataclasses.fields(LatentPart)}
        part = LatentPart(**{name: value for name, value in settings.items() if name in names})
        super().__init__(**kept, **{name: value for name, value in settings.items() if name not in names})
        self.known_grid = {"ref_grid_h": part.rope_ref_h // self.patch_size, "ref_grid_w": part.rope_ref_w // self.patch_size}
        self.lq_proj = LQProjection2D(part, self.hidden_size, len(self.patch_blocks), **kept)
        self.pit_lq_gate = SigmaAwareGate(self.hidden_size, part.lq_gate_per_token, **kept) if part.pit_lq_inject else None

    def _forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        transformer_options: Options | None = None,
        lq_latent: torch.Tensor | None = None,
        degrade_sigma: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """As PixelDiT's, with *lq_latent* (B x channels x rows x columns), which has *degrade_sigma* of noise (one number or B; None: 0).

        Raises ``ValueError`` without a latent, and for one of another family.
        """
        known = self.lq_proj.latent_channels
        if lq_latent is None or lq_latent.shape[1] != known:
            found = "there is none" if lq_latent is None else f"this one has {lq_latent.shape[1]}"
            raise ValueError(f"PiD makes pixels of a latent of {known} channels, but {found}; give it one with PiDConditioning")
        latent = comfy.utils.repeat_to_batch_size(lq_latent.to(x), len(x))
        noise = torch.zeros(1) if degrade_sigma is None else degrade_sigma.reshape(-1)
        sigma = comfy.utils.repeat_to_batch_size(noise.to(x.device, torch.float32), len(x))
        told, last = self.lq_proj(latent, -(-x.shape[2] // self.patch_size), -(-x.shape[3] // self.patch_size))
        options = {} if transformer_options is None else dict(transformer_options)
        options["rope_options"] = {**self.known_grid, **(options.get("rope_options") or {})}
        return super()._forward(x, timesteps, context, attention_mask, options, told=told, last=last, sigma=sigma, **kwargs)

    def _before_block(self, patches: torch.Tensor, number: int, **kwargs: Any) -> torch.Tensor:
        block, rest = divmod(number, self.lq_proj.interval)
        if rest:
            return patches
        result: torch.Tensor = self.lq_proj.gate_modules[block](patches, kwargs["told"][block], kwargs["sigma"])
        return result

    def _before_pixels(self, said: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return said if self.pit_lq_gate is None else self.pit_lq_gate(said, kwargs["last"], kwargs["sigma"])
