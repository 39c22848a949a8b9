"""Flux.2's text encoders: three hidden states, side by side, of Mistral Small (dev) or of Qwen 3 (klein)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy.sd1_clip import SD1ClipModel
from comfy.supported_models_base import ClipTarget
from comfy.text.llama import LlamaTextModel
from comfy.text.one_chunk import OneChunkTokenizer
from comfy.text.qwen.network import QwenTextModel
from comfy.text.tokenizer_files import WantedTokenizer
from comfy.text_encoders.conversation import ConversationTokenizer
from comfy.text_encoders.published_model import PublishedTextModel
from comfy.text_encoders.qwen_image import PAD

MISTRAL, QWEN3_4B, QWEN3_8B = "mistral3_24b", "qwen3_4b", "qwen3_8b"
MISTRAL_WIDTH = 5120
MISTRAL_STATES, QWEN_STATES = [10, 20, 30], [9, 18, 27]
MISTRAL_START, MISTRAL_PAD = 1, 11
QWEN_WORDS = 512  # tokens that a prompt is filled up to
ROLE = (
    "You are an AI that reasons about image descriptions. You give structured responses focusing on object relationships, object\n"
    "attribution and actions without speculation."
)
INSTRUCTION = "[SYSTEM_PROMPT]" + ROLE + "[/SYSTEM_PROMPT][INST]{}[/INST]"
CONVERSATION = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
WANTED_MISTRAL = WantedTokenizer(MISTRAL, "mistral_tokenizer", "mistralai/Mistral-Small-3.2-24B-Instruct-2506", files=("tekken.json",))


class Mistral3Tokenizer(OneChunkTokenizer):
    """Mistral's tokenizer: a start token, no end token, parentheses as they are."""

    def __init__(
        self,
        embedding_directory: Any = None,
        embedding_size: int = MISTRAL_WIDTH,
        embedding_key: str = MISTRAL,
        tokenizer_data: Mapping[str, Any] | None = None,
    ) -> None:
        data = tokenizer_data or {}
        self.tekken_data = {**data, **(data.get(embedding_key) or {})}.get("tekken_model")
        super().__init__(
            WANTED_MISTRAL if embedding_key == MISTRAL else WantedTokenizer(embedding_key, *_places(WANTED_MISTRAL)),
            tokenizer_data,
            embedding_directory=embedding_directory,
            embedding_size=embedding_size,
            has_end_token=False,
            start_token=MISTRAL_START,
            pad_token=MISTRAL_PAD,
            min_length=1,
            pad_left=True,
            disable_weights=True,
        )

    def state_dict(self) -> dict[str, Any]:
        """The tokenizer, where the text encoder's file carried it."""
        return {} if self.tekken_data is None else {"tekken_model": self.tekken_data}


def _places(wanted: WantedTokenizer) -> tuple[str, str, tuple[str, ...]]:
    return wanted.folder, wanted.repository, wanted.files


class Flux2Tokenizer(ConversationTokenizer):
    """For Mistral."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data, name=MISTRAL, tokenizer=Mistral3Tokenizer)
        self.llama_template = INSTRUCTION


class _Qwen3Words(OneChunkTokenizer):
    """Qwen's tokenizer without marks around the text, filled up to 512 tokens."""

    def __init__(self, part: str, repository: str, width: int, directory: Any, data: Mapping[str, Any] | None) -> None:
        super().__init__(
            WantedTokenizer(part, "qwen25_tokenizer", repository),
            data,
            embedding_directory=directory,
            embedding_size=width,
            has_start_token=False,
            has_end_token=False,
            min_length=QWEN_WORDS,
            pad_token=PAD,
        )


class Qwen3Tokenizer(_Qwen3Words):
    """Of the model with four billion parameters."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(QWEN3_4B, "Qwen/Qwen3-4B", 2560, embedding_directory, tokenizer_data)


class Qwen3Tokenizer8B(_Qwen3Words):  # noqa: N801 - ComfyUI's name
    """Of the model with eight billion parameters."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(QWEN3_8B, "Qwen/Qwen3-8B", 4096, embedding_directory, tokenizer_data)


class KleinTokenizer(ConversationTokenizer):
    """For Qwen 3; *name* says which."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None, name: str = QWEN3_4B) -> None:
        tokenizer = {QWEN3_4B: Qwen3Tokenizer, QWEN3_8B: Qwen3Tokenizer8B}[name]
        super().__init__(embedding_directory, tokenizer_data, name=name, tokenizer=tokenizer)
        self.llama_template = CONVERSATION


class KleinTokenizer8B(KleinTokenizer):
    """For Qwen 3 with eight billion parameters."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None, name: str = QWEN3_8B) -> None:
        super().__init__(embedding_directory, tokenizer_data, name)


class Mistral3_24BModel(PublishedTextModel):  # noqa: N801 - ComfyUI's name
    """Mistral Small's states before layers 10, 20 and 30."""

    MODEL_CLASS, TOKENS, SETTINGS = LlamaTextModel, {"start": 1, "pad": 0}, {"layer_norm_hidden_state": False}
    LAYER = (MISTRAL_STATES, None)


class Qwen3_4BModel(PublishedTextModel):  # noqa: N801 - ComfyUI's name
    """Qwen 3's states before layers 9, 18 and 27."""

    MODEL_CLASS, TOKENS, SETTINGS = QwenTextModel, {"pad": PAD}, {"layer_norm_hidden_state": False}
    LAYER = (QWEN_STATES, None)


class Qwen3_8BModel(Qwen3_4BModel):  # noqa: N801 - ComfyUI's name
    """The same of the larger one."""


class Flux2TEModel(SD1ClipModel):
    """The three states of each token as one vector; *name* and *clip_model* say of which text model."""

    def __init__(
        self,
        device: Any = "cpu",
        dtype: torch.dtype | None = None,
        model_options: Mapping[str, Any] | None = None,
        name: str = MISTRAL,
        clip_model: Any = Mistral3_24BModel,
    ) -> None:
        super().__init__(device=device, dtype=dtype, name=name, clip_model=clip_model, model_options=model_options)

    def encode_token_weights(self, token_weight_pairs: Mapping[str, Any]) -> tuple[Any, ...]:
        """(states 1 x tokens x (3 · width), None, {"attention_mask"})."""
        states, *others = super().encode_token_weights(token_weight_pairs)
        return states.movedim(1, 2).flatten(2), *others


def flux2_te(**ignored: Any) -> Any:
    """:class:`Flux2TEModel` of Mistral. Its dtype and depth, its file says."""
    return Flux2TEModel


def klein_te(model_type: str = QWEN3_4B, **ignored: Any) -> Any:
    """A maker of :class:`Flux2TEModel` of the Qwen 3 *model_type*."""
    kind = {QWEN3_4B: Qwen3_4BModel, QWEN3_8B: Qwen3_8BModel}[model_type]

    def made(**kwargs: Any) -> Flux2TEModel:
        return Flux2TEModel(name=model_type, clip_model=kind, **kwargs)

    return made


def flux2_target(parts: Collection[str]) -> ClipTarget:
    """Of Mistral, or of one of the Qwen 3."""
    if QWEN3_8B in parts:
        return ClipTarget(KleinTokenizer8B, klein_te(QWEN3_8B))
    return ClipTarget(KleinTokenizer, klein_te()) if QWEN3_4B in parts else ClipTarget(Flux2Tokenizer, Flux2TEModel)
