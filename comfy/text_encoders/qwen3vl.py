"""Qwen3-VL as a text encoder: its last layer's states of a conversation, in which pictures may be among the tokens."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

import torch

from comfy import sd1_clip
from comfy.supported_models_base import ClipTarget
from comfy.text.qwen.conversations import ONE_PICTURE
from comfy.text.qwen.vision3 import Qwen3VLTextModel
from comfy.text.tokenizer_files import WantedTokenizer
from comfy.text_encoders.published_model import PublishedTextModel
from comfy.text_encoders.qwen_image import PAD, PICTURE, QwenWords

SMALL, LARGE = "qwen3vl_4b", "qwen3vl_8b"
WIDTHS = {SMALL: 2560, LARGE: 4096}
REPOSITORIES = {SMALL: "Qwen/Qwen3-VL-4B-Instruct", LARGE: "Qwen/Qwen3-VL-8B-Instruct"}
OPENED = "<|im_start|>"  # how a text begins that needs no conversation around it
CONVERSATION = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
NO_THOUGHT = "<think>\n\n</think>\n\n"


class Qwen3VLSDTokenizer(QwenWords):
    """Qwen's tokenizer, with embeddings of the text model's width."""

    def __init__(
        self,
        embedding_directory: Any = None,
        tokenizer_data: Mapping[str, Any] | None = None,
        embedding_size: int = 4096,
        embedding_key: str = LARGE,
    ) -> None:
        wanted = WantedTokenizer(part=embedding_key, folder="qwen25_tokenizer", repository=REPOSITORIES[embedding_key])
        super().__init__(wanted, embedding_size, tokenizer_data, embedding_directory)


def words_of(model_type: str) -> Callable[..., Qwen3VLSDTokenizer]:
    """A maker of the tokenizer of *model_type*."""

    def made(**kwargs: Any) -> Qwen3VLSDTokenizer:
        return Qwen3VLSDTokenizer(**{"embedding_size": WIDTHS[model_type], "embedding_key": model_type, **kwargs})

    return made


class Qwen3VLTokenizer(sd1_clip.SD1Tokenizer):
    """Puts prompts into a conversation. Weights in parentheses are plain text."""

    THINKING = False  # whether the answer may begin with a thought, where nobody says

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None, model_type: str = LARGE) -> None:
        super().__init__(embedding_directory, tokenizer_data, name=model_type, tokenizer=words_of(model_type))
        self.llama_template = CONVERSATION
        self.llama_template_images = CONVERSATION.format(ONE_PICTURE + "{}")

    def tokenize_with_weights(
        self,
        text: str,
        return_word_ids: bool = False,
        llama_template: str | None = None,
        *,
        images: Sequence[torch.Tensor] = (),
        prevent_empty_text: bool = False,
        thinking: bool | None = None,
        skip_template: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """{name of the text model: chunks of (token, weight)}, in which each of *images* (B x height x width x 3, or each of the batch
        ``image``) takes the place of a picture's mark.

        *llama_template* has ``{}`` for the text. Without *thinking* (None: as ``THINKING`` says) the answer begins with an empty thought.
        A text that begins with a mark of a conversation, or *skip_template*, is taken as it is.
        """
        pictures = pictures_of(images, kwargs.get("image"))
        text = " " if prevent_empty_text and text == "" else text
        if not skip_template and not text.startswith(OPENED):
            template = self.template(text, len(pictures)) if llama_template is None else llama_template
            text = template.format(text) + ("" if (self.THINKING if thinking is None else thinking) else NO_THOUGHT)
        tokens = super().tokenize_with_weights(text, return_word_ids, **{**kwargs, "disable_weights": True})
        for chunks in tokens.values():
            _put_in(chunks, pictures)
        return tokens

    def template(self, text: str, pictures: int) -> str:
        """The conversation for *text* about so many *pictures*."""
        return self.llama_template_images.replace(ONE_PICTURE, ONE_PICTURE * pictures, 1) if pictures else self.llama_template


def pictures_of(images: Sequence[torch.Tensor], batch: torch.Tensor | None) -> list[torch.Tensor]:
    """*images*, or without any, each picture of *batch* (B x height x width x 3)."""
    return list(images) if len(images) or batch is None else list(batch.split(1))


def _put_in(chunks: Sequence[list[Any]], pictures: Sequence[torch.Tensor]) -> None:
    """Put *pictures* in the places of their marks."""
    left = iter(pictures)
    for chunk in chunks:
        for index, token in enumerate(chunk):
            if token[0] == PICTURE and (picture := next(left, None)) is not None:
                chunk[index] = ({"type": "image", "data": picture, "original_type": "image"}, *token[1:])


class Qwen3VLClipModel(PublishedTextModel):
    """Qwen3-VL's states after its last layer, before its last norm."""

    MODEL_CLASS, TOKENS, SETTINGS = Qwen3VLTextModel, {"pad": PAD}, {"layer_norm_hidden_state": False}
    LAYER: ClassVar[tuple[str | list[int], int | None]] = ("hidden", -1)


class NormalisedStates(Qwen3VLClipModel):
    """Its states after its last norm."""

    SETTINGS = {"layer_norm_hidden_state": True}


class Qwen3VLTEModel(sd1_clip.SD1ClipModel):
    """The states of the whole conversation, and which tokens are no padding. *clip_model* says which states."""

    def __init__(
        self,
        device: Any = "cpu",
        dtype: torch.dtype | None = None,
        model_options: Mapping[str, Any] | None = None,
        model_type: str = LARGE,
        clip_model: Any = Qwen3VLClipModel,
    ) -> None:
        super().__init__(device=device, dtype=dtype, name=model_type, clip_model=clip_model, model_options=model_options)


def tokenizer(model_type: str = LARGE) -> Callable[..., Qwen3VLTokenizer]:
    """A maker of :class:`Qwen3VLTokenizer` for *model_type*."""

    def made(**kwargs: Any) -> Qwen3VLTokenizer:
        return Qwen3VLTokenizer(**kwargs, model_type=model_type)

    return made


def te(model_type: str = LARGE, **ignored: Any) -> Callable[..., Qwen3VLTEModel]:
    """A maker of :class:`Qwen3VLTEModel` of *model_type*. Its dtype, its file says."""

    def made(**kwargs: Any) -> Qwen3VLTEModel:
        return Qwen3VLTEModel(**kwargs, model_type=model_type)

    return made


def qwen3vl_target(parts: Collection[str]) -> ClipTarget:
    """Of one Qwen3-VL alone."""
    (model_type,) = parts
    return ClipTarget(tokenizer(model_type), te(model_type))
