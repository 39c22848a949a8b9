"""LLLite of Anima: a picture, as one vector per token, corrects what goes into layers of the model's blocks.

Shapes: B batch, N tokens, C the model's width, E values of a picture's vector.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ops
from comfy.families.model_errors import IncompleteModelError
from comfy.placeholders import placeholders

CONDITIONING = "lllite_conditioning1"
MODULE = re.compile(r"lllite_dit_blocks_(\d+)_(self_attn_[qkv]_proj|cross_attn_q_proj|mlp_layer1)")
VERSION = "2"
DILATIONS = "1,2,4,8"
MOST_GROUPS = 8
WITH_MASK = 4  # channels of a picture and its mask
Placed = dict[str, Any]

__getattr__, __dir__ = placeholders(
    __name__,
    "Anima models",
    "AnimaLLLitePatch=comfy.control.lllite_patches AnimaLLLiteAttentionPatch=comfy.control.lllite_patches "
    "AnimaLLLiteMLPPatch=comfy.control.lllite_patches",
)


def _norm(channels: int, operations: Any, **kept: Any) -> torch.nn.Module:
    """A norm over as many groups as divide *channels*, at most eight."""
    groups = next(number for number in (MOST_GROUPS, 4, 2, 1) if channels % number == 0)
    norm: torch.nn.Module = operations.GroupNorm(groups, channels, **kept)
    return norm


def _unit(inner: int, outer: int, side: int, operations: Any, *, dilation: int = 1, **kept: Any) -> torch.nn.Sequential:
    """A convolution that keeps the size, its norm, SiLU."""
    own = {"kernel_size": side, "padding": dilation * (side // 2), "dilation": dilation}
    return torch.nn.Sequential(operations.Conv2d(inner, outer, **own, **kept), _norm(outer, operations, **kept), torch.nn.SiLU())


class AnimaLLLiteResBlock(torch.nn.Module):
    """Two convolutions, each after its norm and SiLU, beside what goes in."""

    def __init__(self, channels: int, device: Any = None, dtype: Any = None, operations: Any = None) -> None:
        super().__init__()
        kept = {"device": device, "dtype": dtype}
        self.norm1, self.norm2 = (_norm(channels, operations, **kept) for _ in range(2))
        self.conv1, self.conv2 = (operations.Conv2d(channels, channels, kernel_size=3, padding=1, **kept) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x channels x height x width to the same."""
        inner = self.conv1(F.silu(self.norm1(x)))
        result: torch.Tensor = x + self.conv2(F.silu(self.norm2(inner)))
        return result


