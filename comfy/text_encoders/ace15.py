"""The text encoder of ACE-Step 1.5: the small Qwen 3 for tags and lyrics, and a larger one that writes codes of music."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch

import comfy.model_management
from comfy.sd1_clip import SD1Tokenizer
from comfy.supported_models_base import ClipTarget
from comfy.text.drawing import Choice
from comfy.text.joint_encoder import JointTextEncoder
from comfy.text.qwen.network import QwenTextModel
from comfy.text.song_codes import SongSettings, write_codes
from comfy.text_encoders.anima import PART, Qwen3Tokenizer
from comfy.text_encoders.published_model import PublishedTextModel
from comfy.text_encoders.qwen_image import PAD
from comfy.units import MIB

CODES_PER_SECOND = 5
SECONDS = 120
WRITERS = ("qwen3_4b", "qwen3_2b")  # of codes, the larger first
MIB_PER_TOKEN = {"qwen3_4b": 0.5625, "qwen3_2b": 0.4375}
TASK = "# Instruction\nGenerate audio semantic tokens based on the given conditions:\n\n"
TO_WRITER = (
    f"<|im_start|>system\n{TASK}<|im_end|>\n<|im_start|>user\n# Caption\n{{}}\n\n# Lyric\n{{}}\n<|im_end|>\n"
    "<|im_start|>assistant\n{}\n\n<|im_end|>\n"
)
LYRICS = "# Languages\n{}\n\n# Lyric\n{}<|endoftext|><|endoftext|>"
TAGS = f"{TASK}# Caption\n{{}}\n\n# Metas\n{{}}\n<|endoftext|>\n<|endoftext|>"
THOUGHT = "<think>\n{}\n</think>"
ABOUT = ("bpm", "timesignature", "keyscale", "duration")
UNSAID = ("unspecified", None)


def _told(about: Mapping[str, Any]) -> dict[str, Any]:
    """Of *about* what is told of the song; a time signature in quarters is their number."""
    told = {name: about[name] for name in ABOUT if name in about}
    if isinstance(told.get("timesignature"), str):
        told["timesignature"] = told["timesignature"].removesuffix("/4")
    return told


def thought(about: Mapping[str, Any]) -> str:
    """What the writer has been thinking: *about* as YAML, sorted."""
    import yaml

    told = {name: value for name, value in _told(about).items() if value not in UNSAID}
    told = {name: int(value) if isinstance(value, str) and value.isdigit() else value for name, value in told.items()}
    return THOUGHT.format(yaml.dump(told, allow_unicode=True, sort_keys=True).strip() if told else "")


def listed(about: Mapping[str, Any]) -> str:
    """*about* as a list; what is not said is N/A, and the song then of 30 seconds. Raises ``TypeError`` for a duration of another type."""
    told = dict.fromkeys(ABOUT, "N/A") | _told(about)
    seconds = told["duration"]
    if not isinstance(seconds, str | int | float):
        raise TypeError(f"the duration of a song is a number of seconds, not {type(seconds).__name__}")
    told["duration"] = "30 seconds" if seconds == "N/A" else f"{math.ceil(float(seconds))} seconds"
    return "\n".join(f"- {name}: {told[name]}" for name in ABOUT)


def _seconds(duration: Any) -> int:
    """Whole seconds, rounded up, of a number or of a text that begins with one."""
    return math.ceil(float(duration.split(None, 1)[0]) if isinstance(duration, str) else duration)


class ACE15Tokenizer(SD1Tokenizer):
    """Texts for both models. Weights in parentheses are plain text."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, name=PART, tokenizer=Qwen3Tokenizer)

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **kwargs: Any) -> dict[str, Any]:
        """{"qwen3_06b": chunks, "lyrics", "lm_prompt", "lm_prompt_negative", "lm_metadata": how codes are to be chosen}.

        *kwargs*: ``lyrics``, ``bpm``, ``duration`` (seconds), ``timesignature``, ``keyscale``, ``language``, ``seed``; whether there are to
        be codes (``generate_audio_codes``), and ``cfg_scale``, ``temperature``, ``top_p``, ``top_k``, ``min_p`` for them; what the codes
        are to be unlike, under the same names with ``_negative``.
        """
        tags, lyrics = text.strip(), kwargs.get("lyrics", "")
        about = {**kwargs, "duration": _seconds(kwargs.get("duration", SECONDS))}
        unlike = {name: kwargs[f"{name}_negative"] for name in ABOUT if f"{name}_negative" in kwargs}
        negative = (kwargs.get("caption_negative", tags).strip(), kwargs.get("lyrics_negative", lyrics).strip())
        texts = {
            "lm_prompt": TO_WRITER.format(tags, lyrics.strip(), thought(about)),
            "lm_prompt_negative": TO_WRITER.format(*negative, thought(unlike)),
            "lyrics": LYRICS.format(kwargs.get("language") or "", lyrics),
            PART: TAGS.format(tags, listed(about)),
        }
        plain = {**kwargs, "disable_weights": True}
        tokenizer: Any = getattr(self, PART)
        tokens = {name: tokenizer.tokenize_with_weights(one, name == PART and return_word_ids, **plain) for name, one in texts.items()}
        codes = about["duration"] * CODES_PER_SECOND
        return {**tokens, "lm_metadata": {"min_tokens": codes, "max_tokens": codes, **CODES_AS_USUAL, **_given(kwargs)}}


