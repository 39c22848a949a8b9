"""Nodes that merge models and text encoders, weight by weight, and save them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import folder_paths
from comfy.cli_args import args
from comfy.lazy_import import lazy_module
from comfy_extras.image_writing import metadata_texts
from comfy_extras.node_inputs import real

if TYPE_CHECKING:
    from comfy.images.vae import VAE
    from comfy.model_patcher import ModelPatcher
    from comfy.text.encoder import CLIP

model_base = lazy_module("comfy.model_base")
model_management = lazy_module("comfy.model_management")
model_sampling = lazy_module("comfy.model_sampling")
quantised = lazy_module("comfy.quantisation.weights")
sd = lazy_module("comfy.sd")
torch = lazy_module("torch")
utils = lazy_module("comfy.utils")

log = logging.getLogger(__name__)

CATEGORY = "model/merging"
NETWORK = "diffusion_model."
NO_WEIGHTS_OF_TEXT = (".position_ids", ".logit_scale")
TEXT_MODELS = ("clip_l", "clip_g", "clip_h", "t5xxl", "pile_t5xl", "mt5xl", "umt5xxl", "t5base", "gemma2_2b", "llama", "hydit_clip")
TRANSFORMER = "transformer."
Strengths = Callable[[str], tuple[float, float]]


def merged(target: Any, patches: Mapping[str, Any], strengths: Strengths) -> Any:
    """A clone of *target* whose weight *name* becomes ``own * o + other * p`` with (p, o) = ``strengths(name)``.

    *patches* are the other's weights, as ``get_key_patches`` gives them. Nothing is computed before the clone is loaded. Weights that only
    one side has stay as they are, with a line in the log. Raises ``ValueError`` when there are no common ones.
    """
    clone = target.clone()
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, patch in patches.items():
        groups.setdefault(strengths(name), {})[name] = patch
    taken = {name for (strength, own), group in groups.items() for name in clone.add_patches(group, strength, own)}
    if patches and not taken:
        raise ValueError(f"the models are of different kinds: the first has no weight {next(iter(patches))}; merge two of one family")
    if len(taken) < len(patches):
        example = next(name for name in patches if name not in set(taken))
        log.warning(
            "%d of %d weights are not in the first model and are left out, such as %s", len(patches) - len(taken), len(patches), example
        )
    return clone


def merged_texts(clip1: CLIP, clip2: CLIP, strength: float, own_strength: float) -> CLIP:
    """A clone of *clip1* merged with *clip2*; positions and scales of logits stay its own."""
    patches = {name: patch for name, patch in clip2.get_key_patches().items() if not name.endswith(NO_WEIGHTS_OF_TEXT)}
    return merged(clip1, patches, lambda _: (strength, own_strength))


def _ratio() -> tuple[str, dict[str, Any]]:
    return real(1.0, 0.0, 1.0)


class _Merge:
    """Attributes that the merging nodes share."""

    FUNCTION = "merge"
    CATEGORY = CATEGORY


class _MergeModels(_Merge):
    """A node that merges diffusion models."""

    RETURN_TYPES = ("MODEL",)
    SETTINGS: Mapping[str, Any] = {}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model1": ("MODEL",), "model2": ("MODEL",), **cls.SETTINGS}}


class _MergeTexts(_Merge):
    """A node that merges text encoders."""

    RETURN_TYPES = ("CLIP",)
    SETTINGS: Mapping[str, Any] = {}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"clip1": ("CLIP",), "clip2": ("CLIP",), **cls.SETTINGS}}


class ModelMergeSimple(_MergeModels):
    """Mixes two models evenly."""

    SETTINGS: Mapping[str, Any] = {"ratio": _ratio()}

    def merge(self, model1: ModelPatcher, model2: ModelPatcher, ratio: float) -> tuple[ModelPatcher]:
        """*ratio* of the first, the rest of the second."""
        return (merged(model1, model2.get_key_patches(NETWORK), lambda _: (1.0 - ratio, ratio)),)


class ModelSubtract(_MergeModels):
    """Takes a model from another, which leaves their difference."""

    SETTINGS: Mapping[str, Any] = {"multiplier": real(1.0, -10.0, 10.0)}

    def merge(self, model1: ModelPatcher, model2: ModelPatcher, multiplier: float) -> tuple[ModelPatcher]:
        """(first - second) * *multiplier*."""
        return (merged(model1, model2.get_key_patches(NETWORK), lambda _: (-multiplier, multiplier)),)


class ModelAdd(_MergeModels):
    """Adds a model, usually a difference, to another."""

    def merge(self, model1: ModelPatcher, model2: ModelPatcher) -> tuple[ModelPatcher]:
        """first + second."""
        return (merged(model1, model2.get_key_patches(NETWORK), lambda _: (1.0, 1.0)),)


class ModelMergeBlocks(_MergeModels):
    """Mixes two models with a ratio for each group of blocks."""

    SETTINGS: Mapping[str, Any] = {name: _ratio() for name in ("input", "middle", "out")}

    def merge(self, model1: ModelPatcher, model2: ModelPatcher, **kwargs: float) -> tuple[ModelPatcher]:
        """Of the first model the ratio with the longest name that a weight's begins with; the first ratio where none fits."""
        names = sorted(kwargs, key=len, reverse=True)
        default = next(iter(kwargs.values()))

        def strengths(name: str) -> tuple[float, float]:
            below = name.removeprefix(NETWORK)
            ratio = next((kwargs[start] for start in names if below.startswith(start)), default)
            return 1.0 - ratio, ratio

        return (merged(model1, model2.get_key_patches(NETWORK), strengths),)


