"""The kinds of text model that load, told by the names and shapes of their tensors.

To add one: a file in ``comfy/families/`` that reads its sizes and builds its network, an entry in :data:`KINDS`, its classes of tokenizer
and model under ComfyUI's name in ``comfy/text_encoders/``, and what it makes with others in :mod:`comfy.text.combinations`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from comfy.families.clip_text_config import ClipTextConfig, read_clip_config, read_sam3_clip_config
from comfy.families.model_errors import UnknownModelError, naming_file
from comfy.families.t5_text_config import T5TextConfig, read_t5_config
from comfy.families.weight_source import PrefixedSource, WeightSource
from comfy.text.gemma import GemmaTextConfig, read_gemma_config
from comfy.text.gemma3 import is_gemma3_4b, is_gemma3_4b_vision, is_gemma3_12b, read_gemma3_config
from comfy.text.gemma4.sizes import LARGE, MEDIUM, SMALL, UNIFIED, gemma4_source, is_gemma4, read_gemma4_config
from comfy.text.llama import is_llama, is_ministral, is_mistral, read_llama_config
from comfy.text.ltx_projection_config import PROJECTION, is_projection, projection_source, read_projection_config
from comfy.text.qwen.half_sizes import read_half_config
from comfy.text.qwen.hybrid import HybridTextConfig, read_hybrid_config
from comfy.text.qwen.sizes import LARGE_EYES, QwenTextConfig, read_qwen3_vl_config, read_qwen_config
from comfy.text.t5_gemma import read_t5_gemma_config
from comfy.text.te_models import TEModel

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

CLIP_H_WIDTH = 1024
QWEN25_3B_KEY_HEADS = 2
QWEN3_06B_WIDTH, QWEN3_2B_WIDTH, QWEN3_8B_WIDTH = 1024, 2048, 4096
UMT5_BASE_WIDTH = 768
T5_BASE_LAYERS = 23  # fewer than the largest T5 has
BYTES_VOCABULARY = 2048  # ByT5 reads bytes: it has far fewer tokens than any other


@dataclass(frozen=True, slots=True)
class EncoderKind:
    """A kind of text model.

    *part*: the name that the families' text encoders give it ("t5xxl"). *read*: the sizes that shapes (without prefix) and settings from
    the file's metadata give, or None where they are of no such network. *accepts*: whether those are the sizes of this kind. *norm*: a
    tensor whose dtype is the one that the file computes in, where quantised weights have another; None for the most common dtype. *select*:
    takes it out of a file that holds more, such as a checkpoint.
    """

    model: TEModel
    label: str
    part: str
    read: Callable[[Shapes, Mapping[str, Any] | None], Any]
    accepts: Callable[[Any], bool]
    norm: str | None = None
    select: Callable[[WeightSource], WeightSource] | None = None


def is_clip_l(config: ClipTextConfig) -> bool:
    """Whether *config* is OpenAI's text model: open_clip's are told by their activation."""
    return config.hidden_act == "quick_gelu"


def is_clip_g(config: ClipTextConfig) -> bool:
    """Whether *config* is open_clip's largest, not that of Stable Diffusion 2."""
    return not is_clip_l(config) and not is_clip_h(config)


def is_clip_h(config: ClipTextConfig) -> bool:
    """Whether *config* is Stable Diffusion 2's of open_clip, told by its width."""
    return not is_clip_l(config) and config.hidden_size == CLIP_H_WIDTH


def is_t5(config: T5TextConfig) -> bool:
    """Whether *config* is T5 v1.1."""
    return config.gated and not config.bias_per_layer and config.vocabulary >= BYTES_VOCABULARY


def is_byt5(config: T5TextConfig) -> bool:
    """Whether *config* is ByT5, whose tokens are bytes and a few marks."""
    return config.gated and not config.bias_per_layer and config.vocabulary < BYTES_VOCABULARY


def is_umt5(config: T5TextConfig) -> bool:
    """Whether *config* is UMT5, but for its base size."""
    return config.gated and config.bias_per_layer and config.hidden_size != UMT5_BASE_WIDTH


