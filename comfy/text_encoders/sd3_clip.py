"""Prompt encoding for Stable Diffusion 3: any of CLIP-L, CLIP-G and T5-XXL. Other families take its T5-XXL as well."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.model_management
from comfy.families.t5_text import T5Transformer
from comfy.families.t5_text_sizes import T5_XXL
from comfy.sd1_clip import SDClipModel, SDTokenizer
from comfy.sdxl_clip import SDXLClipG, SDXLClipGTokenizer
from comfy.supported_models_base import ClipTarget
from comfy.text.joint_encoder import JointTextEncoder
from comfy.text.one_chunk import NO_LIMIT
from comfy.text.t5_tokenizer import TOKENS, T5Tokenizer
from comfy.text_encoders.published_model import PublishedTextModel

CLIP_L_WIDTH, CLIP_G_WIDTH, T5_WIDTH = 768, 1280, 4096  # of the published models, for what is not there
EMPTY_TOKENS = 77


class T5XXLModel(PublishedTextModel):
    """T5-XXL: the last hidden state, no pooled output. *attention_mask*: padding is masked, and the mask given to the diffusion model."""

    MODEL_CLASS, SIZES, TOKENS, NAME = T5Transformer, T5_XXL, TOKENS, "t5xxl"
    MASKED = False


def t5_xxl_detect(state_dict: Mapping[str, torch.Tensor], prefix: str = "") -> dict[str, torch.dtype]:
    """{"dtype_t5": the dtype that the T5-XXL below *prefix* computes in}; empty without one."""
    norm = state_dict.get(f"{prefix}encoder.final_layer_norm.weight")
    return {} if norm is None else {"dtype_t5": norm.dtype}


class T5XXLTokenizer(T5Tokenizer):
    """T5's tokenizer, padded to CLIP's length."""

    def __init__(
        self,
        embedding_directory: Any = None,
        tokenizer_data: Mapping[str, Any] | None = None,
        min_length: int = EMPTY_TOKENS,
        max_length: int = NO_LIMIT,
    ) -> None:
        super().__init__(embedding_directory, tokenizer_data, min_length, max_length)


class SD3Tokenizer:
    """CLIP-L's, CLIP-G's and T5's tokenizers; results are keyed "g", "l" and "t5xxl".

    Where ``tokenizer_data`` says that the text encoder has no T5 ("parts"), none is looked for, and there are no tokens for it.
    """

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        self.clip_l = SDTokenizer(embedding_directory=embedding_directory, tokenizer_data=tokenizer_data)
        self.clip_g = SDXLClipGTokenizer(embedding_directory=embedding_directory, tokenizer_data=tokenizer_data)
        self.t5xxl = None
        if "t5xxl" in (tokenizer_data or {}).get("parts", ("t5xxl",)):
            self.t5xxl = self._t5_tokenizer(embedding_directory, tokenizer_data)

    @staticmethod
    def _t5_tokenizer(embedding_directory: Any, tokenizer_data: Mapping[str, Any] | None) -> T5Tokenizer:
        return T5XXLTokenizer(embedding_directory, tokenizer_data)

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **kwargs: Any) -> dict[str, Any]:
        """{"g": chunks, "l": chunks, "t5xxl": chunks}, see :meth:`SDTokenizer.tokenize_with_weights`."""
        return {
            "g": self.clip_g.tokenize_with_weights(text, return_word_ids, **kwargs),
            "l": self.clip_l.tokenize_with_weights(text, return_word_ids, **kwargs),
            "t5xxl": [] if self.t5xxl is None else self.t5xxl.tokenize_with_weights(text, return_word_ids, **kwargs),
        }

    def untokenize(self, token_weight_pair: list[tuple[Any, ...]]) -> list[tuple[tuple[Any, ...], str]]:
        """Each (token, weight) of CLIP with the token's text."""
        return self.clip_g.untokenize(token_weight_pair)

    def state_dict(self) -> dict[str, Any]:
        """What a saved text encoder must carry for its tokenizers: nothing."""
        return {}

    def decode(self, token_ids: Any, skip_special_tokens: bool = True) -> str | list[str]:
        """The text of CLIP's vocabulary ids."""
        return self.clip_g.decode(token_ids, skip_special_tokens=skip_special_tokens)


