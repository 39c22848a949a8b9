"""Model patches: networks of ``models/model_patches`` that change a diffusion model's tokens as it runs. Kept in the RAM model cache."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch

import comfy.model_management
import comfy.ops
from comfy.dit.diffusers_files import JoinedSource, Parts
from comfy.dit.family import Place, Shapes
from comfy.dit.lumina import IN_BLOCK, feed_forward
from comfy.dit.names.wan import IN_ATTENTION
from comfy.families.diffusers_unet import RenamedSource
from comfy.families.key_accounts import say_unused
from comfy.families.model_errors import IncompleteModelError, UnknownModelError, naming_file
from comfy.families.published_weights import load_published
from comfy.families.quantised_weights import plain_weights
from comfy.families.sd_unet_config import count_blocks
from comfy.families.weight_source import PrefixedSource, WeightSource, most_common_dtype
from comfy.ldm.anima import lllite
from comfy.ldm.flux.siglip_style import SigLIPMultiFeatProjModel
from comfy.ldm.lightricks.duration_head import DurationHead
from comfy.ldm.lumina import controlnet as z_image
from comfy.ldm.qwen_image import blockwise
from comfy.ldm.wan.model_multitalk import AROUND, MultiTalkModelPatch
from comfy.ldm.wan.uni3c import WanUni3CControlnet
from comfy.loading.components import kept_bytes
from comfy.loading.model_files import ModelFiles
from comfy.loading.parts import Part, load_parts
from comfy.model_detection import describe_tensors
from comfy.model_patcher import CoreModelPatcher, ModelPatcher

Network = Any

WHAT = "the model patch"
SUPPORTED = (
    "DiffSynth ControlNets for Qwen-Image, Fun ControlNets for Z-Image, USO for Flux, LLLite for Anima, InfiniteTalk and Uni3C for Wan, "
    "LTX's duration head"
)
LLLITE_MARK = f"{lllite.CONDITIONING}.conv1.weight"
QWEN_MARK = "controlnet_blocks.0.y_rms.weight"
STYLE_PREFIX = "feature_embedder."
STYLE_MARK = f"{STYLE_PREFIX}mid_layer_norm.bias"
Z_IMAGE_MARK = f"control_all_x_embedder.{z_image.KIND}.weight"
TALK_MARK = "audio_proj.proj1.weight"
UNI3C_MARK = "controlnet_patch_embedding.weight"
DURATION_MARK = "attention_pooler.query_tokens"
DURATION_PREFIXES = ("model.diffusion_model.duration_head.", "duration_head.", "")
REFINER_RESULT = "control_noise_refiner.0.after_proj.weight"
UNTRAINED_FROM = 15  # blocks on; with as many, refining blocks of zeros mean that there are none
_ROWS = re.compile(r"(.*\.attention)\.to_([qkv])\.weight")


def load_model_patch(path: str) -> ModelPatcher:
    """The patcher of the network in the file *path*. Raises ``UnknownModelError`` for files that are none, ``ModelFileError``."""
    with ModelFiles(path) as files:
        patcher: ModelPatcher = load_parts(files, {"model_patch": _ModelPatchPart(files)})["model_patch"]
    return patcher


class _ModelPatchPart(Part[ModelPatcher]):
    """The network of a file."""

    def __init__(self, files: ModelFiles) -> None:
        super().__init__()
        self._files = files

    def load(self) -> ModelPatcher:
        source = self._files.source()
        with naming_file(source.name, WHAT):
            network = build_model_patch(source)
        management = comfy.model_management
        return CoreModelPatcher(network, load_device=management.get_torch_device(), offload_device=management.unet_offload_device())

    def estimate_bytes(self) -> int:
        return kept_bytes(self._files.source(), "", None)


def build_model_patch(source: WeightSource) -> Network:
    """The network of *source* with its weights, in the file's precision. Raises ``ModelFileError``."""
    own = plain_weights(source)
    shapes = own.shapes()
    found = next((build for mark, build in _BUILDERS.items() if mark in shapes), None)
    if found is None:
        raise UnknownModelError(f"{source.name} holds no model patch; supported: {SUPPORTED}. Found {describe_tensors(shapes)}")
    dtype = most_common_dtype([own]) or torch.float32
    settings: dict[str, Any] = {"dtype": dtype, "device": torch.device("meta"), "operations": comfy.ops.manual_cast}
    network, part = found(own, settings)
    network.requires_grad_(False).eval()
    load_published(network, part, dtype, WHAT, in_float32=getattr(network, "FLOAT32", ()))
    network.source_name = source.name
    return network


