"""Token merging for Stable Diffusion (Bolya and Hoffman 2023, arXiv:2303.17604): similar queries of self-attention are computed once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.model_patch_schema import model_patch_schema
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.model_patcher import ModelPatcher

torch = lazy_module("torch")

STRIDE = 2  # one token of each 2×2 stays
Change = Callable[..., Any]


def do_nothing(x: Tensor, mode: str | None = None) -> Tensor:
    """*x*."""
    return x


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """The tokens of *x* (B×N×C) at *index* (1 or B × M × 1)."""
    return x.gather(1, index.expand(x.shape[0], -1, x.shape[-1]))


class TokenMerging:
    """Which tokens are merged into which. Made for one attention; its tensors are on the device of the features."""

    def __init__(self, metric: Tensor, kept: Tensor, moving: Tensor, count: int) -> None:
        """*metric* (B×N×C) tells which tokens are alike; *kept* and *moving* (1×M×1) are their places; *count* of the moving are merged."""
        self.kept, self.moving, self.tokens = kept, moving, metric.shape[1]
        unit = metric / metric.norm(dim=-1, keepdim=True)
        closeness, nearest = (_rows(unit, moving) @ _rows(unit, kept).mT).max(dim=-1)
        order = closeness.argsort(dim=-1, descending=True).unsqueeze(-1)
        count = min(moving.shape[1], count)
        self.merged, self.single = order[:, :count], order[:, count:]
        self.targets = nearest.unsqueeze(-1).gather(1, self.merged)

    def merge(self, x: Tensor, mode: str = "mean") -> Tensor:
        """*x* (B×N×C) with fewer tokens: those that stay single, then those that others were merged into."""
        moving = _rows(x, self.moving)
        into = self.targets.expand(-1, -1, x.shape[-1])
        kept = _rows(x, self.kept).scatter_reduce(1, into, _rows(moving, self.merged), reduce=mode)
        return torch.cat([_rows(moving, self.single), kept], dim=1)

    def unmerge(self, x: Tensor) -> Tensor:
        """All tokens again; merged ones are copies of what they were merged into."""
        single, kept = x.split([self.single.shape[1], x.shape[1] - self.single.shape[1]], dim=1)
        out = x.new_zeros(x.shape[0], self.tokens, x.shape[-1])
        moving = self.moving.expand(x.shape[0], -1, -1)
        for places, values in (
            (self.kept, kept),
            (moving.gather(1, self.single), single),
            (moving.gather(1, self.merged), _rows(kept, self.targets)),
        ):
            out.scatter_(1, places.expand(x.shape[0], -1, x.shape[-1]), values)
        return out


def bipartite_soft_matching_random2d(
    metric: Tensor, w: int, h: int, sx: int, sy: int, r: int, no_rand: bool = False
) -> tuple[Change, Change]:
    """Functions that merge *r* tokens of features like *metric* (B×(h·w)×C) and undo it.

    In each region of *sy* × *sx* tokens one stays, a random one or, with *no_rand*, the first; the rest may be merged into any that stay.
    """
    if r <= 0 or w == 1 or h == 1:
        return do_nothing, do_nothing
    down, across = h // sy, w // sx
    if no_rand:
        chosen = torch.zeros(down, across, 1, device=metric.device, dtype=torch.int64)
    else:
        chosen = torch.randint(sy * sx, size=(down, across, 1), device=metric.device)
    stays = torch.zeros(down, across, sy * sx, device=metric.device, dtype=torch.int64).scatter_(2, chosen, -1)
    order = torch.zeros(h, w, device=metric.device, dtype=torch.int64)
    order[: down * sy, : across * sx] = stays.unflatten(2, (sy, sx)).transpose(1, 2).reshape(down * sy, across * sx)
    places = order.reshape(1, -1, 1).argsort(dim=1)
    merging = TokenMerging(metric, places[:, : down * across], places[:, down * across :], r)
    return merging.merge, merging.unmerge


def get_functions(x: Tensor, ratio: float, original_shape: Any) -> tuple[Change, Change]:
    """Functions that merge the share *ratio* of the tokens *x* (B×N×C) and undo it; of a latent's full size only, others stay."""
    _, _, height, width = original_shape
    downsample = math.ceil(math.sqrt(height * width // x.shape[1]))
    if downsample > 1:
        return do_nothing, do_nothing
    return bipartite_soft_matching_random2d(
        x, math.ceil(width / downsample), math.ceil(height / downsample), STRIDE, STRIDE, int(x.shape[1] * ratio)
    )


class _Merging:
    """Merges the queries of an attention and undoes it in its result."""

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio
        self._undo: Change = do_nothing

    def patch_identity_key(self) -> float:
        """Its setting: how to undo a merging counts for the same attention."""
        return self.ratio

    def merge(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        merge, self._undo = get_functions(q, self.ratio, extra_options["original_shape"])
        return merge(q), k, v

    def unmerge(self, n: Tensor, extra_options: dict[str, Any]) -> Tensor:
        undo, self._undo = self._undo, do_nothing
        return undo(n)


class TomePatchModel(io.ComfyNode):
    """Merges tokens in a UNet's largest self-attentions, which is faster and loses detail."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return model_patch_schema("TomePatchModel", "model/patch/unet", io.Float.Input("ratio", default=0.3, min=0.0, max=1.0, step=0.01))

    @classmethod
    def execute(cls, model: ModelPatcher, ratio: float) -> io.NodeOutput:
        """A clone of *model* in which the share *ratio* of the tokens is merged."""
        merging = _Merging(ratio)
        clone = model.clone()
        clone.set_model_attn1_patch(merging.merge)
        clone.set_model_attn1_output_patch(merging.unmerge)
        return io.NodeOutput(clone)


comfy_entrypoint = extension_of(TomePatchModel)
