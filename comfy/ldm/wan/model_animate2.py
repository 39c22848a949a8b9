"""Wan-Animate 2: a picture that moves as a video does. The video runs through the same blocks beside the one that is made.

The picture is one more latent frame before the video that is made, which the caller cuts off.
Shapes: B batch, N tokens, C width of a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from comfy.dit.network import run_block
from comfy.ldm.common_dit import pad_to_patch_size
from comfy.ldm.flux.math import apply_rope1
from comfy.ldm.wan.layers import WanAttentionBlock, WanSelfAttention, repeat_e, sinusoidal_embedding_1d
from comfy.ldm.wan.model import WanModel
from comfy.ldm.wan.pose_cache import PoseBranchCache

__all__ = ["PoseBranchCache", "WanAnimate2Block", "WanAnimate2Model", "WanAnimate2SelfAttention"]

Options = dict[str, Any]
Pose = tuple[torch.Tensor, torch.Tensor]  # keys and values of the pose's tokens: B x N x C
POSE_TIME = 1.0
MASKS = 4


class WanAnimate2SelfAttention(WanSelfAttention):
    """Attention in which each frame of the video that is made also sees the frame of the pose's video of the same time."""

    def pose(self, x: torch.Tensor, freqs: torch.Tensor) -> Pose:
        """Keys and values of the pose's tokens *x*."""
        return self._turned(self.norm_k(self.k(x)), freqs), self.v(x)

    def _turned(self, x: torch.Tensor, freqs: torch.Tensor) -> torch.Tensor:
        return apply_rope1(x.unflatten(-1, (self.num_heads, self.head_dim)), freqs).flatten(2)

    def forward_made(
        self, x: torch.Tensor, freqs: torch.Tensor, pose: Pose | None, frames: int, strength: float, options: Options
    ) -> torch.Tensor:
        """*x*: the tokens of *frames* frames, the picture's first. *strength* is how much the picture counts; without a *pose* all tokens
        see each other alone.
        """
        query, key = self._turned(self.norm_q(self.q(x)), freqs), self._turned(self.norm_k(self.k(x)), freqs)
        value, length = self.v(x), x.shape[1] // frames
        if strength != 1.0:
            value = torch.cat((value[:, :length] * strength, value[:, length:]), dim=1)
        if pose is None:
            attended = self._attend(query, key, value, options)
        else:
            attended = torch.empty_like(query)
            attended[:, :length] = self._attend(query[:, :length], key, value, options)
            keys, values = (torch.cat((own, own[:, :length]), dim=1) for own in (key, value))
            for frame in range(1, frames):
                own, shown = (slice(number * length, (number + 1) * length) for number in (frame, frame - 1))
                keys[:, -length:], values[:, -length:] = pose[0][:, shown], pose[1][:, shown]
                attended[:, own] = self._attend(query[:, own], keys, values, options)
        return self._projected(attended, query, key, options)

    def _projected(self, attended: torch.Tensor, query: torch.Tensor, key: torch.Tensor, options: Options) -> torch.Tensor:
        heads = (self.num_heads, self.head_dim)
        for patch in options.get("patches", {}).get("attn1_patch", ()):
            seen = {"x": attended, "q": query.unflatten(-1, heads), "k": key.unflatten(-1, heads)}
            attended = patch({**seen, "transformer_options": options})
        return self.o(attended)