class AnimaLLLiteASPP(torch.nn.Module):
    """Convolutions that look near and far, and the whole picture's mean, joined."""

    def __init__(self, channels: int, dilations: Sequence[int], device: Any = None, dtype: Any = None, operations: Any = None) -> None:
        super().__init__()
        kept = {"device": device, "dtype": dtype}
        branches = (_unit(channels, channels, 1 if step == 1 else 3, operations, dilation=step, **kept) for step in dilations)
        self.branches = torch.nn.ModuleList(branches)
        self.global_pool = torch.nn.AdaptiveAvgPool2d(1)
        self.global_conv = _unit(channels, channels, 1, operations, **kept)
        self.proj = _unit(channels * (len(dilations) + 1), channels, 1, operations, **kept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x channels x height x width to the same."""
        mean = self.global_conv(self.global_pool(x)).expand(-1, -1, *x.shape[-2:])
        result: torch.Tensor = self.proj(torch.cat([*(branch(x) for branch in self.branches), mean], dim=1))
        return result


class AnimaLLLiteConditioning(torch.nn.Module):
    """Makes one vector of each 16 x 16 pixels."""

    def __init__(
        self,
        cond_in_channels: int,
        cond_dim: int,
        cond_emb_dim: int,
        cond_resblocks: int,
        aspp_dilations: Sequence[int],
        device: Any = None,
        dtype: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        kept: Placed = {"device": device, "dtype": dtype}
        half = cond_dim // 2
        self.conv1 = operations.Conv2d(cond_in_channels, half, kernel_size=4, stride=4, **kept)
        self.norm1, self.norm2 = (_norm(half, operations, **kept) for _ in range(2))
        self.conv2 = operations.Conv2d(half, half, kernel_size=3, padding=1, **kept)
        self.conv3 = operations.Conv2d(half, cond_dim, kernel_size=4, stride=4, **kept)
        self.norm3 = _norm(cond_dim, operations, **kept)
        settings: Placed = {**kept, "operations": operations}
        self.resblocks = torch.nn.ModuleList(AnimaLLLiteResBlock(cond_dim, **settings) for _ in range(cond_resblocks))
        self.aspp = AnimaLLLiteASPP(cond_dim, aspp_dilations, **settings) if aspp_dilations else None
        self.proj = operations.Conv2d(cond_dim, cond_emb_dim, kernel_size=1, **kept)
        self.out_norm = operations.LayerNorm(cond_emb_dim, **kept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x channels x height x width (-1 to 1) to B x N x E."""
        for number in (1, 2, 3):
            x = F.silu(getattr(self, f"norm{number}")(getattr(self, f"conv{number}")(x)))
        for block in self.resblocks:
            x = block(x)
        x = x if self.aspp is None else self.aspp(x)
        result: torch.Tensor = self.out_norm(self.proj(x).flatten(2).transpose(1, 2))
        return result


class AnimaLLLiteModule(torch.nn.Module):
    """The correction of what goes into one layer."""

    def __init__(self, in_dim: int, cond_emb_dim: int, mlp_dim: int, device: Any = None, dtype: Any = None, operations: Any = None) -> None:
        super().__init__()
        kept = {"device": device, "dtype": dtype}
        self.down = operations.Linear(in_dim, mlp_dim, **kept)
        self.mid = operations.Linear(mlp_dim + cond_emb_dim, mlp_dim, **kept)
        self.cond_to_film = operations.Linear(cond_emb_dim, 2 * mlp_dim, **kept)
        self.up = operations.Linear(mlp_dim, in_dim, **kept)
        self.depth_embed = torch.nn.Parameter(torch.empty(cond_emb_dim, **kept), requires_grad=False)

    def forward(self, x: torch.Tensor, cond_emb: torch.Tensor, strength: float) -> torch.Tensor:
        """*x* (B x N x C, or with frames, rows and columns in place of N), corrected by the picture's vectors *cond_emb* (B x N x E).

        Raises ``ValueError`` where these are not for as many tokens or pictures.
        """
        tokens = x.flatten(1, -2)
        if len(tokens) % len(cond_emb) or tokens.shape[1] != cond_emb.shape[1]:
            raise ValueError(
                f"LLLite's picture has {cond_emb.shape[1]} tokens in a batch of {len(cond_emb)}, "
                f"the latent {tokens.shape[1]} in one of {len(tokens)}"
            )
        seen = cond_emb + comfy.ops.cast_to_input(self.depth_embed, cond_emb, copy=False)
        seen = seen.repeat(len(tokens) // len(cond_emb), 1, 1)
        scale, shift = self.cond_to_film(seen).chunk(2, dim=-1)
        inner = self.mid(torch.cat((seen, F.silu(self.down(tokens))), dim=-1))
        corrected = tokens + self.up(F.silu(torch.addcmul(shift, inner, 1 + scale))) * strength
        return corrected.view(x.shape)


class AnimaLLLite(torch.nn.Module):
    """The network of a file with tensors *state_dict* (their shapes are read) and *metadata*."""

    source_name = ""  # the file it comes from

    def __init__(
        self,
        state_dict: Mapping[str, Any],
        metadata: Mapping[str, str] | None,
        device: Any = None,
        dtype: Any = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        settings: Placed = {"device": device, "dtype": dtype, "operations": operations}
        said = metadata or {}
        version = said.get("lllite.version", VERSION)
        if version != VERSION:
            raise IncompleteModelError(f"LLLite of version {version} is not known; use a file of version {VERSION}")
        shapes = {key: tuple(value.shape) for key, value in state_dict.items()}
        own = f"{CONDITIONING}."
        self.cond_in_channels = shapes[f"{own}conv1.weight"][1]
        self.inpaint_masked_input = said.get("lllite.inpaint_masked_input", "false").lower() == "true"
        width = shapes[f"{own}proj.weight"][0]
        looks_far = any(key.startswith(f"{own}aspp.") for key in shapes)
        steps = said.get("lllite.aspp_dilations", DILATIONS).split(",") if looks_far else ()
        blocks = {int(key.split(".")[2]) for key in shapes if key.startswith(f"{own}resblocks.")}
        self.lllite_conditioning1 = AnimaLLLiteConditioning(
            self.cond_in_channels, shapes[f"{own}conv3.weight"][0], width, len(blocks), [int(step) for step in steps], **settings
        )
        self.module_names: set[str] = set()
        self.block_count, self.model_dim = 0, 0
        for name in sorted({key.partition(".")[0] for key in shapes} - {CONDITIONING}):
            found = MODULE.fullmatch(name)
            if found is None:
                raise IncompleteModelError(f"LLLite knows no part {name}")
            inner, self.model_dim = shapes[f"{name}.down.weight"]
            self.add_module(name, AnimaLLLiteModule(self.model_dim, width, inner, **settings))
            self.module_names.add(name)
            self.block_count = max(self.block_count, int(found[1]) + 1)
        if not self.module_names:
            raise IncompleteModelError("LLLite corrects no layer: it holds no lllite_dit_blocks_…")

    def encode_conditioning(self, image: torch.Tensor) -> torch.Tensor:
        """B x N x E of *image* (B x channels x height x width, -1 to 1)."""
        vectors: torch.Tensor = self.lllite_conditioning1(image)
        return vectors

    def apply(self, x: Any, cond_emb: Any = None, block_index: int = 0, target: str = "", strength: float = 1.0) -> Any:
        """*x* as what goes into the layer *target* of a block, corrected where the file does that; with one argument, as any module's."""
        if cond_emb is None:
            return super().apply(x)
        name = f"lllite_dit_blocks_{block_index}_{target}"
        return self.get_submodule(name)(x, cond_emb, strength) if name in self.module_names else x