class SD3ClipModel(JointTextEncoder):
    """CLIP-L and CLIP-G side by side, and T5's tokens after them; pooled outputs side by side. What is not there counts as zeros."""

    def __init__(
        self,
        clip_l: bool = True,
        clip_g: bool = True,
        t5: bool = True,
        dtype_t5: torch.dtype | None = None,
        t5_attention_mask: bool = False,
        device: Any = "cpu",
        dtype: torch.dtype | None = None,
        model_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        options = {**(model_options or {}), "model_name": "clip_l"}
        self.clip_l = self.clip_g = self.t5xxl = None
        if clip_l:
            self.clip_l = SDClipModel(
                layer="hidden",
                layer_idx=-2,
                device=device,
                dtype=dtype,
                layer_norm_hidden_state=False,
                return_projected_pooled=False,
                model_options=options,
            )
        if clip_g:
            self.clip_g = SDXLClipG(device=device, dtype=dtype, model_options=model_options)
        if t5:
            self.t5xxl = T5XXLModel(device=device, dtype=dtype_t5 or dtype, model_options=model_options, attention_mask=t5_attention_mask)
        self.t5_attention_mask = t5_attention_mask
        self.dtypes = {part.dtype for part in self.parts().values()}

    def encode_token_weights(self, token_weight_pairs: Mapping[str, Any]) -> tuple[Any, ...]:
        """(hidden states 1 x tokens x width, pooled outputs of both CLIPs 1 x width, extras) for chunks keyed "l", "g" and "t5xxl"."""
        asked = bool(token_weight_pairs["g"] or token_weight_pairs["l"])
        states, pooled = self._clips(token_weight_pairs) if asked else (None, zeros(CLIP_L_WIDTH + CLIP_G_WIDTH))
        extra = {}
        if self.t5xxl is not None:
            t5_states, _, *extras = self.t5xxl.encode_token_weights(token_weight_pairs["t5xxl"])
            if extras:
                extra["attention_mask"] = extras[0]["attention_mask"]
            if states is not None:
                t5_states = torch.cat([_widened(states, t5_states.shape[-1]), t5_states], dim=-2)
            states = t5_states
        if states is None:
            states = zeros(EMPTY_TOKENS, T5_WIDTH)
        return _widened(states, T5_WIDTH if self.t5xxl is None else states.shape[-1]), pooled, extra

    def _clips(self, pairs: Mapping[str, Any]) -> tuple[torch.Tensor | None, torch.Tensor]:
        """(CLIP's states side by side or None, pooled outputs side by side)."""
        states, pooled_l, pooled_g = None, zeros(CLIP_L_WIDTH), zeros(CLIP_G_WIDTH)
        if self.clip_l is not None:
            states, pooled_l, *_ = self.clip_l.encode_token_weights(pairs["l"])
        if self.clip_g is not None:
            states_g, pooled_g, *_ = self.clip_g.encode_token_weights(pairs["g"])
            if states is None:
                states = F.pad(states_g, (CLIP_L_WIDTH, 0))
            else:
                tokens = min(states.shape[1], states_g.shape[1])
                states = torch.cat([states[:, :tokens], states_g[:, :tokens]], dim=-1)
        return states, torch.cat((pooled_l, pooled_g), dim=-1)


def _widened(states: torch.Tensor, width: int) -> torch.Tensor:
    return F.pad(states, (0, width - states.shape[-1])) if width != states.shape[-1] else states


def zeros(*shape: int) -> torch.Tensor:
    """Zeros 1 x *shape*, float32, where conditioning is kept."""
    return torch.zeros((1, *shape), device=comfy.model_management.intermediate_device())


def sd3_clip(clip_l: bool = True, clip_g: bool = True, t5: bool = True, t5_attention_mask: bool = False, **ignored: Any) -> Any:
    """A maker of :class:`SD3ClipModel` of these parts. What T5 is kept in, its file says, so ``dtype_t5`` needs no passing on."""

    def made(**kwargs: Any) -> SD3ClipModel:
        return SD3ClipModel(clip_l=clip_l, clip_g=clip_g, t5=t5, t5_attention_mask=t5_attention_mask, **kwargs)

    return made


def sd3_target(parts: Collection[str]) -> ClipTarget:
    """Of any of CLIP-L, CLIP-G and T5-XXL."""
    return ClipTarget(SD3Tokenizer, sd3_clip("clip_l" in parts, "clip_g" in parts, "t5xxl" in parts))
