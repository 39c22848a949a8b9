"""The nodes: a loader, and one that applies a face to a model and its conditioning."""

from typing import Any

import folder_paths
from comfy.families.attention_blocks import cross_attention_blocks
from comfy_api.latest import ComfyAPISync

from . import faces
from .adapter import LoadedAdapter
from .attention import FaceAttention

FOLDER = "face_adapters"
folder_paths.add_model_folder_path(FOLDER, f"{folder_paths.models_dir}/{FOLDER}")


class FaceAdapterLoader:
    """Loads a face adapter."""

    RETURN_TYPES = ("FACE_ADAPTER",)
    FUNCTION = "load"
    CATEGORY = "examples/face"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"name": (folder_paths.get_filename_list(FOLDER),)}}

    def load(self, name: str) -> tuple[LoadedAdapter]:
        return (LoadedAdapter.load(folder_paths.get_full_path_or_raise(FOLDER, name)),)


class ApplyFaceAdapter:
    """Makes pictures show the face of a picture."""

    RETURN_TYPES = ("MODEL", "CONDITIONING", "CONDITIONING")
    RETURN_NAMES = ("model", "positive", "negative")
    FUNCTION = "apply"
    CATEGORY = "examples/face"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        share = {"min": 0.0, "max": 1.0, "step": 0.01}
        return {
            "required": {
                "adapter": ("FACE_ADAPTER",),
                "control_net": ("CONTROL_NET",),
                "image": ("IMAGE",),
                "model": ("MODEL",),
                "positive": ("CONDITIONING",),
                "negative": ("CONDITIONING",),
                "weight": ("FLOAT", {"default": 0.8, "min": 0.0, "max": 5.0, "step": 0.01}),
                "start_at": ("FLOAT", {"default": 0.0, **share}),
                "end_at": ("FLOAT", {"default": 1.0, **share}),
            }
        }

    def apply(
        self,
        adapter: LoadedAdapter,
        control_net: Any,
        image: Any,
        model: Any,
        positive: list,
        negative: list,
        weight: float,
        start_at: float,
        end_at: float,
    ) -> tuple[Any, list, list]:
        embedding, points = ComfyAPISync().patching.remembered(("face", image[:1]), _Analysis(image[:1]))
        tokens = adapter.tokens(embedding)
        patched = patched_model(model, adapter, tokens, weight, (start_at, end_at))
        hint = faces.draw(points, *image.shape[1:3])
        controls: dict[Any, Any] = {}
        sides = (
            _controlled(side, control_net, hint, weight, (start_at, end_at), tokens[index : index + 1], controls)
            for index, side in enumerate((positive, negative))
        )
        return patched, *sides


class _Analysis:
    """The analysis of one picture, which is named among the parameters beside it."""

    def __init__(self, image: Any) -> None:
        self._image = image

    def patch_identity_key(self) -> object:
        return faces.analyse

    def __call__(self) -> Any:
        return faces.analyse(self._image)


def patched_model(model: Any, adapter: LoadedAdapter, tokens: Any, weight: float, part: tuple[float, float]) -> Any:
    """A clone of *model* whose cross-attentions see *tokens*; the former patches, if nothing that they depend on has changed.

    *part* of the sampling in which they do. Raises ``ValueError`` when the adapter is for another model.
    """
    blocks = cross_attention_blocks(model.model.model_config.unet_config)
    made = adapter.keys_and_values(tokens)
    if len(made) != len(blocks) or any(keys.shape[-1] != block.width for (keys, _), block in zip(made, blocks, strict=False)):
        raise ValueError(f"the adapter has keys for {len(made)} cross-attentions; the model has {len(blocks)}, or of other widths")
    to_sigma = model.get_model_object("model_sampling").percent_to_sigma
    sigmas = None if part == (0.0, 1.0) else (to_sigma(part[0]), to_sigma(part[1]))
    attentions = [FaceAttention(keys, values, weight, sigmas) for keys, values in made]

    def build(clone: Any) -> None:
        for block, attention in zip(blocks, attentions, strict=True):
            clone.set_model_attn2_replace(attention, block.name, block.number, block.transformer)

    return ComfyAPISync().patching.patched(model, (), build)


def _controlled(
    side: list, control_net: Any, hint: Any, strength: float, part: tuple[float, float], tokens: Any, controls: dict[Any, Any]
) -> list:
    """*side* of the conditioning with the ControlNet, which reads *tokens* in place of the text. One control per chain before it."""
    controlled = []
    for context, options in side:
        before = options.get("control")
        if before not in controls:
            control = control_net.copy().set_cond_hint(hint.movedim(-1, 1), strength, part)
            controls[before] = control.set_previous_controlnet(before)
        added = {"control": controls[before], "control_apply_to_uncond": False, "cross_attn_controlnet": tokens}
        controlled.append([context, {**options, **added}])
    return controlled


NODE_CLASS_MAPPINGS = {node.__name__: node for node in (FaceAdapterLoader, ApplyFaceAdapter)}
NODE_DISPLAY_NAME_MAPPINGS = {"FaceAdapterLoader": "Load Face Adapter (example)", "ApplyFaceAdapter": "Apply Face Adapter (example)"}
