"""The network of HiDream-I1 and -E1, with ComfyUI's weight names.

Shapes: B batch, N tokens of the picture, T of the text, C channels, H heads, D width of a head. The text's tokens are T5's, Llama's last
states, and, in each block, those of one of Llama's layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ldm.common_dit
import comfy.ops
from comfy.dit.network import DiffusionTransformer
from comfy.families.timestep_embedding import timestep_embedding
from comfy.ldm.flux.layers import EmbedND, LastLayer
from comfy.ldm.flux.math import attention
from comfy.placeholders import placeholders

__getattr__, __dir__ = placeholders(__name__, "other HiDream models", "HiDreamAttnProcessor_flashattn:object BlockType:object")

Options = dict[str, Any]
TIME_WIDTH, THETA, AXES = 256, 10000, 3
EPS = 1e-6
MULTIPLE = 256  # of which the inner width of feed-forward layers is one


class _TwoLayers(torch.nn.Module):
    """Two linear layers with SiLU between them."""

    def __init__(self, width: int, target: int, kept: Options, operations: Any) -> None:
        super().__init__()
        self.linear_1 = operations.Linear(width, target, **kept)
        self.linear_2 = operations.Linear(target, target, **kept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear_2(F.silu(self.linear_1(x)))


class PatchEmbed(torch.nn.Module):
    """Patches as tokens."""

    def __init__(self, patch_size: int = 2, in_channels: int = 4, out_channels: int = 1024, *, operations: Any, **kept: Any) -> None:
        super().__init__()
        self.patch_size, self.out_channels = patch_size, out_channels
        self.proj = operations.Linear(in_channels * patch_size**2, out_channels, **kept)

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """B x N x values of a patch to B x N x C."""
        return self.proj(latent)


class PooledEmbed(torch.nn.Module):
    """The pooled text, embedded."""

    def __init__(self, text_emb_dim: int, hidden_size: int, *, operations: Any, **kept: Any) -> None:
        super().__init__()
        self.pooled_embedder = _TwoLayers(text_emb_dim, hidden_size, kept, operations)

    def forward(self, pooled_embed: torch.Tensor) -> torch.Tensor:
        """B x pooled width to B x C."""
        return self.pooled_embedder(pooled_embed)


class TimestepEmbed(torch.nn.Module):
    """The time, embedded."""

    def __init__(self, hidden_size: int, frequency_embedding_size: int = TIME_WIDTH, *, operations: Any, **kept: Any) -> None:
        super().__init__()
        self.frequencies = frequency_embedding_size
        self.timestep_embedder = _TwoLayers(frequency_embedding_size, hidden_size, kept, operations)

    def forward(self, timesteps: torch.Tensor, wdtype: torch.dtype) -> torch.Tensor:
        """B to B x C in *wdtype*."""
        return self.timestep_embedder(timestep_embedding(timesteps, self.frequencies).to(wdtype))


class HiDreamAttention(torch.nn.Module):
    """The picture's tokens and, unless *single*, the text's, each with layers of their own, attend to all."""

    to_out: Any
    to_out_t: Any

    def __init__(self, query_dim: int, heads: int, dim_head: int, single: bool = False, *, operations: Any, **kept: Any) -> None:
        super().__init__()
        self.heads, self.single, self.inner_dim = heads, single, heads * dim_head
        inner = self.inner_dim
        for suffix in ("",) if single else ("", "_t"):
            setattr(self, f"to_q{suffix}", operations.Linear(query_dim, inner, **kept))
            for name in ("to_k", "to_v"):
                setattr(self, f"{name}{suffix}", operations.Linear(inner, inner, **kept))
            setattr(self, f"to_out{suffix}", operations.Linear(inner, query_dim, **kept))
            for name in ("q_rms_norm", "k_rms_norm"):
                setattr(self, f"{name}{suffix}", operations.RMSNorm(inner, 1e-5, **kept))

    def _heads(self, x: torch.Tensor, suffix: str) -> list[torch.Tensor]:
        """Normalised queries and keys, and values, of tokens *x*: B x H x N x D each."""
        layers = {name: getattr(self, f"to_{name}{suffix}")(x) for name in "qkv"}
        for name in "qk":
            layers[name] = getattr(self, f"{name}_rms_norm{suffix}")(layers[name]).to(x.dtype)
        return [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in layers.values()]

    def forward(self, image_tokens: torch.Tensor, text_tokens: torch.Tensor | None, rope: torch.Tensor, options: Options) -> Any:
        """What tokens attended to: the picture's (B x N x C), and, unless ``single``, the text's. *rope* turns all, in this order."""
        parts = self._heads(image_tokens, "")
        if text_tokens is not None:
            parts = [torch.cat(pair, dim=2) for pair in zip(parts, self._heads(text_tokens, "_t"))]
        q, k, v = parts
        attended = attention(q, k, v, pe=rope, transformer_options=options)
        if text_tokens is None:
            return self.to_out(attended)
        of_image, of_text = attended.split([image_tokens.shape[1], text_tokens.shape[1]], dim=1)
        return self.to_out(of_image), self.to_out_t(of_text)


class FeedForwardSwiGLU(torch.nn.Module):
    """A gated feed-forward layer, two thirds of *hidden_dim* wide, rounded up."""

    def __init__(self, dim: int, hidden_dim: int, multiple_of: int = MULTIPLE, *, operations: Any, **kept: Any) -> None:
        super().__init__()
        inner = -(-int(2 * hidden_dim / 3) // multiple_of) * multiple_of
        self.w1 = operations.Linear(dim, inner, bias=False, **kept)
        self.w2 = operations.Linear(inner, dim, bias=False, **kept)
        self.w3 = operations.Linear(dim, inner, bias=False, **kept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, C) to (…, C)."""
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class MoEGate(torch.nn.Module):
    """Says which experts each token goes to, and with what weight."""

    def __init__(self, embed_dim: int, num_routed_experts: int = 4, num_activated_experts: int = 2, **kept: Any) -> None:
        super().__init__()
        self.top_k = num_activated_experts
        self.weight = torch.nn.Parameter(torch.empty((num_routed_experts, embed_dim), **kept))

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(weights, numbers) of the experts of *tokens* (N x C): N x chosen each."""
        scores = F.linear(tokens, comfy.ops.cast_to_input(self.weight, tokens)).softmax(dim=-1)
        weights, numbers = scores.topk(self.top_k, dim=-1)
        return weights, numbers


class MOEFeedForwardSwiGLU(torch.nn.Module):
    """Each token passes the feed-forward layers of its experts, and one that all share."""

    def __init__(
        self, dim: int, hidden_dim: int, num_routed_experts: int, num_activated_experts: int, *, operations: Any, **kept: Any
    ) -> None:
        super().__init__()
        made: Options = {"operations": operations, **kept}
        self.shared_experts = FeedForwardSwiGLU(dim, hidden_dim // 2, **made)
        self.experts = torch.nn.ModuleList(FeedForwardSwiGLU(dim, hidden_dim, **made) for _ in range(num_routed_experts))
        self.gate = MoEGate(dim, num_routed_experts, num_activated_experts, **kept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x N x C."""
        tokens = x.flatten(0, 1)
        weights, numbers = self.gate(tokens)
        result = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            rows, places = (numbers == number).nonzero(as_tuple=True)
            if len(rows):
                result.index_add_(0, rows, (expert(tokens[rows]) * weights[rows, places, None]).to(x.dtype))
        return result.view_as(x) + self.shared_experts(x)