def _qwen_image(source: WeightSource, settings: dict[str, Any]) -> tuple[Network, WeightSource]:
    width, values = _shape(source.shapes(), "img_in.weight")
    extra = values - blockwise.PATCH**2 * blockwise.LATENT_CHANNELS
    if extra < 0 or extra % blockwise.PATCH**2:
        raise IncompleteModelError(f"img_in.weight takes {values} values per token, which are no latent of Qwen-Image")
    blocks = count_blocks(source.shapes(), "controlnet_blocks.{}.")
    return blockwise.QwenImageBlockWiseControlNet(blocks, additional_in_dim=extra, dim=width, **settings), source


def _lllite(source: WeightSource, settings: dict[str, Any]) -> tuple[Network, WeightSource]:
    shapes = {key: torch.empty(shape, device="meta") for key, shape in source.shapes().items()}
    return lllite.AnimaLLLite(shapes, source.metadata, **settings), source


def _style(source: WeightSource, settings: dict[str, Any]) -> tuple[Network, WeightSource]:
    say_unused(source.name, WHAT, source.shapes(), {key for key in source.shapes() if key.startswith(STYLE_PREFIX)})
    part = PrefixedSource(source, STYLE_PREFIX)
    style_tokens, tokens = _shape(part.shapes(), "high_embedding_linear.0.weight")
    hidden, width = _shape(part.shapes(), "high_projection.weight")
    sizes: dict[str, Any] = {
        "hidden_size": hidden,
        "siglip_token_dims": width,
        "siglip_token_nums": tokens,
        "style_token_nums": style_tokens,
    }
    return SigLIPMultiFeatProjModel(**sizes, **settings), part


def _talk(source: WeightSource, settings: dict[str, Any]) -> tuple[Network, WeightSource]:
    shapes = source.shapes()
    between, heard = _shape(shapes, TALK_MARK)
    sizes: dict[str, Any] = {
        "heard": heard // AROUND,
        "intermediate_dim": between,
        "in_dim": _shape(shapes, "blocks.0.audio_cross_attn.proj.weight")[0],
        "out_dim": _shape(shapes, "audio_proj.norm.weight")[0],
        "num_layers": count_blocks(shapes, "blocks.{}."),
    }
    return MultiTalkModelPatch(**sizes, **settings), source


def _uni3c(source: WeightSource, settings: dict[str, Any]) -> tuple[Network, WeightSource]:
    shapes = source.shapes()
    names = {_in_wans_names(key): key for key in shapes}
    part = RenamedSource(source, names, {own: shapes[key] for own, key in names.items()})
    made, channels, *_ = _shape(shapes, UNI3C_MARK)
    between, seen, *_ = _shape(shapes, "controlnet_mask_embedding.mask_proj.0.weight")
    model, width = _shape(shapes, "proj_out.0.weight")
    sizes = {
        "in_channels": channels,
        "conv_out_dim": made,
        "dim": width,
        "ffn_dim": _shape(shapes, "controlnet_blocks.0.ffn.0.bias")[0],
        "num_layers": count_blocks(shapes, "proj_out.{}."),
        "time_embed_dim": _shape(shapes, "controlnet_blocks.0.norm1.linear.weight")[1],
        "out_proj_dim": model,
        "add_channels": seen,
        "mid_channels": between,
    }
    return WanUni3CControlnet(**sizes, **settings), part


