"""Core nodes that load checkpoints, their parts, and LoRAs from the model folders.

Loaders raise ``FileNotFoundError`` for a missing file, and an error that names the file if it is not a supported model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import folder_paths
from comfy.lazy_import import lazy_module
from comfy.text.combinations import types_for
from comfy_extras.node_inputs import real

if TYPE_CHECKING:
    from comfy.images.vae import VAE
    from comfy.loading.lora_files import LoraTensors
    from comfy.model_patcher import ModelPatcher
    from comfy.text.encoder import CLIP

torch = lazy_module("torch")
sd = lazy_module("comfy.sd")
lora_files = lazy_module("comfy.loading.lora_files")

LOADERS = "model/loaders"
PIXEL_SPACE = "pixel_space"  # not a file
_DEVICE = {"device": (["default", "cpu"], {"advanced": True})}
_LORA_ALIASES = ["lora", "load lora", "apply lora", "lora loader", "lora model"]
_FLOAT8 = {"fp8_e4m3fn": "float8_e4m3fn", "fp8_e4m3fn_fast": "float8_e4m3fn", "fp8_e5m2": "float8_e5m2"}
# In ComfyUI's order; those for which no text model loads are not offered.
_CLIP_TYPES = [
    "stable_diffusion",
    "stable_cascade",
    "sd3",
    "stable_audio",
    "mochi",
    "ltxv",
    "pixart",
    "cosmos",
    "lumina2",
    "wan",
    "hidream",
    "chroma",
    "ace",
    "omnigen2",
    "qwen_image",
    "hunyuan_image",
    "flux2",
    "ovis",
    "longcat_image",
    "cogvideox",
    "lens",
    "pixeldit",
    "ideogram4",
    "boogu",
    "krea2",
    "joyimage",
    "mage",
    "minimax",
    "flux3",
]
_DUAL_CLIP_TYPES = [
    "sdxl",
    "sd3",
    "flux",
    "hunyuan_video",
    "hidream",
    "hunyuan_image",
    "hunyuan_video_15",
    "kandinsky5",
    "kandinsky5_image",
    "ltxv",
    "newbie",
    "ace",
]


def _types(names: list[str], count: int) -> list[str]:
    """Those of *names* for which *count* text models make a text encoder."""
    loadable = types_for(count)
    return [name for name in names if name in loadable]


def _files(folder: str, **options: Any) -> tuple[Any, ...]:
    """The input that chooses a file of a model folder."""
    return (folder_paths.get_filename_list(folder), options) if options else (folder_paths.get_filename_list(folder),)


class CheckpointLoaderSimple:
    """Loads every model in a checkpoint file."""

    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    OUTPUT_TOOLTIPS = (
        "The diffusion model, for a sampler.",
        "The text encoder, for prompts.",
        "The autoencoder between latents and pictures.",
    )
    FUNCTION = "load_checkpoint"
    CATEGORY = LOADERS
    READS_AHEAD = {"ckpt_name": "checkpoints"}
    DESCRIPTION = "Loads the diffusion model, text encoder and autoencoder of a checkpoint."
    SEARCH_ALIASES = ["load model", "checkpoint", "model loader", "load checkpoint", "ckpt", "model"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"ckpt_name": _files("checkpoints", tooltip="A file of the checkpoints folders.")}}

    def load_checkpoint(self, ckpt_name: str) -> tuple[ModelPatcher, CLIP, VAE]:
        """Model patcher, CLIP and VAE; None for a part that the file does not hold."""
        path = folder_paths.get_full_path_or_raise("checkpoints", ckpt_name)
        return sd.load_checkpoint_guess_config(
            path, output_vae=True, output_clip=True, embedding_directory=folder_paths.get_folder_paths("embeddings")
        )[:3]


class CheckpointLoader:
    """Loads a checkpoint; the older node, which asks for a configuration file but does not need it."""

    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    FUNCTION = "load_checkpoint"
    CATEGORY = LOADERS
    DEPRECATED = True
    SEARCH_ALIASES = ["load model", "model loader"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"config_name": _files("configs"), "ckpt_name": _files("checkpoints")}}

    def load_checkpoint(self, config_name: str, ckpt_name: str) -> tuple[ModelPatcher, CLIP, VAE]:
        """Model patcher, CLIP and VAE."""
        path = folder_paths.get_full_path_or_raise("checkpoints", ckpt_name)
        return sd.load_checkpoint(
            folder_paths.get_full_path("configs", config_name),
            path,
            output_vae=True,
            output_clip=True,
            embedding_directory=folder_paths.get_folder_paths("embeddings"),
        )


class unCLIPCheckpointLoader:  # noqa: N801 - ComfyUI's name
    """Loads a checkpoint that draws after pictures, with its image encoder."""

    RETURN_TYPES = ("MODEL", "CLIP", "VAE", "CLIP_VISION")
    FUNCTION = "load_checkpoint"
    CATEGORY = LOADERS
    READS_AHEAD = {"ckpt_name": "checkpoints"}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"ckpt_name": _files("checkpoints")}}

    def load_checkpoint(self, ckpt_name: str) -> tuple[ModelPatcher, CLIP, VAE, Any]:
        """Model patcher, CLIP, VAE and image encoder; None for a part that the file does not hold."""
        path = folder_paths.get_full_path_or_raise("checkpoints", ckpt_name)
        folders = folder_paths.get_folder_paths("embeddings")
        return sd.load_checkpoint_guess_config(path, output_clipvision=True, embedding_directory=folders)


class UNETLoader:
    """Loads a diffusion model without other parts."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "load_unet"
    CATEGORY = LOADERS
    READS_AHEAD = {"unet_name": "diffusion_models"}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"unet_name": _files("diffusion_models"), "weight_dtype": (["default", *_FLOAT8], {"advanced": True})}}

    def load_unet(self, unet_name: str, weight_dtype: str) -> tuple[ModelPatcher]:
        """The model patcher; its weights have the dtype *weight_dtype* unless that is "default"."""
        options: dict[str, Any] = {}
        if weight_dtype in _FLOAT8:
            options["dtype"] = getattr(torch, _FLOAT8[weight_dtype])
        if weight_dtype == "fp8_e4m3fn_fast":
            options["fp8_optimizations"] = True
        return (sd.load_diffusion_model(folder_paths.get_full_path_or_raise("diffusion_models", unet_name), model_options=options),)