class WanAnimate2Block(WanAttentionBlock):
    """A block that both streams run through."""

    def __init__(
        self,
        cross_attn_type: str,
        dim: int,
        ffn_dim: int,
        num_heads: int,
        window_size: Any = (-1, -1),
        qk_norm: bool = True,
        cross_attn_norm: bool = False,
        eps: float = 1e-6,
        operation_settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(cross_attn_type, dim, ffn_dim, num_heads, window_size, qk_norm, cross_attn_norm, eps, operation_settings)
        self.self_attn = WanAnimate2SelfAttention(dim, num_heads, window_size, qk_norm, eps, operation_settings=operation_settings)

    def pose(self, x: torch.Tensor, e: torch.Tensor, freqs: torch.Tensor) -> Pose:
        """Keys and values of the pose's tokens *x* as this block has them before anything else."""
        shift, scale, *_ = self.time_values(x, e)
        own: Any = self.self_attn
        return own.pose(self._scaled(self.norm1(x), shift, scale), freqs)

    def forward_made(
        self,
        x: torch.Tensor,
        e: torch.Tensor,
        freqs: torch.Tensor,
        context: torch.Tensor,
        pose: Pose | None,
        frames: int,
        strength: float,
        context_img_len: int | None,
        options: Options,
    ) -> torch.Tensor:
        """The tokens *x* of the video that is made; arguments as in the base class and in the attention."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.time_values(x, e)
        own: Any = self.self_attn
        attended = own.forward_made(self._scaled(self.norm1(x), shift1, scale1), freqs, pose, frames, strength, options)
        x = torch.addcmul(x, attended, repeat_e(gate1, x))
        del attended
        x = x + self.cross_attn(self.norm3(x), context, context_img_len=context_img_len, transformer_options=options)
        for patch in options.get("patches", {}).get("attn2_patch", ()):
            x = patch({"x": x, "transformer_options": options})
        return torch.addcmul(x, self.ffn(self._scaled(self.norm2(x), shift2, scale2)), repeat_e(gate2, x))


class PoseStream:
    """The pose's video on its way through the blocks of one call, or what a cache holds of it."""

    def __init__(self, model: WanAnimate2Model, cache: PoseBranchCache | None, x: torch.Tensor, given: Mapping[str, Any]) -> None:
        latents = given["pose_latents"]
        self._cache, self._given = cache, given
        self._like = x
        if cache is not None:
            cache.select(latents)
        self._cached = cache is not None and cache.filled(len(model.blocks))
        self._tokens: Any = None
        if not self._cached:
            seen = torch.cat((latents, torch.ones_like(latents[:, :MASKS]), latents), dim=1)
            self._tokens = model._patches(seen).flatten(2).transpose(1, 2)
            if cache is not None and "context_window" in given["options"]:  # of several windows: before the made video needs memory
                for number, block in enumerate(model.blocks):
                    self._advance(number, block)
                self._cached = True

    def of_block(self, number: int, block: WanAnimate2Block) -> Pose:
        """Keys and values for the block *number*; the stream goes on through it."""
        tokens = self._tokens
        if self._cached:
            assert self._cache is not None
            tokens = self._cache.take(number, self._like.device, self._like.dtype, len(self._like))
        key, value = block.pose(tokens, self._given["vec"], self._given["freqs"])
        if not self._cached:
            self._advance(number, block)
        strength = self._given["strength"]
        return key, value if strength == 1.0 else value * strength

    def _advance(self, number: int, block: Any) -> None:
        given = self._given
        if self._cache is not None:
            self._cache.put(number, self._tokens)
        given["options"]["block_index"] = number
        self._tokens = block(
            self._tokens, given["vec"], given["freqs"], given["txt"], given["context_img_len"], transformer_options=given["options"]
        )


class WanAnimate2Model(WanModel):
    """The network. ``animate2_cache`` of ``transformer_options`` may hold a :class:`PoseBranchCache`."""

    def __init__(self, model_type: str = "animate2", **sizes: Any) -> None:
        super().__init__("i2v", **sizes, wan_attn_block_class=WanAnimate2Block)

    def rope_encode_pose(
        self, t: int, h: int, w: int, w_patches: int, device: Any = None, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """The rotations of the pose's video: at the times of the frames it belongs to, beside the video that is made."""
        beside = {"rope_options": {"shift_x": float(w_patches)}}
        return super().rope_encode(t, h, w, t_start=1, device=device, dtype=dtype, transformer_options=beside)

    def _forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        context: torch.Tensor,
        clip_fea: torch.Tensor | None = None,
        time_dim_concat: torch.Tensor | None = None,
        transformer_options: Options | None = None,
        pose_latents: torch.Tensor | None = None,
        clip_fea_pose: torch.Tensor | None = None,
        context_pose: torch.Tensor | None = None,
        pose_strength: float = 1.0,
        reference_strength: float = 1.0,
        **kwargs: Any,
    ) -> torch.Tensor:
        """As its base class. *pose_latents*: the pose's video, one latent frame less than *x*; None for none. *clip_fea_pose* and
        *context_pose*: what was seen and said of it (None: the same as of the video). Raises ``ValueError`` for another number of frames.
        """
        options = {} if transformer_options is None else transformer_options
        frames, height, width = x.shape[2:]
        x = pad_to_patch_size(x, self.patch_size)
        freqs = self.rope_encode(frames, height, width, device=x.device, dtype=x.dtype, transformer_options=options)
        cells = self._patches(x)
        grid = cells.shape[2:]
        options["grid_sizes"] = grid
        tokens = cells.flatten(2).transpose(1, 2)
        embedded, times = self._times(timestep, x.dtype)
        state = {"txt": self._context(context, clip_fea), "vec": times, "pe": freqs}
        pose = None
        if pose_latents is not None:
            if pose_latents.shape[2] != grid[0] - 1:
                raise ValueError(
                    f"the pose video has {pose_latents.shape[2]} latent frames, the video that is made {grid[0] - 1} after the picture"
                )
            latents = pad_to_patch_size(pose_latents.to(x.dtype), self.patch_size)
            seen = clip_fea if clip_fea_pose is None else clip_fea_pose
            given = {
                "pose_latents": latents,
                "vec": self._times(torch.full_like(timestep, POSE_TIME), x.dtype)[1],
                "freqs": self.rope_encode_pose(latents.shape[2], height, width, grid[2], device=x.device, dtype=x.dtype),
                "txt": self._context(context if context_pose is None else context_pose, seen),
                "context_img_len": None if seen is None else seen.shape[-2],
                "strength": pose_strength,
                "options": options,
            }
            pose = PoseStream(self, options.get("animate2_cache"), tokens, given)
        length = None if clip_fea is None else clip_fea.shape[-2]
        tokens = self._run_both(x, tokens, embedded, state, (grid[0], reference_strength, length), pose, options)
        return self.unpatchify(self.head(tokens, embedded), grid)[:, :, :frames, :height, :width]

    def _times(self, t: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """The embedded times, and the six values of each for the blocks."""
        embedded = self.time_embedding(sinusoidal_embedding_1d(self.freq_dim, t.flatten()).to(dtype)).unflatten(0, (len(t), -1))
        return embedded, self.time_projection(embedded).unflatten(2, (6, self.dim))

    def _context(self, context: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
        """What was seen and said, as tokens."""
        said = self.text_embedding(context)
        return said if seen is None or self.img_emb is None else torch.cat((self.img_emb(seen), said), dim=1)

    def _run_both(
        self,
        x: torch.Tensor,
        tokens: torch.Tensor,
        embedded: torch.Tensor,
        state: Mapping[str, Any],
        settings: tuple[int, float, int | None],
        pose: PoseStream | None,
        options: Options,
    ) -> torch.Tensor:
        """The tokens of the video that is made after the last block. *settings*: frames, how much the picture counts, tokens seen."""
        options |= {"total_blocks": len(self.blocks), "block_type": "double"}
        for number, block in enumerate(self.blocks):
            own: Any = block
            shown = None if pose is None else pose.of_block(number, own)
            options["block_index"] = number

            def original(given: Mapping[str, Any], own: Any = own, shown: Pose | None = shown) -> dict[str, Any]:
                arguments = (given["img"], given["vec"], given["pe"], given["txt"])
                return {"img": own.forward_made(*arguments, shown, *settings, given["transformer_options"])}

            given = {"img": tokens, **state, "transformer_options": options}
            tokens = run_block(options, ("double_block", number), given, original)["img"]
            for patch in options.get("patches", {}).get("double_block", ()):
                seen = {"img": tokens, "x": x[:, :, 1:], "vec": embedded, "block_index": number}
                tokens = patch({**seen, "img_offset": tokens.shape[1] // settings[0], "transformer_options": options})["img"]
        return tokens
