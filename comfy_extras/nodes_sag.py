"""Self-attention guidance (Hong et al. 2022, arXiv:2210.00939): away from a picture that is blurred where the model looks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import comfy.samplers
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.model_patch_schema import model_patch_schema
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.model_patcher import ModelPatcher

torch = lazy_module("torch")
attention = lazy_module("comfy.ldm.modules.attention")

THRESHOLD = 1.0  # a token is looked at when it gets more than its even share of attention
KERNEL_SIZE = 9


def attention_basic_with_sim(
    q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None, attn_precision: Any = None
) -> tuple[Tensor, Tensor]:
    """Attention over B×N×(heads·C), and its weights: (B·heads)×N×M. *mask* (B×…) is true where keys may be seen."""
    wide = torch.float32 if attn_precision == torch.float32 else q.dtype
    queries, keys, values = (x.unflatten(-1, (heads, -1)).transpose(1, 2).flatten(0, 1) for x in (q, k, v))
    scores = torch.bmm(queries.to(wide), keys.to(wide).mT) * (q.shape[-1] // heads) ** -0.5
    if mask is not None:
        hidden = ~mask.flatten(1).repeat_interleave(heads, 0).unsqueeze(1)
        scores = scores.masked_fill(hidden, -torch.finfo(scores.dtype).max)
    weights = scores.softmax(dim=-1)
    out = torch.bmm(weights.to(values.dtype), values)
    return out.unflatten(0, (-1, heads)).transpose(1, 2).flatten(2), weights


def create_blur_map(x0: Tensor, attn: Tensor, sigma: float = 3.0, threshold: float = THRESHOLD) -> Tensor:
    """*x0* (B×C×H×W), blurred where its tokens get more attention than *threshold*; *attn* holds the weights (B·heads)×N×N."""
    batch, _, height, width = x0.shape
    received = attn.unflatten(0, (batch, -1)).mean(1).sum(1)
    rows = _rows(received.shape[-1], height / width)
    seen = (received > threshold).view(batch, 1, rows, -1).to(attn.dtype)
    seen = torch.nn.functional.interpolate(seen, (height, width))
    return gaussian_blur_2d(x0, KERNEL_SIZE, sigma) * seen + x0 * (1 - seen)


def _rows(tokens: int, aspect: float) -> int:
    """Into how many rows *tokens* are cut, nearest to the picture's height per width."""
    wanted = round(math.sqrt(aspect * tokens))
    near = (rows for away in range(math.isqrt(tokens) // 2 + 1) for rows in (wanted + away, max(1, wanted - away)))
    return next((rows for rows in near if tokens % rows == 0), 1)


def gaussian_blur_2d(img: Tensor, kernel_size: int, sigma: float) -> Tensor:
    """*img* (B×C×H×W) blurred by a Gaussian of *kernel_size* (odd) pixels a side; its edges are mirrored. A *sigma* of 0 blurs nothing."""
    if sigma == 0:
        return img
    half = (kernel_size - 1) * 0.5
    weights = torch.exp(-0.5 * (torch.linspace(-half, half, kernel_size) / sigma) ** 2)
    line = (weights / weights.sum()).to(img)
    channels = img.shape[-3]
    kernel = torch.outer(line, line).expand(channels, 1, kernel_size, kernel_size)
    padded = torch.nn.functional.pad(img, [kernel_size // 2] * 4, mode="reflect")
    return torch.nn.functional.conv2d(padded, kernel, groups=channels)


class LookedAt:
    """Keeps how the negative side of a step attended in the middle block, and guides by it."""

    def __init__(self, scale: float, blur_sigma: float) -> None:
        self.scale, self.blur_sigma = scale, blur_sigma
        self._weights: Tensor | None = None

    def patch_identity_key(self) -> tuple[float, float]:
        """Its settings: what it keeps counts for one step."""
        return self.scale, self.blur_sigma

    def attend(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
        """Attention; keeps its weights where the negative side is computed."""
        heads, precision, sides = (extra_options[name] for name in ("n_heads", "attn_precision", "cond_or_uncond"))
        if 1 not in sides:
            return attention.optimized_attention(q, k, v, heads=heads, attn_precision=precision)
        out, weights = attention_basic_with_sim(q, k, v, heads, attn_precision=precision)
        self._weights = weights.chunk(len(sides))[sides.index(1)]
        return out

    def guide(self, args: dict[str, Any]) -> Tensor:
        """The guided picture, away from the prediction for the blurred one. Raises ``ValueError`` for models without such attention."""
        guided, negative, x = args["denoised"], args["uncond_denoised"], args["input"]
        if min(guided.shape[2:]) <= KERNEL_SIZE // 2:  # too small to mirror its edges
            return guided
        weights, self._weights = self._weights, None
        if weights is None:
            raise ValueError("SelfAttentionGuidance needs a UNet with attention in its middle block, and a negative prompt")
        blurred = create_blur_map(negative, weights, self.blur_sigma)
        options, sigma = args["model_options"], args["sigma"]
        (sag,) = comfy.samplers.calc_cond_batch(args["model"], [args["uncond"]], blurred + x - negative, sigma, options)
        self._weights = None
        return guided + (blurred - sag) * self.scale


class SelfAttentionGuidance(io.ComfyNode):
    """Guides a UNet by its self-attention."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return model_patch_schema(
            "SelfAttentionGuidance",
            "experimental",
            io.Float.Input("scale", default=0.5, min=-2.0, max=5.0, step=0.01),
            io.Float.Input("blur_sigma", default=2.0, min=0.0, max=10.0, step=0.1, advanced=True),
            display_name="Self-Attention Guidance",
            is_experimental=True,
        )

    @classmethod
    def execute(cls, model: ModelPatcher, scale: float, blur_sigma: float) -> io.NodeOutput:
        """A clone of *model* that computes both sides and, for each step, the blurred picture."""
        looked_at = LookedAt(scale, blur_sigma)
        clone = model.clone()
        clone.set_model_sampler_post_cfg_function(looked_at.guide, disable_cfg1_optimization=True)
        clone.set_model_attn1_replace(looked_at.attend, "middle", 0, 0)
        return io.NodeOutput(clone)


comfy_entrypoint = extension_of(SelfAttentionGuidance)
