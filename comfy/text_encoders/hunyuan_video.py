"""Prompt encoding for HunyuanVideo 1, by CLIP-L and Llama 3, and for HunyuanVideo 1.5."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import torch

from comfy.sd1_clip import SD1CheckpointClipModel, SDTokenizer
from comfy.supported_models_base import ClipTarget
from comfy.text.joint_encoder import JointTextEncoder
from comfy.text.llama import LlamaTextModel
from comfy.text.one_chunk import OneChunkTokenizer
from comfy.text.qwen.conversations import ASPECTS, FOR_VIDEO
from comfy.text.tokenizer_files import WantedTokenizer
from comfy.text_encoders.hunyuan_image import HunyuanImageTokenizer, te
from comfy.text_encoders.published_model import PublishedTextModel

BYT5 = "byt5_small"
LLAMA_WIDTH = 4096
LLAMA_START, LLAMA_PAD = 128000, 128258
WANTED = WantedTokenizer("llama", "llama_tokenizer", "NousResearch/Meta-Llama-3.1-8B-Instruct")
PICTURE, PICTURE_MARK = 128257, "<image>"  # of LLaVA, whose Llama this is; other tokenizers of Llama do not know it
USER = (128006, 882, 128007)  # <|start_header_id|>, "user", <|end_header_id|>
END_OF_TURN, BLANK_LINE = 128009, 271
ABOUT = "".join(f"{number}. {aspect}" for number, aspect in enumerate(ASPECTS, 1)).removesuffix(".")
TURN = "<|start_header_id|>{speaker}<|end_header_id|>\n\n{text}<|eot_id|>"
FOR_TEXT = "".join(
    TURN.format(speaker=speaker, text=text)
    for speaker, text in (("system", f"Describe the video by detailing the following aspects: {ABOUT}:"), ("user", "{}"))
)
ABOUT_PICTURE = "".join(
    (
        TURN.format(
            speaker="system",
            text=f"{PICTURE_MARK}\nDescribe the video by detailing the following aspects according to the reference image: {ABOUT}:",
        ),
        "\n\n" + TURN.format(speaker="user", text="{}"),
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    )
)


class LLAMA3Tokenizer(OneChunkTokenizer):
    """Llama's tokenizer: a start token, no end token, filled up to *min_length* tokens."""

    def __init__(
        self,
        embedding_directory: Any = None,
        tokenizer_data: Mapping[str, Any] | None = None,
        min_length: int = 256,
        pad_token: int = LLAMA_PAD,
    ) -> None:
        super().__init__(
            WANTED,
            tokenizer_data,
            embedding_directory=embedding_directory,
            embedding_size=LLAMA_WIDTH,
            has_end_token=False,
            start_token=LLAMA_START,
            pad_token=pad_token,
            min_length=min_length,
        )


class LLAMAModel(PublishedTextModel):
    """Llama's hidden states before its last two layers."""

    MODEL_CLASS, NAME, TOKENS = LlamaTextModel, "llama", {"start": LLAMA_START, "pad": LLAMA_PAD}
    LAYER: ClassVar[tuple[str | list[int], int | None]] = ("hidden", -3)
    SETTINGS = {"layer_norm_hidden_state": False}