class CLIPMergeSimple(_MergeTexts):
    """Mixes two text encoders evenly."""

    SETTINGS: Mapping[str, Any] = {"ratio": _ratio()}

    def merge(self, clip1: CLIP, clip2: CLIP, ratio: float) -> tuple[CLIP]:
        """*ratio* of the first, the rest of the second."""
        return (merged_texts(clip1, clip2, 1.0 - ratio, ratio),)


class CLIPSubtract(_MergeTexts):
    """Takes a text encoder from another, which leaves their difference."""

    SETTINGS: Mapping[str, Any] = {"multiplier": real(1.0, -10.0, 10.0)}
    SEARCH_ALIASES = ["clip difference", "text encoder subtract"]

    def merge(self, clip1: CLIP, clip2: CLIP, multiplier: float) -> tuple[CLIP]:
        """(first - second) * *multiplier*."""
        return (merged_texts(clip1, clip2, -multiplier, multiplier),)


class CLIPAdd(_MergeTexts):
    """Adds a text encoder, usually a difference, to another."""

    SEARCH_ALIASES = ["combine clip"]

    def merge(self, clip1: CLIP, clip2: CLIP) -> tuple[CLIP]:
        """first + second."""
        return (merged_texts(clip1, clip2, 1.0, 1.0),)


def saved_path(filename_prefix: str, output_dir: str) -> tuple[str, str]:
    """Where the next file of that prefix goes, and its title. Makes the folder."""
    folder, name, counter, _, _ = folder_paths.get_save_image_path(filename_prefix, output_dir)
    return os.path.join(folder, f"{name}_{counter:05}_.safetensors"), f"{name} {counter}"


def workflow_texts(prompt: Any, extra_pnginfo: Any, **others: str) -> dict[str, str]:
    """What files say of the workflow they were made by, and *others*; nothing when metadata are off."""
    return {} if args.disable_metadata else {**others, "prompt": "", **metadata_texts(prompt, extra_pnginfo)}


def _architecture(model: Any) -> str | None:
    """The name of the model's kind in the modelspec standard, for the kinds that it names."""
    for kind, name in (
        ("SDXL_instructpix2pix", "stable-diffusion-xl-v1-edit"),
        ("SDXL", "stable-diffusion-xl-v1-base"),
        ("SDXLRefiner", "stable-diffusion-xl-v1-refiner"),
        ("SVD_img2vid", "stable-video-diffusion-img2vid-v1"),
        ("SD3", "stable-diffusion-v3-medium"),
    ):
        if isinstance(model, getattr(model_base, kind, ())):
            return name
    return None


def _marks(model: ModelPatcher) -> tuple[dict[str, str], dict[str, Any]]:
    """What says how the model predicts: metadata, and tensors by which loaders know it."""
    sampling = model.get_model_object("model_sampling")
    tensors = {}
    if isinstance(sampling, model_sampling.ModelSamplingContinuousEDM) and isinstance(sampling, model_sampling.V_PREDICTION):
        ends = {"sigma_max": sampling.sigma_max, "sigma_min": sampling.sigma_min}
        tensors = {f"edm_vpred.{name}": torch.as_tensor(value).float().clone() for name, value in ends.items()}
    kinds = model_base.ModelType
    predicted = {kinds.EPS: "epsilon", kinds.V_PREDICTION: "v"}.get(model.model.model_type)
    if predicted == "v":
        tensors["v_pred"] = torch.tensor([])
        if getattr(sampling, "zsnr", False):
            tensors["ztsnr"] = torch.tensor([])
    return {} if predicted is None else {"modelspec.predict_key": predicted}, tensors


def save_checkpoint(
    model: ModelPatcher,
    clip: CLIP | None = None,
    vae: VAE | None = None,
    clip_vision: Any = None,
    filename_prefix: str = "checkpoints/ComfyUI",
    output_dir: str | None = None,
    prompt: Any = None,
    extra_pnginfo: Any = None,
) -> None:
    """Write *model* with its patches, and the other parts that are given, as the next checkpoint of that prefix. Blocks on disk."""
    path, title = saved_path(filename_prefix, folder_paths.get_output_directory() if output_dir is None else output_dir)
    metadata, tensors = _marks(model)
    architecture = _architecture(model.model)
    if architecture is not None:
        spec = {"sai_model_spec": "1.0.0", "architecture": architecture, "implementation": "sgm", "title": title}
        metadata |= {f"modelspec.{name}": value for name, value in spec.items()}
    metadata |= workflow_texts(prompt, extra_pnginfo)
    sd.save_checkpoint(path, model, clip, vae, clip_vision, metadata=metadata, extra_keys=tensors)