class TextProjection(torch.nn.Module):
    """A text's states in the network's width."""

    def __init__(self, in_features: int, hidden_size: int, *, operations: Any, **kept: Any) -> None:
        super().__init__()
        self.linear = operations.Linear(in_features, hidden_size, bias=False, **kept)

    def forward(self, caption: torch.Tensor) -> torch.Tensor:
        """B x T x text width to B x T x C."""
        return self.linear(caption)


class _Block(torch.nn.Module):
    """A block over the streams *streams*: "i", the picture (with experts), and "t", the text."""

    def __init__(
        self, streams: str, dim: int, heads: int, head_dim: int, routed: int, activated: int, *, operations: Any, **kept: Any
    ) -> None:
        super().__init__()
        made: Options = {"operations": operations, **kept}
        self._streams = streams
        self.adaLN_modulation = torch.nn.Sequential(torch.nn.SiLU(), operations.Linear(dim, 6 * len(streams) * dim, **kept))
        self.attn1 = HiDreamAttention(dim, heads, head_dim, single=streams == "i", **made)
        for stream in streams:
            for number in (1, 3):
                norm = operations.LayerNorm(dim, eps=EPS, elementwise_affine=False, **kept)
                setattr(self, f"norm{number}_{stream}", norm)
            has_experts = stream == "i" and routed > 0
            layer = (
                MOEFeedForwardSwiGLU(dim, 4 * dim, routed, activated, **made) if has_experts else FeedForwardSwiGLU(dim, 4 * dim, **made)
            )
            setattr(self, f"ff_{stream}", layer)

    def run(self, tokens: list[torch.Tensor], adaln: torch.Tensor, rope: torch.Tensor, options: Options) -> list[torch.Tensor]:
        """The tokens of each stream after the block; *adaln* is the embedded time and pooled text (B x C)."""
        parts = self.adaLN_modulation(adaln)[:, None].chunk(6 * len(tokens), dim=-1)
        normal = []
        for number, (stream, x) in enumerate(zip(self._streams, tokens)):
            shift, scale = parts[6 * number : 6 * number + 2]
            normal.append(getattr(self, f"norm1_{stream}")(x) * (1 + scale) + shift)
        attended = self.attn1(normal[0], normal[1] if len(normal) > 1 else None, rope, options)
        results = []
        for number, (stream, x) in enumerate(zip(self._streams, tokens)):
            gate, shift, scale, gate_fed = parts[6 * number + 2 : 6 * number + 6]
            x = x + gate * (attended if len(tokens) == 1 else attended[number])
            fed = getattr(self, f"ff_{stream}")(getattr(self, f"norm3_{stream}")(x) * (1 + scale) + shift)
            results.append(x + gate_fed * fed)
        return results