def is_umt5_base(config: T5TextConfig) -> bool:
    """Whether *config* is UMT5 base."""
    return config.gated and config.bias_per_layer and config.hidden_size == UMT5_BASE_WIDTH


def is_old_t5(config: T5TextConfig) -> bool:
    """Whether *config* is the largest of the first T5."""
    return not config.gated and config.num_layers > T5_BASE_LAYERS


def is_t5_base(config: T5TextConfig) -> bool:
    """Whether *config* is a smaller one of the first T5."""
    return not config.gated and config.num_layers <= T5_BASE_LAYERS


def is_gemma2(config: GemmaTextConfig) -> bool:
    """Whether *config* is Gemma 2, as every one that is read."""
    return bool(config.num_layers)


def is_qwen25_7b(config: QwenTextConfig) -> bool:
    """Whether *config* is Qwen 2.5 with seven billion parameters; that with three has two heads of keys."""
    return not config.normalised and config.num_key_heads != QWEN25_3B_KEY_HEADS


def is_qwen25_3b(config: QwenTextConfig) -> bool:
    """Whether *config* is Qwen 2.5 with three billion parameters."""
    return not config.normalised and config.num_key_heads == QWEN25_3B_KEY_HEADS


def is_qwen3_4b(config: QwenTextConfig) -> bool:
    """Whether *config* is Qwen 3 with four billion parameters (or fewer than any that is published)."""
    return config.normalised and config.hidden_size not in (QWEN3_06B_WIDTH, QWEN3_2B_WIDTH, QWEN3_8B_WIDTH)


def is_qwen3_06b(config: QwenTextConfig) -> bool:
    """Whether *config* is Qwen 3 with six hundred million parameters."""
    return config.normalised and config.hidden_size == QWEN3_06B_WIDTH


def is_qwen3_2b(config: QwenTextConfig) -> bool:
    """Whether *config* is Qwen 3 with two billion parameters."""
    return config.normalised and config.hidden_size == QWEN3_2B_WIDTH


def is_qwen3_8b(config: QwenTextConfig) -> bool:
    """Whether *config* is Qwen 3 with eight billion parameters."""
    return config.normalised and config.hidden_size == QWEN3_8B_WIDTH


def is_qwen3_vl_8b(config: QwenTextConfig) -> bool:
    """Whether *config* is Qwen3-VL with eight billion parameters: told by its width, or, in models smaller than any, by its eyes."""
    small = config.hidden_size < QWEN3_06B_WIDTH
    return config.hidden_size == QWEN3_8B_WIDTH or (small and config.eyes is not None and config.eyes.depth == LARGE_EYES)


def is_qwen3_vl_4b(config: QwenTextConfig) -> bool:
    """Whether *config* is Qwen3-VL with four billion parameters (or fewer than any that is published)."""
    return not is_qwen3_vl_8b(config) and config.hidden_size <= QWEN3_8B_WIDTH


def is_qwen35(width: int | None) -> Callable[[HybridTextConfig], bool]:
    """Whether a Qwen 3.5 is that of *width*; None: of any."""
    return lambda config: width is None or config.hidden_size == width


def is_any(config: object) -> bool:
    """Yes: what is read is of one kind."""
    return True