def load_text_encoders(names: list[str], kind: str = "stable_diffusion", device: str = "default") -> tuple[CLIP]:
    """The text encoder that the files *names* make together, for the family *kind*; on *device* "cpu" it also computes there."""
    options = {}
    if device == "cpu":
        options = dict.fromkeys(("load_device", "offload_device"), torch.device("cpu"))
    return (
        sd.load_clip(
            ckpt_paths=[folder_paths.get_full_path_or_raise("text_encoders", name) for name in names],
            embedding_directory=folder_paths.get_folder_paths("embeddings"),
            model_options=options,
            clip_type=getattr(sd.CLIPType, kind.upper(), sd.CLIPType.STABLE_DIFFUSION),
        ),
    )


class CLIPLoader:
    """Loads a text encoder from one file."""

    RETURN_TYPES = ("CLIP",)
    FUNCTION = "load_clip"
    CATEGORY = LOADERS
    READS_AHEAD = {"clip_name": "text_encoders"}
    DESCRIPTION = (
        "Which text model each type takes. stable_diffusion: clip-l, clip-g for the SDXL refiner, or qwen 3 0.6B for Anima; "
        "sd3, hidream: clip-l, clip-g or t5 xxl; mochi, ltxv, pixart, chroma, cogvideox: t5 xxl; "
        "cosmos: the first t5 xxl; stable_audio: t5 base; wan: umt5 xxl; lumina2: gemma 2 2B or qwen 3 4B; "
        "flux2: mistral 3 small, or qwen 3 4B or 8B; qwen_image, longcat_image: qwen 2.5 vl 7B; ovis: qwen 3 2B; "
        "flux3: qwen 3 vl 4B."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"clip_name": _files("text_encoders"), "type": (_types(_CLIP_TYPES, 1),)}, "optional": _DEVICE}

    def load_clip(self, clip_name: str, type: str = "stable_diffusion", device: str = "default") -> tuple[CLIP]:
        """The text encoder."""
        return load_text_encoders([clip_name], type, device)


class DualCLIPLoader:
    """Loads a text encoder made of two files."""

    RETURN_TYPES = ("CLIP",)
    FUNCTION = "load_clip"
    CATEGORY = LOADERS
    READS_AHEAD = dict.fromkeys(("clip_name1", "clip_name2"), "text_encoders")
    DESCRIPTION = (
        "Which text models each type takes, in any order. sdxl: clip-l and clip-g; flux: clip-l and t5 xxl; sd3, hidream: two of clip-l, "
        "clip-g and t5 xxl; hunyuan_video: clip-l and llama 3 8B; kandinsky5, kandinsky5_image: clip-l and qwen 2.5 vl 7B."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "clip_name1": _files("text_encoders"),
                "clip_name2": _files("text_encoders"),
                "type": (_types(_DUAL_CLIP_TYPES, 2),),
            },
            "optional": _DEVICE,
        }

    def load_clip(self, clip_name1: str, clip_name2: str, type: str, device: str = "default") -> tuple[CLIP]:
        """The text encoder."""
        return load_text_encoders([clip_name1, clip_name2], type, device)


