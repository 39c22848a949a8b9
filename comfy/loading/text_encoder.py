"""Text encoders from files or state dicts of their own, without a checkpoint around them."""

import enum
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch

from comfy import model_detection
from comfy.families.family_settings import family_settings
from comfy.families.key_accounts import outside, say_unused
from comfy.families.model_errors import UnknownModelError
from comfy.families.quantised_weights import plain_weights
from comfy.families.weight_source import StateDictSource, WeightSource
from comfy.loading.components import build_clip, kept_bytes
from comfy.loading.model_files import ModelFiles
from comfy.loading.parts import INDEPENDENT, Part, load_parts
from comfy.text.combinations import find_combination, makings
from comfy.text.encoder import CLIP, kept_part_dtype
from comfy.text.kinds import KINDS, FoundEncoder, recognise, recognise_parts
from comfy.text.te_models import TEModel

CLIPType = enum.Enum(
    "CLIPType",
    "STABLE_DIFFUSION STABLE_CASCADE SD3 STABLE_AUDIO HUNYUAN_DIT FLUX MOCHI LTXV HUNYUAN_VIDEO PIXART COSMOS LUMINA2 WAN HIDREAM "
    "CHROMA ACE OMNIGEN2 QWEN_IMAGE HUNYUAN_IMAGE HUNYUAN_VIDEO_15 OVIS KANDINSKY5 KANDINSKY5_IMAGE NEWBIE FLUX2 LONGCAT_IMAGE COGVIDEOX "
    "LENS PIXELDIT IDEOGRAM4 BOOGU KREA2 JOYIMAGE MAGE MINIMAX FLUX3",
)
CLIPType.__doc__ = "Which family's text encoder several families' files are meant for; files say what they are, this says what for."


def load_clip(
    ckpt_paths: Sequence[str],
    embedding_directory: Any = None,
    clip_type: CLIPType = CLIPType.STABLE_DIFFUSION,
    model_options: Mapping[str, Any] | None = None,
    disable_dynamic: bool = False,
) -> CLIP:
    """The text encoder that the text models in files make together for *clip_type*, in any order; see :mod:`comfy.text.combinations`.

    Raises ``ModelFileError`` naming the file that is not a supported text model, or all files where they make nothing together.
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
        return sum(kept_encoder_bytes(source, self.options["model_options"]) for source in self._files.sources())


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
    """The text encoder that weight sources make together. Raises ``UnknownModelError`` for text models that make none."""
    found = [part for source in map(plain_weights, sources) for part in _recognised(source)]
    combination = find_combination([one.kind.model for one in found], clip_type.name.lower())
    if combination is None:
        raise UnknownModelError(_no_combination(found, clip_type.name.lower()))
    parts = {one.kind.part: one for one in found}
    return build_clip(combination.make(parts), parts, embedding_directory, model_options or {})


def detect_te_model(sd: Mapping[str, torch.Tensor]) -> TEModel | None:
    """Which text model the state dict *sd* is, or None for one of a kind that does not load."""
    found = recognise(StateDictSource(dict(sd)))
    return None if found is None else found.kind.model


def kept_encoder_bytes(source: WeightSource, options: Mapping[str, Any]) -> int:
    """Bytes that the text model in *source* will take."""
    found = _recognised(plain_weights(source))
    return sum(kept_bytes(part.source, "", kept_part_dtype(part, options)) for part in found)


def _recognised(source: WeightSource) -> list[FoundEncoder]:
    found = recognise_parts(source, family_settings(source.metadata, source.name))
    if not found:
        raise UnknownModelError(
            f"{source.name} is not a supported text model. Found {model_detection.describe_tensors(source.shapes())}. "
            f"Supported: {', '.join(kind.label for kind in KINDS)}"
        )
    say_unused(source.name, "outside the text model", outside(source.shapes(), (found[0].prefix,)), ())
    return found


def _no_combination(found: Sequence[FoundEncoder], kind: str) -> str:
    """What was given, and what would load instead."""
    given = " and ".join(f"{one.source.name} ({one.kind.label})" for one in found)
    labels = {one.model: one.label for one in KINDS}
    possible = [" + ".join(sorted(labels[model] for model in models)) for models in makings(kind, len(found))]
    return f"{given} make no text encoder together for type {kind}; give {'; or '.join(dict.fromkeys(possible)) or 'fewer files'}"