CODES_AS_USUAL = {"seed": 0, "generate_audio_codes": True, "cfg_scale": 2.0, "temperature": 0.85, "top_p": 0.9, "top_k": 0, "min_p": 0.0}


def _given(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Of *kwargs* what is said of codes."""
    counts = {name: int(kwargs[name]) for name in ("min_tokens", "max_tokens") if name in kwargs}
    return {**counts, **{name: kwargs[name] for name in CODES_AS_USUAL if name in kwargs}}


class Qwen3_06BModel(PublishedTextModel):  # noqa: N801 - ComfyUI's name
    """The small Qwen 3's last states."""

    MODEL_CLASS, TOKENS, SETTINGS, NAME = QwenTextModel, {"pad": PAD}, {"layer_norm_hidden_state": False}, PART


class Qwen3_2B_ACE15(PublishedTextModel):  # noqa: N801 - ComfyUI's name
    """The smaller writer."""

    MODEL_CLASS, TOKENS, SETTINGS, NAME = QwenTextModel, {"pad": PAD}, {"layer_norm_hidden_state": False}, "qwen3_2b"


class Qwen3_4B_ACE15(PublishedTextModel):  # noqa: N801 - ComfyUI's name
    """The larger writer."""

    MODEL_CLASS, TOKENS, SETTINGS, NAME = QwenTextModel, {"pad": PAD}, {"layer_norm_hidden_state": False}, "qwen3_4b"


class ACE15TEModel(JointTextEncoder):
    """States of the tags; the lyrics' embeddings as ``conditioning_lyrics``, and codes as ``audio_codes``. *lm_model* names the writer;
    without one the small model writes.
    """

    def __init__(
        self,
        device: Any = "cpu",
        dtype: torch.dtype | None = None,
        dtype_llama: torch.dtype | None = None,
        lm_model: str | None = None,
        model_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.lm_model = lm_model
        self.qwen3_06b = Qwen3_06BModel(device=device, dtype=dtype, model_options=model_options)
        if lm_model is not None:
            kind = {"qwen3_4b": Qwen3_4B_ACE15, "qwen3_2b": Qwen3_2B_ACE15}[lm_model]
            setattr(self, lm_model, kind(device=device, dtype=dtype_llama or dtype, model_options=model_options))
        self.dtypes = {part.dtype for part in self.parts().values()}

    def encode_token_weights(self, token_weight_pairs: Mapping[str, Any]) -> tuple[Any, ...]:
        """(states of the tags 1 x tokens x 1024, None, {"conditioning_lyrics": 1 x tokens x 1024, "audio_codes": [codes]})."""
        self.qwen3_06b.set_clip_options({"layer": None})
        states, *_ = self.qwen3_06b.encode_token_weights(token_weight_pairs[PART])
        lyrics = [[token for token, *_ in chunk] for chunk in token_weight_pairs["lyrics"]]
        device = self.qwen3_06b.execution_device or self.qwen3_06b.transformer.get_input_embeddings().weight.device
        embeds, *_ = self.qwen3_06b.process_tokens(lyrics, device)
        extra: dict[str, Any] = {"conditioning_lyrics": embeds.to(states.device)}
        about = token_weight_pairs["lm_metadata"]
        if about["generate_audio_codes"]:
            extra["audio_codes"] = [self._codes(token_weight_pairs, about)]
        return states, None, extra

    def _codes(self, token_weight_pairs: Mapping[str, Any], about: Mapping[str, Any]) -> list[int]:
        prompt, negative = ([token for token, *_ in token_weight_pairs[name][0]] for name in ("lm_prompt", "lm_prompt_negative"))
        choice = Choice(about["temperature"], about["top_p"], int(about["top_k"]), about["min_p"])
        most = about["min_tokens"]  # as in ComfyUI, which does not ask for max_tokens
        settings = SongSettings(most, about["min_tokens"], about["seed"], about["cfg_scale"], choice)
        return write_codes(getattr(self, self.lm_model or PART), prompt, negative, settings)

    def memory_estimation_function(self, token_weight_pairs: Mapping[str, Any], device: torch.device | None = None) -> float:
        """Bytes of working memory for a text; measured by ComfyUI."""
        per_token = MIB_PER_TOKEN.get(self.lm_model or "", MIB_PER_TOKEN["qwen3_2b"])
        share = 0.5 if comfy.model_management.should_use_bf16(device) else 1.0
        tokens = sum(map(len, token_weight_pairs.get("lm_prompt", ()))) + token_weight_pairs.get("lm_metadata", {}).get("min_tokens", 0)
        return tokens * per_token * share * MIB


def te(dtype_llama: torch.dtype | None = None, lm_model: str | None = "qwen3_2b", **ignored: Any) -> Any:
    """A maker of :class:`ACE15TEModel`. What the models are kept in, their files say."""

    def make(**arguments: Any) -> ACE15TEModel:
        return ACE15TEModel(lm_model=lm_model, dtype_llama=dtype_llama, **arguments)

    return make


def ace15_target(parts: Collection[str]) -> ClipTarget:
    """Of the small Qwen 3, and of a writer of codes if one is there."""
    return ClipTarget(ACE15Tokenizer, te(lm_model=next((name for name in WRITERS if name in parts), None)))
