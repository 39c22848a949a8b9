"""Text encoders from files or state dicts of their own, without a checkpoint around them."""

import enum
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch

from comfy import model_detection, sd1_clip, sdxl_clip
from comfy.families.clip_text_config import ClipTextConfig, read_clip_config
from comfy.families.family_settings import family_settings
from comfy.families.key_accounts import outside, say_unused
from comfy.families.model_errors import UnknownModelError, naming_file
from comfy.families.quantised_weights import plain_weights
from comfy.families.weight_source import PrefixedSource, StateDictSource, WeightSource
from comfy.loading.components import build_clip, kept_bytes, with_text_model_prefix
from comfy.loading.model_files import ModelFiles
from comfy.loading.parts import INDEPENDENT, Part, load_parts
from comfy.supported_models_base import ClipTarget
from comfy.text.encoder import CLIP, kept_text_dtype

CLIPType = enum.Enum(
    "CLIPType",
    "STABLE_DIFFUSION STABLE_CASCADE SD3 STABLE_AUDIO HUNYUAN_DIT FLUX MOCHI LTXV HUNYUAN_VIDEO PIXART COSMOS LUMINA2 WAN HIDREAM "
    "CHROMA ACE OMNIGEN2 QWEN_IMAGE HUNYUAN_IMAGE HUNYUAN_VIDEO_15 OVIS KANDINSKY5 KANDINSKY5_IMAGE NEWBIE FLUX2",
)
CLIPType.__doc__ = "Which family's text encoder several families' files are meant for; files say what they are, this says what for."


class TEModel(enum.Enum):
    """The kinds of text model that are recognised."""

    CLIP_L = 1
    CLIP_H = 2
    CLIP_G = 3


SUPPORTED = "CLIP-L and CLIP-G, alone or together"
_PREFIXES = (
    "",
    "text_encoder.",
    "text_encoders.clip_l.transformer.",
    "text_encoders.clip_g.transformer.",
    "clip_l.transformer.",
    "clip_g.transformer.",
    "cond_stage_model.transformer.",
    "transformer.",
)


def load_clip(
    ckpt_paths: Sequence[str],
    embedding_directory: Any = None,
    clip_type: CLIPType = CLIPType.STABLE_DIFFUSION,
    model_options: Mapping[str, Any] | None = None,
    disable_dynamic: bool = False,
) -> CLIP:
    """A text encoder from one file (CLIP-L: SD 1.x; CLIP-G: SDXL Refiner) or two (both: SDXL), in any order.

    Raises ``ModelFileError`` naming the file that is not a supported text model.
    """
    return _load_clip(ckpt_paths, embedding_directory, clip_type, model_options, "")


def load_clip_model_patcher(
    ckpt_paths: Sequence[str],
    embedding_directory: Any = None,
    clip_type: CLIPType = CLIPType.STABLE_DIFFUSION,
    model_options: Mapping[str, Any] | None = None,
    disable_dynamic: bool = False,
) -> Any:
    """A new patcher with weights of its own, see :func:`load_clip`."""
    return _load_clip(ckpt_paths, embedding_directory, clip_type, model_options, INDEPENDENT).patcher


def _load_clip(
    paths: Sequence[str], embedding_directory: Any, clip_type: CLIPType, model_options: Mapping[str, Any] | None, bypass: str
) -> CLIP:
    with ModelFiles(*paths) as files:
        return load_parts(files, {"clip": _ClipPart(files, embedding_directory, clip_type, model_options, bypass)})["clip"]


class _ClipPart(Part[CLIP]):
    """The one text encoder that the files make together."""

    def __init__(
        self, files: ModelFiles, embedding_directory: Any, clip_type: CLIPType, model_options: Mapping[str, Any] | None, bypass: str
    ) -> None:
        options = {"model_options": model_options or {}, "embedding_directory": embedding_directory, "type": clip_type}
        super().__init__(options, bypass)
        self._files = files
        self._arguments = embedding_directory, clip_type, model_options

    def load(self) -> CLIP:
        clip = load_text_encoder_sources(self._files.sources(), *self._arguments)
        clip.patcher.cached_patcher_init = (load_clip_model_patcher, (list(self._files.paths), *self._arguments))
        return clip

    def estimate_bytes(self) -> int:
        sources = self._files.sources()
        dtype = kept_text_dtype(sources, self.options["model_options"])
        return sum(kept_bytes(source, "", dtype) for source in sources)


def load_text_encoder_state_dicts(
    state_dicts: Sequence[MutableMapping[str, torch.Tensor]] = (),
    embedding_directory: Any = None,
    clip_type: CLIPType = CLIPType.STABLE_DIFFUSION,
    model_options: Mapping[str, Any] | None = None,
    disable_dynamic: bool = False,
) -> CLIP:
    """The text encoder that tensors in memory make together; used tensors leave the dicts."""
    sources = [StateDictSource(state_dict, f"state dict {number}", consume=True) for number, state_dict in enumerate(state_dicts, 1)]
    return load_text_encoder_sources(sources, embedding_directory, clip_type, model_options)


def load_text_encoder_sources(
    sources: Sequence[WeightSource],
    embedding_directory: Any = None,
    clip_type: CLIPType = CLIPType.STABLE_DIFFUSION,
    model_options: Mapping[str, Any] | None = None,
) -> CLIP:
    """The text encoder that weight sources make together. Raises ``UnknownModelError`` for another number or kind of text models."""
    parts: dict[str, WeightSource] = {}
    settings: dict[str, Any] = {}
    for source in map(plain_weights, sources):
        part, config = _text_model(source)
        name = "clip_l" if detect_te_model(config) is TEModel.CLIP_L else "clip_g"
        if name in parts:
            raise UnknownModelError(f"{source.name} and {parts[name].name} are both {name}; give {SUPPORTED}")
        parts[name] = part
        settings |= family_settings(source.metadata, source.name)
    targets: dict[tuple[str, ...], tuple[Any, Any]] = {
        ("clip_l",): (sd1_clip.SD1Tokenizer, sd1_clip.SD1ClipModel),
        ("clip_g",): (sdxl_clip.SDXLTokenizer, sdxl_clip.SDXLRefinerClipModel),
        ("clip_g", "clip_l"): (sdxl_clip.SDXLTokenizer, sdxl_clip.SDXLClipModel),
    }
    target = targets.get(tuple(sorted(parts)))
    if target is None:
        raise UnknownModelError(f"{len(sources)} text models were given for {clip_type.name}; supported: {SUPPORTED}")
    return build_clip(ClipTarget(*target), parts, embedding_directory, model_options or {}, settings)


def _text_model(source: WeightSource) -> tuple[WeightSource, ClipTextConfig]:
    for prefix in _PREFIXES:
        part = with_text_model_prefix(PrefixedSource(source, prefix))
        with naming_file(source.name, "the text model"):
            config = read_clip_config(part.shapes())
        if config is not None:
            say_unused(source.name, "outside the text model", outside(source.shapes(), (prefix,)), ())
            return part, config
    raise UnknownModelError(
        f"{source.name} is not a supported text model. Found {model_detection.describe_tensors(source.shapes())}. Supported: {SUPPORTED}"
    )


def detect_te_model(config: ClipTextConfig) -> TEModel:
    """Which text model *config* is: open_clip's are told by their activation, the larger one by its depth."""
    if config.hidden_act == "quick_gelu":
        return TEModel.CLIP_L
    return TEModel.CLIP_H if config.hidden_size == 1024 else TEModel.CLIP_G