_T5_NORM = "encoder.final_layer_norm.weight"
_DECODER_NORM = "model.norm.weight"
_VISION_NORM = "model.language_model.norm.weight"
_FIRST_NORM = "model.layers.0.input_layernorm.weight"
KINDS: tuple[EncoderKind, ...] = (
    EncoderKind(TEModel.CLIP_L, "CLIP-L", "clip_l", read_clip_config, is_clip_l),
    EncoderKind(TEModel.CLIP_G, "CLIP-G", "clip_g", read_clip_config, is_clip_g),
    EncoderKind(TEModel.CLIP_H, "CLIP-H", "clip_h", read_clip_config, is_clip_h),
    EncoderKind(TEModel.T5_XXL, "T5 v1.1", "t5xxl", read_t5_config, is_t5, _T5_NORM),
    EncoderKind(TEModel.BYT5_SMALL_GLYPH, "ByT5", "byt5_small", read_t5_config, is_byt5, _T5_NORM),
    EncoderKind(TEModel.UMT5_XXL, "UMT5", "umt5xxl", read_t5_config, is_umt5, _T5_NORM),
    EncoderKind(TEModel.UMT5_BASE, "UMT5 base", "umt5base", read_t5_config, is_umt5_base, _T5_NORM),
    EncoderKind(TEModel.T5_XXL_OLD, "T5 1.0 XXL", "t5xxl", read_t5_config, is_old_t5, _T5_NORM),
    EncoderKind(TEModel.T5_BASE, "T5 base", "t5base", read_t5_config, is_t5_base, _T5_NORM),
    EncoderKind(TEModel.T5_GEMMA, "T5Gemma", "t5gemma", read_t5_gemma_config, is_any, "model.encoder.norm.weight"),
    EncoderKind(TEModel.GEMMA_2_2B, "Gemma 2 2B", "gemma2_2b", read_gemma_config, is_gemma2, _DECODER_NORM),
    EncoderKind(TEModel.GEMMA_3_12B, "Gemma 3 12B", "gemma3_12b", read_gemma3_config, is_gemma3_12b, _DECODER_NORM),
    EncoderKind(TEModel.GEMMA_3_4B, "Gemma 3 4B", "gemma3_4b", read_gemma3_config, is_gemma3_4b, _DECODER_NORM),
    EncoderKind(TEModel.GEMMA_3_4B_VISION, "Gemma 3 4B with eyes", "gemma3_4b", read_gemma3_config, is_gemma3_4b_vision, _DECODER_NORM),
    *(
        EncoderKind(model, f"Gemma 4 {label}", "gemma4", read_gemma4_config, is_gemma4(size), _DECODER_NORM, gemma4_source)
        for model, label, size in (
            (TEModel.GEMMA_4_E2B, "E2B", SMALL),
            (TEModel.GEMMA_4_E4B, "E4B", MEDIUM),
            (TEModel.GEMMA_4_12B, "12B", UNIFIED),
            (TEModel.GEMMA_4_31B, "31B", LARGE),
        )
    ),
    EncoderKind(TEModel.QWEN25_7B, "Qwen2.5-VL 7B", "qwen25_7b", read_qwen_config, is_qwen25_7b, _DECODER_NORM),
    EncoderKind(TEModel.QWEN25_3B, "Qwen2.5-VL 3B", "qwen25_3b", read_qwen_config, is_qwen25_3b, _DECODER_NORM),
    EncoderKind(TEModel.QWEN3_4B, "Qwen3 4B", "qwen3_4b", read_qwen_config, is_qwen3_4b, _DECODER_NORM),
    EncoderKind(TEModel.QWEN3_06B, "Qwen3 0.6B", "qwen3_06b", read_qwen_config, is_qwen3_06b, _DECODER_NORM),
    EncoderKind(TEModel.QWEN3_2B, "Qwen3 2B", "qwen3_2b", read_qwen_config, is_qwen3_2b, _DECODER_NORM),
    EncoderKind(TEModel.QWEN3_8B, "Qwen3 8B", "qwen3_8b", read_qwen_config, is_qwen3_8b, _DECODER_NORM),
    EncoderKind(TEModel.QWEN3VL_32B, "Qwen3-VL 32B", "qwen3vl_32b", read_half_config, is_any, _FIRST_NORM),
    EncoderKind(TEModel.QWEN3VL_4B, "Qwen3-VL 4B", "qwen3vl_4b", read_qwen3_vl_config, is_qwen3_vl_4b, _VISION_NORM),
    EncoderKind(TEModel.QWEN3VL_8B, "Qwen3-VL 8B", "qwen3vl_8b", read_qwen3_vl_config, is_qwen3_vl_8b, _VISION_NORM),
    *(
        EncoderKind(model, f"Qwen3.5 {size}", f"qwen35_{part}", read_hybrid_config, is_qwen35(width), _VISION_NORM)
        for model, size, part, width in (
            (TEModel.QWEN35_08B, "0.8B", "08b", 1024),
            (TEModel.QWEN35_4B, "4B", "4b", 2560),
            (TEModel.QWEN35_9B, "9B", "9b", 4096),
            (TEModel.QWEN35_27B, "27B", "27b", 5120),
            (TEModel.QWEN35_2B, "2B", "2b", None),
        )
    ),
    EncoderKind(TEModel.LLAMA3_8, "Llama 3.1 8B", "llama", read_llama_config, is_llama, _FIRST_NORM),
    EncoderKind(TEModel.MINISTRAL_3_3B, "Ministral 3 3B", "ministral3_3b", read_llama_config, is_ministral, _FIRST_NORM),
    EncoderKind(TEModel.MISTRAL3_24B, "Mistral Small 3", "mistral3_24b", read_llama_config, is_mistral, _FIRST_NORM),
    EncoderKind(
        TEModel.LTX_PROJECTION, "a checkpoint of LTX 2", PROJECTION, read_projection_config, is_projection, select=projection_source
    ),
    EncoderKind(TEModel.SAM3_CLIP, "SAM 3's text model", "sam3_clip", read_sam3_clip_config, is_any),
)