class HiDreamImageTransformerBlock(_Block):
    """Picture and text as streams of their own."""

    def __init__(self, *sizes: int, **made: Any) -> None:
        super().__init__("it", *sizes, **made)


class HiDreamImageSingleTransformerBlock(_Block):
    """All tokens in one stream."""

    def __init__(self, *sizes: int, **made: Any) -> None:
        super().__init__("i", *sizes, **made)


class HiDreamImageBlock(torch.nn.Module):
    """Holds a block as ``block``, as files name it."""

    def __init__(self, block: _Block) -> None:
        super().__init__()
        self.block = block

    def forward(self, tokens: list[torch.Tensor], adaln: torch.Tensor, rope: torch.Tensor, options: Options) -> list[torch.Tensor]:
        """The tokens of each stream after the block."""
        return self.block.run(tokens, adaln, rope, options)


class HiDreamImageTransformer2DModel(DiffusionTransformer):
    """The network. *llama_layers* say which of Llama's layers each block sees."""

    def __init__(
        self,
        *,
        num_layers: int = 16,
        num_single_layers: int = 32,
        num_attention_heads: int = 20,
        attention_head_dim: int = 128,
        num_routed_experts: int = 4,
        num_activated_experts: int = 2,
        caption_channels: Sequence[int],
        text_emb_dim: int = 2048,
        llama_layers: Sequence[int],
        axes_dims_rope: Sequence[int] = (64, 32, 32),
        max_resolution: Sequence[int] = (128, 128),
        patch_size: int = 2,
        in_channels: int = 16,
        out_channels: int | None = None,
        image_model: str | None = None,
        operations: Any = None,
        **kept: Any,
    ) -> None:
        super().__init__()
        made: Options = {"operations": operations or comfy.ops.disable_weight_init, **kept}
        width = num_attention_heads * attention_head_dim
        sizes = (width, num_attention_heads, attention_head_dim, num_routed_experts, num_activated_experts)
        self.dtype, self.inner_dim, self.patch_size, self.llama_layers = kept.get("dtype"), width, patch_size, list(llama_layers)
        self.out_channels = out_channels or in_channels
        self.t_embedder = TimestepEmbed(width, **made)
        self.p_embedder = PooledEmbed(text_emb_dim, width, **made)
        self.x_embedder = PatchEmbed(patch_size, in_channels, width, **made)
        self.pe_embedder = EmbedND(attention_head_dim, THETA, axes_dims_rope)
        double = (HiDreamImageTransformerBlock(*sizes, **made) for _ in range(num_layers))
        single = (HiDreamImageSingleTransformerBlock(*sizes, **made) for _ in range(num_single_layers))
        self.double_stream_blocks = torch.nn.ModuleList(map(HiDreamImageBlock, double))
        self.single_stream_blocks = torch.nn.ModuleList(map(HiDreamImageBlock, single))
        self.final_layer = LastLayer(width, patch_size, self.out_channels, **made)
        widths = [*[caption_channels[1]] * (num_layers + num_single_layers), caption_channels[0]]
        self.caption_projection = torch.nn.ModuleList(TextProjection(source, width, **made) for source in widths)

    def forward(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        y: torch.Tensor | None = None,
        context: torch.Tensor | None = None,
        encoder_hidden_states_llama3: torch.Tensor | None = None,
        image_cond: torch.Tensor | None = None,
        control: Any = None,
        transformer_options: Options | None = None,
    ) -> torch.Tensor:
        """The prediction for latents *x*, through the DIFFUSION_MODEL wrappers; arguments as in :meth:`_forward`."""
        options = {} if transformer_options is None else transformer_options
        return self.wrapped(x, t, y, context, encoder_hidden_states_llama3, image_cond, control, options, options=options)

    def _forward(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        y: torch.Tensor,
        context: torch.Tensor,
        encoder_hidden_states_llama3: torch.Tensor,
        image_cond: torch.Tensor | None = None,
        control: Any = None,
        transformer_options: Options | None = None,
    ) -> torch.Tensor:
        """*x* B x channels x height x width, *t* B, *y* B x pooled width, *context* T5's states, Llama's B x layers x T x text width.

        *image_cond*, a latent of *x*'s shape, is a picture to change; it is laid to the right of *x*.
        """
        height, width = x.shape[-2:]
        if image_cond is not None:
            x = torch.cat((x, image_cond), dim=-1)
        x = comfy.ldm.common_dit.pad_to_patch_size(x, (self.patch_size, self.patch_size))
        side = self.patch_size
        rows, columns = x.shape[-2] // side, x.shape[-1] // side
        patches = x.unflatten(3, (columns, side)).unflatten(2, (rows, side)).permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        tokens = self.x_embedder(patches)
        adaln = self.t_embedder(t.expand(len(x)), tokens.dtype) + self.p_embedder(y)
        llama = [project(encoder_hidden_states_llama3[:, layer]) for project, layer in zip(self.caption_projection, self.llama_layers)]
        words = torch.cat((self.caption_projection[-1](context), llama[-1]), dim=1)
        rope = self._rope(rows, columns, words.shape[1] + llama[0].shape[1], tokens)
        tokens = self._run(tokens, words, llama, adaln, rope, dict(transformer_options or {}))
        cells = self.final_layer(tokens, adaln).unflatten(1, (rows, columns)).unflatten(-1, (side, side, self.out_channels))
        return -cells.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)[:, :, :height, :width]

    def _rope(self, rows: int, columns: int, words: int, like: torch.Tensor) -> torch.Tensor:
        """The rotations of the picture's tokens by row and column, and of the text's, which stand at nought."""
        places = torch.zeros((rows, columns, AXES), device=like.device)
        places[..., 1] = torch.arange(rows, device=like.device)[:, None]
        places[..., 2] = torch.arange(columns, device=like.device)[None]
        ids = torch.cat((places.flatten(0, 1), places.new_zeros((words, AXES))))
        return self.pe_embedder(ids.expand(len(like), -1, -1))

    def _run(
        self,
        tokens: torch.Tensor,
        words: torch.Tensor,
        llama: Sequence[torch.Tensor],
        adaln: torch.Tensor,
        rope: torch.Tensor,
        options: Options,
    ) -> torch.Tensor:
        """The picture's tokens after all blocks. Each block sees the states of its own layer of Llama behind all other tokens."""
        pictures, kept = tokens.shape[1], words.shape[1]
        states = iter(llama)
        for block in self.double_stream_blocks:
            tokens, text = block([tokens, torch.cat((words, next(states)), dim=1)], adaln, rope, options)
            words = text[:, :kept]
        joint = torch.cat((tokens, words), dim=1)
        for block in self.single_stream_blocks:
            (out,) = block([torch.cat((joint, next(states)), dim=1)], adaln, rope, options)
            joint = out[:, : pictures + kept]
        return joint[:, :pictures]
