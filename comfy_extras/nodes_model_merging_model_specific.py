"""Nodes that merge two models of one family with a ratio for each of its blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from comfy_extras.node_inputs import real
from comfy_extras.nodes_model_merging import ModelMergeBlocks


def _numbered(start: str, count: int, end: str = ".") -> list[str]:
    return [f"{start}{number}{end}" for number in range(count)]


def _ratios(*names: str | Iterable[str]) -> dict[str, Any]:
    """An input for each name, lists of names included."""
    flat = (name for entry in names for name in ([entry] if isinstance(entry, str) else entry))
    return {name: real(1.0, 0.0, 1.0) for name in flat}


def _unet(count: int, end: str) -> dict[str, Any]:
    """The parts of a UNet with *count* numbered blocks in each half, whose names end in *end*."""
    halves = (_numbered(f"{half}_blocks.", count, end) for half in ("input", "output"))
    inputs, outputs = halves
    return _ratios("time_embed.", "label_emb.", inputs, _numbered("middle_block.", 3, end), outputs, "out.")


def _sd3(count: int) -> dict[str, Any]:
    embedders = [f"{name}_embedder." for name in ("x", "context", "y", "t")]
    return _ratios("pos_embed.", embedders, _numbered("joint_blocks.", count), "final_layer.")


def _cosmos(count: int) -> dict[str, Any]:
    embedders = [f"{name}_embedder." for name in ("pos", "extra_pos", "x", "t")]
    return _ratios(embedders, "affline_norm.", _numbered("blocks.block", count), "final_layer.")


def _predict2(count: int) -> dict[str, Any]:
    embedders = [f"{name}_embedder." for name in ("pos", "x", "t")]
    return _ratios(embedders, "t_embedding_norm.", _numbered("blocks.", count), "final_layer.")


class _OfOneFamily(ModelMergeBlocks):
    """A node whose ratios are those of one family's blocks."""

    CATEGORY = "model/merging/model specific"


class ModelMergeSD1(_OfOneFamily):
    """Merges Stable Diffusion 1.x or 2.x models, which have the same blocks."""

    SETTINGS: Mapping[str, Any] = _unet(12, ".")


class ModelMergeSDXL(_OfOneFamily):
    """Merges SDXL models."""

    SETTINGS: Mapping[str, Any] = _unet(9, "")


class ModelMergeSD3_2B(_OfOneFamily):  # noqa: N801 - the name packs import
    """Merges Stable Diffusion 3 medium models."""

    SETTINGS: Mapping[str, Any] = _sd3(24)


class ModelMergeSD35_Large(_OfOneFamily):  # noqa: N801 - the name packs import
    """Merges Stable Diffusion 3.5 large models."""

    SETTINGS: Mapping[str, Any] = _sd3(38)


class ModelMergeAuraflow(_OfOneFamily):
    """Merges AuraFlow models."""

    SETTINGS: Mapping[str, Any] = _ratios(
        ["init_x_linear.", "positional_encoding", "cond_seq_linear.", "register_tokens", "t_embedder."],
        _numbered("double_layers.", 4),
        _numbered("single_layers.", 32),
        ["modF.", "final_linear."],
    )


class ModelMergeFlux1(_OfOneFamily):
    """Merges Flux.1 models."""

    SETTINGS: Mapping[str, Any] = _ratios(
        ["img_in.", "time_in.", "guidance_in", "vector_in.", "txt_in."],
        _numbered("double_blocks.", 19),
        _numbered("single_blocks.", 38),
        "final_layer.",
    )


class ModelMergeMochiPreview(_OfOneFamily):
    """Merges Mochi models."""

    SETTINGS: Mapping[str, Any] = _ratios(
        ["pos_frequencies.", "t_embedder.", "t5_y_embedder.", "t5_yproj."], _numbered("blocks.", 48), "final_layer."
    )


class ModelMergeLTXV(_OfOneFamily):
    """Merges LTX-Video models."""

    SETTINGS: Mapping[str, Any] = _ratios(
        ["patchify_proj.", "adaln_single.", "caption_projection."], _numbered("transformer_blocks.", 28), ["scale_shift_table", "proj_out."]
    )


class ModelMergeCosmos7B(_OfOneFamily):
    """Merges Cosmos models of 7 billion weights."""

    SETTINGS: Mapping[str, Any] = _cosmos(28)


class ModelMergeCosmos14B(_OfOneFamily):
    """Merges Cosmos models of 14 billion weights."""

    SETTINGS: Mapping[str, Any] = _cosmos(36)


class ModelMergeWAN2_1(_OfOneFamily):  # noqa: N801 - the name packs import
    """Merges Wan 2.1 models."""

    DESCRIPTION = "Models of 1.3 billion weights have 30 blocks, those of 14 billion 40. Only image-to-video models have img_emb."
    SETTINGS: Mapping[str, Any] = _ratios(
        ["patch_embedding.", "time_embedding.", "time_projection.", "text_embedding.", "img_emb."], _numbered("blocks.", 40), "head."
    )


class ModelMergeCosmosPredict2_2B(_OfOneFamily):  # noqa: N801 - the name packs import
    """Merges Cosmos Predict2 models of 2 billion weights."""

    SETTINGS: Mapping[str, Any] = _predict2(28)


class ModelMergeCosmosPredict2_14B(_OfOneFamily):  # noqa: N801 - the name packs import
    """Merges Cosmos Predict2 models of 14 billion weights."""

    SETTINGS: Mapping[str, Any] = _predict2(36)


class ModelMergeQwenImage(_OfOneFamily):
    """Merges Qwen-Image models."""

    SETTINGS: Mapping[str, Any] = _ratios(
        ["pos_embeds.", "img_in.", "txt_norm.", "txt_in.", "time_text_embed."], _numbered("transformer_blocks.", 60), "proj_out."
    )


class ModelMergeKrea2(_OfOneFamily):
    """Merges Krea 2 models."""

    SETTINGS: Mapping[str, Any] = _ratios(
        ["first.", "tmlp.", "txtmlp.", "tproj."],
        _numbered("txtfusion.layerwise_blocks.", 2),
        "txtfusion.projector.",
        _numbered("txtfusion.refiner_blocks.", 2),
        _numbered("blocks.", 28),
        "last.",
    )


NODE_CLASS_MAPPINGS = {
    "ModelMergeSD1": ModelMergeSD1,
    "ModelMergeSD2": ModelMergeSD1,
    **{
        node.__name__: node
        for node in (
            ModelMergeSDXL,
            ModelMergeSD3_2B,
            ModelMergeAuraflow,
            ModelMergeFlux1,
            ModelMergeSD35_Large,
            ModelMergeMochiPreview,
            ModelMergeLTXV,
            ModelMergeCosmos7B,
            ModelMergeCosmos14B,
            ModelMergeWAN2_1,
            ModelMergeCosmosPredict2_2B,
            ModelMergeCosmosPredict2_14B,
            ModelMergeQwenImage,
            ModelMergeKrea2,
        )
    },
}
