"""The node that makes a LoRA of the difference between two models: singular values, or the difference itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import folder_paths
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.model_patcher import ModelPatcher
    from comfy.text.encoder import CLIP

torch = lazy_module("torch")
management = lazy_module("comfy.model_management")
utils = lazy_module("comfy.utils")
weight_values = lazy_module("comfy.patching.weight_values")

CLAMP_QUANTILE = 0.99  # rarer, larger values of the factors are cut
STANDARD, FULL_DIFF = "standard", "full_diff"
NETWORK = "diffusion_model."


def extract_lora(diff: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The factors (up, down) of *diff*, a matrix or the weight of a convolution, of at most *rank*; float32 on its device."""
    height, width = diff.shape[:2]
    rank = min(rank, height, width)
    left, values, right = torch.linalg.svd(diff.float().flatten(1), full_matrices=False)
    up, down = left[:, :rank] * values[:rank], right[:rank]
    bound = _quantile(torch.cat([up.flatten(), down.flatten()]), CLAMP_QUANTILE)
    up, down = (factor.clamp(-bound, bound) for factor in (up, down))
    if diff.ndim == 4:
        return up.reshape(height, rank, 1, 1), down.reshape(rank, width, *diff.shape[2:])
    return up, down


def _quantile(values: Tensor, share: float) -> Tensor:
    """The value below which *share* of *values* are, interpolated; of any number of values, unlike torch's own."""
    place = share * (values.numel() - 1)
    below, above = values.sort().values[int(place) : int(place) + 2].expand(2)
    return torch.lerp(below, above, place - int(place))


def lora_of(difference: ModelPatcher, prefix: str, file_prefix: str, rank: int, lora_type: str, bias_diff: bool) -> dict[str, Tensor]:
    """The changes of *difference*'s weights below *prefix*, float16 on the CPU, as a LoRA file names them after *file_prefix*.

    One weight at a time is computed, on the model's device. Vectors are written whole, and only with *bias_diff*.
    """
    values = weight_values.WeightValues(difference)
    names = [name for name in difference.model_state_dict(filter_prefix=prefix) if name.endswith((".weight", ".bias"))]
    progress = utils.ProgressBar(len(names))
    tensors: dict[str, Tensor] = {}
    for name in names:
        management.throw_exception_if_processing_interrupted()
        progress.update(1)
        if name.endswith(".bias") and not bias_diff:
            continue
        layer, _, part = name.removeprefix(prefix).rpartition(".")
        weight = values.patched(name, difference.load_device)
        for ending, tensor in _changes(weight, part, rank, lora_type, bias_diff):
            tensors[f"{file_prefix}{layer}.{ending}"] = tensor.contiguous().half().cpu()
    return tensors


def _changes(weight: Tensor, part: str, rank: int, lora_type: str, bias_diff: bool) -> list[tuple[str, Tensor]]:
    if part == "bias":
        return [("diff_b", weight)]
    if lora_type == FULL_DIFF:
        return [("diff", weight)]
    if weight.ndim < 2:
        return [("diff", weight)] if bias_diff else []
    up, down = extract_lora(weight, rank)
    return [("lora_up.weight", up), ("lora_down.weight", down)]


class LoraSave(io.ComfyNode):
    """Saves the difference between two models as a LoRA."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoraSave",
            search_aliases=["export lora"],
            display_name="Extract and Save Lora",
            category="experimental",
            description="Saves what a model has more than another as a LoRA of that rank.",
            inputs=[
                io.String.Input("filename_prefix", default="loras/ComfyUI_extracted_lora"),
                io.Int.Input("rank", default=8, min=1, max=4096, step=1, advanced=True),
                io.Combo.Input("lora_type", options=[STANDARD, FULL_DIFF], advanced=True),
                io.Boolean.Input("bias_diff", default=True, advanced=True),
                io.Model.Input("model_diff", tooltip="The difference of two models, as ModelMergeSubtract makes it.", optional=True),
                io.Clip.Input("text_encoder_diff", tooltip="The difference of two text encoders, by CLIPMergeSubtract.", optional=True),
            ],
            is_experimental=True,
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        filename_prefix: str,
        rank: int,
        lora_type: str,
        bias_diff: bool,
        model_diff: ModelPatcher | None = None,
        text_encoder_diff: CLIP | None = None,
    ) -> io.NodeOutput:
        """Write it into the output folder; nothing without a difference."""
        if model_diff is None and text_encoder_diff is None:
            return io.NodeOutput()
        options: Any = (rank, lora_type, bias_diff)
        tensors: dict[str, Tensor] = {}
        if model_diff is not None:
            tensors |= lora_of(model_diff, NETWORK, NETWORK, *options)
        if text_encoder_diff is not None:
            tensors |= lora_of(text_encoder_diff.patcher, "", "text_encoders.", *options)
        folder, name, counter, _, _ = folder_paths.get_save_image_path(filename_prefix, folder_paths.get_output_directory())
        utils.save_torch_file(tensors, os.path.join(folder, f"{name}_{counter:05}_.safetensors"))
        return io.NodeOutput()


comfy_entrypoint = extension_of(LoraSave)
