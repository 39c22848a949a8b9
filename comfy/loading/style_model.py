"""Style models: a picture, as an image encoder sees it, becomes tokens of text. Kept in the RAM model cache."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

import comfy.model_management
from comfy.families.conversion_plan import load_parameters, plan_conversion
from comfy.families.model_errors import UnknownModelError, naming_file
from comfy.families.weight_source import WeightSource, most_common_dtype
from comfy.ldm.flux.redux import EXPANSION, ReduxImageEncoder
from comfy.loading.components import kept_bytes
from comfy.loading.model_files import ModelFiles
from comfy.loading.parts import Part, load_parts
from comfy.model_patcher import CoreModelPatcher, ModelPatcher
from comfy.t2i_adapter.style import StyleAdapter

Shapes = Mapping[str, tuple[int, ...]]

WHAT = "the style model"
STYLE_HEADS = 8
_STYLE_BLOCK = re.compile(r"transformer_layes\.(\d+)\.")


class StyleModel:
    """A style model with its patcher."""

    def __init__(self, model: torch.nn.Module, device: str = "cpu", patcher: ModelPatcher | None = None) -> None:
        management = comfy.model_management
        self.model = model
        self.patcher = patcher or CoreModelPatcher(
            model, load_device=management.text_encoder_device(), offload_device=management.text_encoder_offload_device()
        )

    def get_cond(self, input: Any) -> torch.Tensor:
        """B x tokens x width of text for *input*, what ``CLIPVisionEncode`` gave. It lies on the device for values between nodes.

        Raises ``ValueError`` when the image encoder is not the one that the model was made for.
        """
        states, width = input.last_hidden_state, width_of(self.model)
        if states.shape[-1] != width:
            raise ValueError(
                f"this style model needs an image encoder of width {width}, not {states.shape[-1]}; load the one it was made for"
            )
        comfy.model_management.load_model_gpu(self.patcher)
        result: torch.Tensor = self.model(states.to(self.patcher.load_device))
        return result.to(comfy.model_management.intermediate_device())


def width_of(model: torch.nn.Module) -> int:
    """The width of the hidden states that *model* takes."""
    if isinstance(model, ReduxImageEncoder):
        return model.redux_dim
    embedding: Any = model.style_embedding
    return int(embedding.shape[-1])


def load_style_model(ckpt_path: str) -> StyleModel:
    """The style model of a file. Raises ``UnknownModelError`` for other files than Flux Redux's and T2I-Adapter's, ``ModelFileError``."""
    with ModelFiles(ckpt_path) as files:
        patcher = load_parts(files, {"style_model": _StylePart(files)})["style_model"]
    return StyleModel(patcher.model, patcher=patcher)


class _StylePart(Part[ModelPatcher]):
    """The style model of a file."""

    def __init__(self, files: ModelFiles) -> None:
        super().__init__()
        self._files = files

    def load(self) -> ModelPatcher:
        source = self._files.source()
        with naming_file(source.name, WHAT):
            model, dtype = _built(source)
            plan = plan_conversion(source.shapes(), dict)
        load_parameters(model, source, plan, dtype, WHAT)
        return StyleModel(model.eval().requires_grad_(False)).patcher

    def estimate_bytes(self) -> int:
        return kept_bytes(self._files.source(), "", None)


def _built(source: WeightSource) -> tuple[torch.nn.Module, torch.dtype]:
    """The network of *source*'s sizes, on the meta device, and the dtype of its weights."""
    shapes = source.shapes()
    with torch.device("meta"):
        if "redux_down.weight" in shapes:
            inner, width = shapes["redux_up.weight"]
            return ReduxImageEncoder(width, inner // EXPANSION), most_common_dtype([source]) or torch.float32
        if "style_embedding" in shapes:
            return _style_adapter(shapes), torch.float32
    raise UnknownModelError(f"{source.name} holds no style model; supported: Flux Redux's and T2I-Adapter's")


def _style_adapter(shapes: Shapes) -> StyleAdapter:
    _, tokens, width = shapes["style_embedding"]
    blocks = {match.group(1) for key in shapes if (match := _STYLE_BLOCK.match(key))}
    return StyleAdapter(width, shapes["proj"][1], STYLE_HEADS, len(blocks), tokens)