class HunyuanVideoTokenizer:
    """Puts prompts into the conversation that HunyuanVideo 1 was trained with; CLIP-L gets them as they are."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        self.clip_l = SDTokenizer(embedding_directory=embedding_directory, tokenizer_data=tokenizer_data)
        self.llama_template = FOR_TEXT
        self.llama = LLAMA3Tokenizer(embedding_directory, tokenizer_data, min_length=1)

    def tokenize_with_weights(
        self,
        text: str,
        return_word_ids: bool = False,
        llama_template: str | None = None,
        image_embeds: torch.Tensor | None = None,
        image_interleave: int = 1,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """{"l": chunks, "llama": one chunk}, in which each of *image_embeds* (pictures x places x width) takes the place of ``<image>``.

        *llama_template* has ``{}`` for the text. Of a picture's places, the diffusion model gets one of *image_interleave*.
        """
        said = (self.llama_template if llama_template is None else llama_template).format(text)
        pictures = iter(() if image_embeds is None else image_embeds)
        chunk: list[tuple[Any, ...]] = []
        for part in said.split(PICTURE_MARK):
            (tokens,) = self.llama.tokenize_with_weights(part, return_word_ids, **kwargs)
            if chunk:
                picture = next(pictures, None)
                mark: Any = PICTURE
                if picture is not None:
                    mark = {"type": "embedding", "data": picture, "original_type": "image", "image_interleave": image_interleave}
                chunk += [(mark, *tokens[0][1:]), *tokens[1:]]  # in place of the start token of what follows
            else:
                chunk += tokens
        return {"l": self.clip_l.tokenize_with_weights(text, return_word_ids, **kwargs), "llama": [chunk]}

    def untokenize(self, token_weight_pair: list[tuple[Any, ...]]) -> list[tuple[tuple[Any, ...], str]]:
        """Pair each (token, weight) of CLIP-L with the token's text."""
        return self.clip_l.untokenize(token_weight_pair)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: files of these text encoders carry no tokenizer."""
        return {}


class HunyuanVideoClipModel(JointTextEncoder):
    """Llama's states of pictures and of what the user says, and CLIP-L's pooled output."""

    def __init__(
        self,
        dtype_llama: torch.dtype | None = None,
        device: Any = "cpu",
        dtype: torch.dtype | None = None,
        model_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        options = {**(model_options or {}), "model_name": "clip_l"}
        self.clip_l = SD1CheckpointClipModel(device=device, dtype=dtype, model_options=options)
        self.llama = LLAMAModel(device=device, dtype=dtype_llama or dtype, model_options=model_options)
        self.dtypes = {part.dtype for part in self.parts().values()}

    def encode_token_weights(self, token_weight_pairs: Mapping[str, Any]) -> tuple[Any, ...]:
        """(states 1 x tokens x width, pooled 1 x width, {"attention_mask"} where some token is padding)."""
        states, _, extra = self.llama.encode_token_weights(token_weight_pairs["llama"])
        said, pictures = places_of([token[0] for token in token_weight_pairs["llama"][0]])
        mask = extra["attention_mask"][:, said]
        others = {name: value for name, value in extra.items() if name != "attention_mask"}
        parts = [*(states[:, picture] for picture in pictures), states[:, said]]
        _, pooled = self.clip_l.encode_token_weights(token_weight_pairs["l"])
        return torch.cat(parts, dim=1), pooled, others if mask.all() else {**others, "attention_mask": mask}


def places_of(tokens: Sequence[Any]) -> tuple[slice, list[slice]]:
    """Where the states of what the user says are among those of *tokens*, and those of pictures that come before, one of so many.

    The user's words begin behind the mark of the speaker and end with that of the turn.
    """
    begin, end, moved, pictures = 0, None, 0, []
    for index, token in enumerate(tokens):
        if isinstance(token, Mapping):
            size = len(token["data"])
            if not begin and token.get("original_type") == "image":
                pictures.append(slice(index + moved, index + moved + size, token.get("image_interleave", 1)))
            moved += size - 1
        elif not torch.is_tensor(token):
            if [one for one in tokens[index : index + len(USER)] if isinstance(one, int)] == list(USER):
                named = index + len(USER)
                begin, end = named - 1 + moved, None
                if named + 1 < len(tokens) and tokens[named] == BLANK_LINE:
                    begin += 2
            elif token == END_OF_TURN and begin and end is None:
                end = index + 1 + moved
    return slice(begin, end), pictures


def hunyuan_video_clip(dtype_llama: torch.dtype | None = None, **ignored: Any) -> Any:
    """A maker of :class:`HunyuanVideoClipModel`. What the models are kept in, their files say."""

    def make(**arguments: Any) -> HunyuanVideoClipModel:
        return HunyuanVideoClipModel(dtype_llama, **arguments)

    return make


def hunyuan_video_target(parts: Collection[str]) -> ClipTarget:
    """Of CLIP-L and Llama 3."""
    return ClipTarget(HunyuanVideoTokenizer, hunyuan_video_clip())


def llama_detect(state_dict: Mapping[str, torch.Tensor], prefix: str = "") -> dict[str, Any]:
    """{"dtype_llama": the dtype of a language model's norms} of *state_dict* below *prefix*; {} where there is none."""
    for name in ("model.norm.weight", "model.layers.0.input_layernorm.weight"):
        if prefix + name in state_dict:
            return {"dtype_llama": state_dict[prefix + name].dtype}
    return {}


class HunyuanVideo15Tokenizer(HunyuanImageTokenizer):
    """Puts prompts into the conversation that HunyuanVideo 1.5 was trained with. An empty one is a blank."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedding_directory, tokenizer_data)
        self.llama_template = FOR_VIDEO

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, *arguments: Any, **kwargs: Any) -> dict[str, Any]:
        """Those of Qwen and, with texts in quotes, of ByT5."""
        return super().tokenize_with_weights(text or " ", return_word_ids, *arguments, **kwargs)


def hunyuan_video_15_target(parts: Collection[str]) -> ClipTarget:
    """Of Qwen2.5-VL, and ByT5 if it is there."""
    return ClipTarget(HunyuanVideo15Tokenizer, te(byt5=BYT5 in parts))