class VAELoader:
    """Loads an autoencoder without other parts."""

    RETURN_TYPES = ("VAE",)
    FUNCTION = "load_vae"
    CATEGORY = LOADERS
    READS_AHEAD = {"vae_name": "vae"}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"vae_name": ([*folder_paths.get_filename_list("vae"), PIXEL_SPACE],)}}

    def load_vae(self, vae_name: str) -> tuple[VAE]:
        """The autoencoder; *vae_name* "pixel_space": that of models which make pixels. Raises ``RuntimeError`` when the file does not hold
        one."""
        if vae_name == PIXEL_SPACE:
            return (sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)}),)
        return (sd.load_vae(folder_paths.get_full_path_or_raise("vae", vae_name)),)


class LoraNode:
    """Loads a LoRA for a diffusion model and a text encoder. Keeps the tensors of the last file for the next run."""

    RETURN_TYPES: tuple[str, ...] = ("MODEL", "CLIP")
    OUTPUT_TOOLTIPS = ("The changed diffusion model.", "The changed text encoder.")
    FUNCTION = "load_lora"
    CATEGORY = LOADERS

    def __init__(self) -> None:
        self.loaded_lora: LoraTensors | None = None

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "The diffusion model to change."}),
                "clip": ("CLIP", {"tooltip": "The text encoder to change."}),
                "lora_name": _files("loras", tooltip="A file of the loras folders."),
                "strength_model": real(1.0, -100.0, 100.0, tooltip="How strongly the model is changed; may be negative."),
                "strength_clip": real(1.0, -100.0, 100.0, tooltip="How strongly the text encoder is changed; may be negative."),
            }
        }

    def load_lora(
        self, model: ModelPatcher, clip: CLIP | None, lora_name: str, strength_model: float, strength_clip: float
    ) -> tuple[ModelPatcher, CLIP | None]:
        """Changed clones of both; *model* and *clip* themselves if both strengths are 0."""
        if strength_model == 0 and strength_clip == 0:
            return (model, clip)
        path = folder_paths.get_full_path_or_raise("loras", lora_name)
        before, self.loaded_lora = self.loaded_lora, None
        self.loaded_lora = lora_files.load_lora_file(path, before)
        return self._changed(model, clip, self.loaded_lora, strength_model, strength_clip)

    def _changed(
        self, model: ModelPatcher, clip: CLIP | None, lora: LoraTensors, strength_model: float, strength_clip: float
    ) -> tuple[ModelPatcher, CLIP | None]:
        raise NotImplementedError


class ForModelOnly:
    """For subclasses of a :class:`LoraNode`: changes the diffusion model only."""

    RETURN_TYPES: tuple[str, ...] = ("MODEL",)
    FUNCTION = "load_lora_model_only"
    load_lora: Any

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",), "lora_name": _files("loras"), "strength_model": real(1.0, -100.0, 100.0)}}

    def load_lora_model_only(self, model: ModelPatcher, lora_name: str, strength_model: float) -> tuple[ModelPatcher]:
        """The changed model."""
        return (self.load_lora(model, None, lora_name, strength_model, 0)[0],)


class LoraLoader(LoraNode):
    """Applies a LoRA to a diffusion model and a text encoder."""

    ESSENTIALS_CATEGORY = "Image Generation"
    DESCRIPTION = "Changes model and text encoder by a LoRA, a small file that adds a style or subject. Several can be chained."
    SEARCH_ALIASES = _LORA_ALIASES

    def _changed(
        self, model: ModelPatcher, clip: CLIP | None, lora: LoraTensors, strength_model: float, strength_clip: float
    ) -> tuple[ModelPatcher, CLIP | None]:
        return sd.load_lora_for_models(model, clip, lora, strength_model, strength_clip, lora_metadata=lora.metadata)


class LoraLoaderModelOnly(ForModelOnly, LoraLoader):
    """Applies a LoRA to a diffusion model only."""

    DESCRIPTION = "Changes a diffusion model by a LoRA, a small file that adds a style or subject. Several can be chained."


NODE_CLASS_MAPPINGS = {
    node.__name__: node
    for node in (
        CheckpointLoaderSimple,
        CheckpointLoader,
        unCLIPCheckpointLoader,
        UNETLoader,
        CLIPLoader,
        DualCLIPLoader,
        VAELoader,
        LoraLoader,
        LoraLoaderModelOnly,
    )
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "CheckpointLoaderSimple": "Load Checkpoint",
    "CheckpointLoader": "Load Checkpoint With Config (DEPRECATED)",
    "unCLIPCheckpointLoader": "Load unCLIP Checkpoint",
    "UNETLoader": "Load Diffusion Model",
    "CLIPLoader": "Load CLIP",
    "DualCLIPLoader": "Load CLIP (Dual)",
    "VAELoader": "Load VAE",
    "LoraLoader": "Load LoRA (Model and CLIP)",
    "LoraLoaderModelOnly": "Load LoRA",
}
