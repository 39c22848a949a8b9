"""What Gemma 4 has for pictures and sounds, from transformers' layers: towers that look and listen, or one layer for raw ones."""

from __future__ import annotations

from typing import Any

import torch

from comfy.text.gemma4.sizes import Gemma4Ears, Gemma4Eyes, Gemma4Glance

CELL = 3  # patches along a side that become one token
Vectors = torch.Tensor  # 1 x tokens x width
Picture = torch.Tensor  # 1 x height x width x 3 in 0…1, in whole cells


class Projector(torch.nn.Module):
    """Vectors of a sense, normalised, in the language model's width."""

    def __init__(self, inputs: int, outputs: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.embedding_projection = torch.nn.Linear(inputs, outputs, bias=False, device="meta").requires_grad_(False)

    def forward(self, x: Vectors) -> Vectors:
        """B x tokens x inputs to B x tokens x outputs."""
        return self.embedding_projection(torch.nn.functional.rms_norm(x, x.shape[-1:], None, self.eps))


def picture_cells(picture: Picture, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(values 1 x cells x (*side* · *side* · 3), column and row of each 1 x cells x 2) of squares of that *side*, row by row."""
    height, width = picture.shape[1] // side, picture.shape[2] // side
    cells = picture[:, : height * side, : width * side].unflatten(2, (width, side)).unflatten(1, (height, side)).movedim(3, 2)
    rows, columns = torch.meshgrid(*(torch.arange(count, device=picture.device) for count in (height, width)), indexing="ij")
    return cells.reshape(1, height * width, -1), torch.stack((columns.flatten(), rows.flatten()), dim=-1)[None]


def made_eyes(config: Gemma4Eyes) -> Any:
    """transformers' network for pictures, on the meta device but for its turns."""
    from transformers.models.gemma4.configuration_gemma4 import Gemma4VisionConfig
    from transformers.models.gemma4.modeling_gemma4 import Gemma4VisionModel

    sizes: dict[str, Any] = {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_heads,
        "head_dim": config.head_width,
        "patch_size": config.patch_size,
        "position_embedding_size": config.positions,
        "use_clipped_linears": config.clipped,
        "attn_implementation": "sdpa",
    }
    arguments = Gemma4VisionConfig(**sizes)
    with torch.device("meta"):
        built: Any = Gemma4VisionModel(arguments).eval().requires_grad_(False)
    built.encoder.rotary_emb = type(built.encoder.rotary_emb)(arguments)  # its frequencies are in no file
    return built


def seen(eyes: Any, picture: Picture, patch: int) -> Vectors:
    """What *eyes* make of *picture*: a vector for each cell of patches."""
    patches, places = picture_cells(picture, patch)
    return eyes(patches, pixel_position_ids=places).last_hidden_state.view(1, -1, eyes.config.hidden_size)


def made_ears(config: Gemma4Ears) -> Any:
    """transformers' network for sounds, on the meta device but for what is in no file."""
    from transformers.models.gemma4.configuration_gemma4 import Gemma4AudioConfig
    from transformers.models.gemma4.modeling_gemma4 import Gemma4AudioModel

    sizes: dict[str, Any] = {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "conv_kernel_size": config.kernel,
        "output_proj_dims": config.output_size,
        "subsampling_conv_channels": list(config.channels),
        "use_clipped_linears": config.clipped,
        "attn_implementation": "eager",
    }
    arguments = Gemma4AudioConfig(**sizes)
    with torch.device("meta"):
        built: Any = Gemma4AudioModel(arguments).eval().requires_grad_(False)
    built.rel_pos_enc = type(built.rel_pos_enc)(arguments)
    for layer in built.layers:
        layer.self_attn.softcap = torch.nn.Buffer(torch.tensor(arguments.attention_logit_cap), persistent=False)
        convolution = layer.lconv1d.depthwise_conv1d
        convolution.__class__ = torch.nn.Conv1d  # which gets its weights as all layers do; what it adds is the hook's
        convolution.register_forward_pre_hook(_after_silence)
    return built


def _after_silence(layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """*inputs* of a convolution with zeros before, so that it never sees what is later."""
    kernel: Any = layer.kernel_size
    return (torch.nn.functional.pad(inputs[0], (kernel[0] - 1, 0)), *inputs[1:])


def heard(ears: Any, spectrum: torch.Tensor, mask: torch.Tensor | None) -> Vectors:
    """What *ears* make of *spectrum* (1 x moments x bands), of which *mask* (1 x moments) says what is sound and no padding."""
    return ears(spectrum, attention_mask=mask).last_hidden_state


def made_glance(config: Gemma4Glance, width: int) -> Any:
    """transformers' layer that takes patches as they are, on the meta device; what projects them to *width* is apart."""
    from transformers.models.gemma4_unified.configuration_gemma4_unified import Gemma4UnifiedTextConfig, Gemma4UnifiedVisionConfig
    from transformers.models.gemma4_unified.modeling_gemma4_unified import Gemma4UnifiedVisionEmbedder

    arguments = Gemma4UnifiedVisionConfig(
        patch_size=glance_side(config) // CELL,
        mm_embed_dim=config.hidden_size,
        mm_posemb_size=config.positions,
        output_proj_dims=config.hidden_size,
    )
    with torch.device("meta"):
        built: Any = Gemma4UnifiedVisionEmbedder(arguments, Gemma4UnifiedTextConfig(hidden_size=width)).eval().requires_grad_(False)
    built.multimodal_embedder = torch.nn.Identity()
    return built


def glance_side(config: Gemma4Glance) -> int:
    """The side of a patch in pixels."""
    return round((config.patch // 3) ** 0.5)


def glanced(layer: Any, picture: Picture, side: int) -> Vectors:
    """What *layer* makes of *picture*: a vector for each square of that *side*."""
    patches, places = picture_cells(picture, side)
    return layer(patches, places).last_hidden_state