class _Save:
    """A node that writes into the output folder. ``WHAT`` are its inputs, ``PREFIX`` is where files go unless another is given."""

    RETURN_TYPES = ()
    FUNCTION, OUTPUT_NODE = "save", True
    CATEGORY = CATEGORY
    WHAT: Mapping[str, str] = {}
    PREFIX = ""

    def __init__(self) -> None:
        self.output_dir = folder_paths.get_output_directory()

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        parts = {name: (kind,) for name, kind in cls.WHAT.items()}
        return {
            "required": {**parts, "filename_prefix": ("STRING", {"default": cls.PREFIX})},
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def write(self, tensors: Mapping[str, Any], filename_prefix: str, metadata: Mapping[str, str]) -> None:
        """Write *tensors* as the next file of that prefix."""
        whole = {name: tensor if quantised.is_quantised(tensor) else tensor.contiguous() for name, tensor in tensors.items()}
        utils.save_torch_file(whole, saved_path(filename_prefix, self.output_dir)[0], metadata=metadata)


class CheckpointSave(_Save):
    """Saves a model, a text encoder and an autoencoder as one checkpoint."""

    SEARCH_ALIASES = ["save model", "export checkpoint", "merge save"]
    WHAT: Mapping[str, str] = {"model": "MODEL", "clip": "CLIP", "vae": "VAE"}
    PREFIX = "checkpoints/ComfyUI"

    def save(
        self, model: ModelPatcher, clip: CLIP, vae: VAE, filename_prefix: str, prompt: Any = None, extra_pnginfo: Any = None
    ) -> dict[str, Any]:
        """Write them with their patches."""
        save_checkpoint(model, clip, vae, None, filename_prefix, self.output_dir, prompt, extra_pnginfo)
        return {}


class ModelSave(_Save):
    """Saves a diffusion model."""

    SEARCH_ALIASES = ["export model", "checkpoint save"]
    WHAT: Mapping[str, str] = {"model": "MODEL"}
    PREFIX = "diffusion_models/ComfyUI"

    def save(self, model: ModelPatcher, filename_prefix: str, prompt: Any = None, extra_pnginfo: Any = None) -> dict[str, Any]:
        """Write it with its patches."""
        save_checkpoint(model, None, None, None, filename_prefix, self.output_dir, prompt, extra_pnginfo)
        return {}


class CLIPSave(_Save):
    """Saves the text models of a text encoder, each as a file."""

    WHAT: Mapping[str, str] = {"clip": "CLIP"}
    PREFIX = "clip/ComfyUI"

    def save(self, clip: CLIP, filename_prefix: str, prompt: Any = None, extra_pnginfo: Any = None) -> dict[str, Any]:
        """Write each with its patches, under the prefix and its own name; what belongs to none of them under the prefix alone."""
        model_management.load_models_gpu([clip.load_model()], force_patch_weights=True)
        parts: dict[str, dict[str, Any]] = {}
        for name, tensor in clip.state_dict_for_saving().items():
            part, _, rest = name.partition(".")
            is_own = part in TEXT_MODELS or rest.startswith(TRANSFORMER)
            parts.setdefault(part if is_own else "", {})[(rest if is_own else name).removeprefix(TRANSFORMER)] = tensor
        for part, tensors in parts.items():
            self.write(
                tensors, f"{filename_prefix}_{part}" if part else filename_prefix, workflow_texts(prompt, extra_pnginfo, format="pt")
            )
        return {}


class VAESave(_Save):
    """Saves an autoencoder."""

    WHAT: Mapping[str, str] = {"vae": "VAE"}
    PREFIX = "vae/ComfyUI_vae"

    def save(self, vae: VAE, filename_prefix: str, prompt: Any = None, extra_pnginfo: Any = None) -> dict[str, Any]:
        """Write it under its published names."""
        self.write(vae.get_sd(), filename_prefix, workflow_texts(prompt, extra_pnginfo))
        return {}


NODE_CLASS_MAPPINGS = {
    **{node.__name__: node for node in (ModelMergeSimple, ModelMergeBlocks, CLIPMergeSimple, CheckpointSave, CLIPSave, VAESave, ModelSave)},
    "ModelMergeSubtract": ModelSubtract,
    "ModelMergeAdd": ModelAdd,
    "CLIPMergeSubtract": CLIPSubtract,
    "CLIPMergeAdd": CLIPAdd,
}
NODE_DISPLAY_NAME_MAPPINGS = {"CheckpointSave": "Save Checkpoint"}