def _in_wans_names(key: str) -> str:
    """What Uni3C's network calls the tensor *key*."""
    for theirs, own in IN_ATTENTION.items():
        key = key.replace(f".self_attn.{theirs}.", f".self_attn.{own}.")
    return key


def _duration(source: WeightSource, settings: dict[str, Any]) -> tuple[Network, WeightSource]:
    shapes = source.shapes()
    prefix = next(prefix for prefix in DURATION_PREFIXES if prefix + DURATION_MARK in shapes)
    part = PrefixedSource(source, prefix)
    shapes = part.shapes()
    queries, width = _shape(shapes, DURATION_MARK)
    sizes = {
        "video_cross_attention_dim": _shape(shapes, "video_input_proj.weight")[1],
        "audio_cross_attention_dim": _shape(shapes, "audio_input_proj.weight")[1],
        "pooler_hidden_dim": width,
        "num_queries": queries,
        "mlp_hidden": _shape(shapes, "mlp_hidden.weight")[0],
    }
    with settings["device"]:
        return DurationHead(**sizes), part


def _z_image(source: WeightSource, settings: dict[str, Any]) -> tuple[Network, WeightSource]:
    part = _in_the_models_names(source)
    shapes = part.shapes()
    width, values = _shape(shapes, Z_IMAGE_MARK)
    head = _shape(shapes, "control_layers.0.attention.k_norm.weight")[0]
    heads = width // head
    rows = _shape(shapes, "control_layers.0.attention.qkv.weight")[0]
    inner = _shape(shapes, "control_layers.0.feed_forward.w1.weight")[0]
    blocks = count_blocks(shapes, "control_layers.{}.")
    refines = REFINER_RESULT in shapes
    network = z_image.ZImage_Control(
        dim=width,
        n_heads=heads,
        n_kv_heads=(rows // head - heads) // 2,
        n_control_layers=blocks,
        additional_in_dim=values // z_image.PATCH**2 - z_image.LATENT_CHANNELS,
        refiner_control=refines,
        broken=refines and blocks >= UNTRAINED_FROM and not part.take([REFINER_RESULT], None)[REFINER_RESULT].any().item(),
        **feed_forward(width, inner, 8 / 3),
        **settings,
    )
    return network, part


def _in_the_models_names(source: WeightSource) -> WeightSource:
    """*source*, whose blocks have diffusers' names, in those of the model, with queries, keys and values as one weight."""
    shapes = source.shapes()
    parts: dict[str, Parts] = {}
    for key in sorted(shapes, key=lambda name: (name.replace(".to_k.", ".to_q2.")).replace(".to_v.", ".to_q3.")):
        rows = _ROWS.fullmatch(key)
        own = f"{rows[1]}.qkv.weight" if rows else key
        for theirs, ours in IN_BLOCK.items():
            own = own.removesuffix(theirs) + ours if own.endswith(f".{theirs}") else own
        parts.setdefault(own, []).append((key, Place(own)))
    joined = {own: (sum(shapes[key][0] for key, _ in found), *shapes[found[0][0]][1:]) for own, found in parts.items()}
    return JoinedSource(source, parts, joined)


def _shape(shapes: Shapes, key: str) -> tuple[int, ...]:
    if key not in shapes:
        raise IncompleteModelError(f"the tensor {key} is missing")
    return shapes[key]


Builder = Callable[[WeightSource, dict[str, Any]], tuple[Network, WeightSource]]
_BUILDERS: dict[str, Builder] = {
    QWEN_MARK: _qwen_image,
    STYLE_MARK: _style,
    Z_IMAGE_MARK: _z_image,
    LLLITE_MARK: _lllite,
    UNI3C_MARK: _uni3c,
    TALK_MARK: _talk,
    **{prefix + DURATION_MARK: _duration for prefix in DURATION_PREFIXES},
}