@dataclass(frozen=True, slots=True)
class FoundEncoder:
    """A text model in a file: its *kind*, its tensors without prefix, its sizes, and the prefix that its tensors have in the file."""

    kind: EncoderKind
    source: WeightSource
    config: Any
    prefix: str


def recognise(source: WeightSource, settings: Mapping[str, Any] | None = None) -> FoundEncoder | None:
    """The text model in *source*, below any of the prefixes in use, or None. *settings* are by part, from the file's metadata.

    Raises ``ModelFileError`` for shapes that fit no network.
    """
    known = source.shapes()
    for kind in KINDS:
        for prefix in prefixes(kind.part):
            if prefix and not any(key.startswith(prefix) for key in known):
                continue
            part = with_text_model_prefix(PrefixedSource(source, prefix) if prefix else source)
            with naming_file(source.name, "the text model"):
                config = kind.read(part.shapes(), None)
                if config is not None and kind.accepts(config):
                    part = part if kind.select is None else kind.select(part)
                    return FoundEncoder(kind, part, kind.read(part.shapes(), (settings or {}).get(kind.part)), prefix)
    return None


def recognise_parts(source: WeightSource, settings: Mapping[str, Any] | None = None) -> list[FoundEncoder]:
    """The text model in *source*, as :func:`recognise` tells it, and what LTX 2 has for its states where the same file holds both for the
    video and the sound, as those of Gemma 4 do. Empty where there is none.
    """
    found = recognise(source, settings)
    if found is None:
        return []
    projection = next(kind for kind in KINDS if kind.model == TEModel.LTX_PROJECTION)
    config = read_projection_config(source.shapes())
    if found.kind.part != "gemma4" or config is None or config.sound_width is None:
        return [found]
    return [found, FoundEncoder(projection, projection_source(source), config, "")]


def read_part(name: str, source: WeightSource, settings: Mapping[str, Any] | None = None) -> FoundEncoder:
    """The text model that a family calls *name*, in its part *source* of a checkpoint. *settings* are its own.

    Raises ``UnknownModelError`` where it is no network of that kind.
    """
    part = with_text_model_prefix(source)
    found = []
    for kind in KINDS:
        if kind.part == name:
            with naming_file(source.name, name):
                config = kind.read(part.shapes(), settings)
            if config is not None:
                found.append(FoundEncoder(kind, part, config, ""))
    if not found:
        labels = " or ".join(kind.label for kind in KINDS if kind.part == name)
        raise UnknownModelError(f"{name} in {source.name} is not {labels}: it has none of its tensors")
    return next((one for one in found if one.kind.accepts(one.config)), found[0])


def prefixes(part: str) -> tuple[str, ...]:
    """What may stand before the names of the tensors of the text model *part* in a file of its own, or in a saved text encoder."""
    own = (f"text_encoders.{part}.transformer.", f"{part}.transformer.")
    return ("", "text_encoder.", *own, "cond_stage_model.transformer.", "transformer.")


def with_text_model_prefix(source: WeightSource) -> WeightSource:
    """*source* itself, or under ``text_model.`` when it is CLIP in transformers' names but lacks that prefix (old files)."""
    return PrefixedSource(source, "", "text_model.") if "embeddings.token_embedding.weight" in source.shapes() else source
