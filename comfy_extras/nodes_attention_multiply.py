"""Experimental nodes that multiply the weights of attention layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from comfy.text.encoder import CLIP

patching = lazy_module("comfy.patching.patched_models")

CATEGORY = "experimental/attention_experiments"
PROJECTIONS = ("q", "k", "v", "out")
FactorOf = Callable[[str], float | None]


def multiplied(target: Any, names: Callable[[Any], Iterable[str]], factor_of: FactorOf, params: Any) -> Any:
    """A clone of *target*, a model or text encoder, whose weights *names* are multiplied by what *factor_of* says (None: not at all)."""

    def build(clone: Any) -> None:
        groups: dict[float, dict[str, Any]] = {}
        for name in names(clone):
            factor = factor_of(name)
            if factor is not None:
                groups.setdefault(factor, {})[name] = (None,)
        for factor, patches in groups.items():
            clone.add_patches(patches, 0.0, factor)

    return patching.patched_models().patched(target, params, build)


def _by_layer(layers: dict[str, float]) -> FactorOf:
    """The factor of the layer that a weight or bias belongs to; *layers* are the ends of their names."""
    ends = {f"{layer}.{part}": factor for layer, factor in layers.items() for part in ("weight", "bias")}

    def factor_of(name: str) -> float | None:
        return next((factor for end, factor in ends.items() if name.endswith(end)), None)

    return factor_of


def _names_of_model(clone: ModelPatcher) -> Iterable[str]:
    return clone.model_state_dict()


def _names_of_encoder(clone: CLIP) -> Iterable[str]:
    return clone.patcher.model_state_dict()


def attention_multiply(attn: str, model: ModelPatcher, q: float, k: float, v: float, out: float) -> ModelPatcher:
    """A clone of *model* with the projections of the attentions *attn* ("attn1": self, "attn2": cross) multiplied."""
    layers = {f"{attn}.to_q": q, f"{attn}.to_k": k, f"{attn}.to_v": v, f"{attn}.to_out.0": out}
    return multiplied(model, _names_of_model, _by_layer(layers), (attn, q, k, v, out))


def _schema(node_id: str, target: io.Input, output: io.Output, names: Iterable[str], **options: Any) -> io.Schema:
    factors = (io.Float.Input(name, default=1.0, min=0.0, max=10.0, step=0.01, advanced=True) for name in names)
    return io.Schema(node_id=node_id, category=CATEGORY, inputs=[target, *factors], outputs=[output], is_experimental=True, **options)


class UNetSelfAttentionMultiply(io.ComfyNode):
    """Multiplies the self-attentions of a UNet."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("UNetSelfAttentionMultiply", io.Model.Input("model"), io.Model.Output(), PROJECTIONS)

    @classmethod
    def execute(cls, model: ModelPatcher, q: float, k: float, v: float, out: float) -> io.NodeOutput:
        """A clone of *model*."""
        return io.NodeOutput(attention_multiply("attn1", model, q, k, v, out))


class UNetCrossAttentionMultiply(io.ComfyNode):
    """Multiplies the cross-attentions of a UNet."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("UNetCrossAttentionMultiply", io.Model.Input("model"), io.Model.Output(), PROJECTIONS)

    @classmethod
    def execute(cls, model: ModelPatcher, q: float, k: float, v: float, out: float) -> io.NodeOutput:
        """A clone of *model*."""
        return io.NodeOutput(attention_multiply("attn2", model, q, k, v, out))


class CLIPAttentionMultiply(io.ComfyNode):
    """Multiplies the attentions of a text encoder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        aliases = ["clip attention scale", "text encoder attention"]
        return _schema("CLIPAttentionMultiply", io.Clip.Input("clip"), io.Clip.Output(), PROJECTIONS, search_aliases=aliases)

    @classmethod
    def execute(cls, clip: CLIP, q: float, k: float, v: float, out: float) -> io.NodeOutput:
        """A clone of *clip*."""
        layers = {f"self_attn.{name}_proj": factor for name, factor in zip(PROJECTIONS, (q, k, v, out))}
        return io.NodeOutput(multiplied(clip, _names_of_encoder, _by_layer(layers), (q, k, v, out)))


class UNetTemporalAttentionMultiply(io.ComfyNode):
    """Multiplies what the attentions of a video UNet give, over space and over time."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        names = ("self_structural", "self_temporal", "cross_structural", "cross_temporal")
        return _schema("UNetTemporalAttentionMultiply", io.Model.Input("model"), io.Model.Output(), names)

    @classmethod
    def execute(
        cls, model: ModelPatcher, self_structural: float, self_temporal: float, cross_structural: float, cross_temporal: float
    ) -> io.NodeOutput:
        """A clone of *model*."""
        over_space = _by_layer({"attn1.to_out.0": self_structural, "attn2.to_out.0": cross_structural})
        over_time = _by_layer({"attn1.to_out.0": self_temporal, "attn2.to_out.0": cross_temporal})

        def factor_of(name: str) -> float | None:
            return (over_time if ".time_stack." in name else over_space)(name)

        params = (self_structural, self_temporal, cross_structural, cross_temporal)
        return io.NodeOutput(multiplied(model, _names_of_model, factor_of, params))


comfy_entrypoint = extension_of(UNetSelfAttentionMultiply, UNetCrossAttentionMultiply, CLIPAttentionMultiply, UNetTemporalAttentionMultiply)
