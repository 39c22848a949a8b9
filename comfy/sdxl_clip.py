"""Prompt encoding for Stable Diffusion XL: CLIP-L and CLIP-G side by side."""

from collections.abc import Collection, Mapping
from typing import Any

import torch

from comfy.families.clip_text_config import ClipTextConfig
from comfy.sd1_clip import SD1ClipModel, SDClipModel
from comfy.supported_models_base import ClipTarget
from comfy.text.clip_tokenizer import SDTokenizer
from comfy.text.joint_encoder import JointTextEncoder

CLIP_G = ClipTextConfig(
    vocabulary=49408,
    positions=77,
    hidden_size=1280,
    intermediate_size=5120,
    num_layers=32,
    num_heads=20,
    hidden_act="gelu",
    projection=1280,
)


class SDXLClipG(SDClipModel):
    """CLIP-G: the layer before the last without the final norm, projected pooled output, padding with token 0."""

    def __init__(
        self,
        device: Any = "cpu",
        max_length: int = 77,
        freeze: bool = True,
        layer: str = "penultimate",
        layer_idx: int | None = None,
        dtype: torch.dtype | None = None,
        model_options: Mapping[str, Any] | None = None,
    ) -> None:
        penultimate = layer == "penultimate"
        super().__init__(
            device=device,
            max_length=max_length,
            freeze=freeze,
            layer="hidden" if penultimate else layer,
            layer_idx=-2 if penultimate else layer_idx,
            textmodel_json_config=CLIP_G,
            dtype=dtype,
            special_tokens={"start": 49406, "end": 49407, "pad": 0},
            layer_norm_hidden_state=False,
            model_options={**(model_options or {}), "model_name": "clip_g"},
        )


class SDXLClipGTokenizer(SDTokenizer):
    """CLIP's tokenizer with CLIP-G's padding and embedding width."""

    def __init__(
        self, tokenizer_path: str | None = None, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(
            tokenizer_path,
            pad_with_end=False,
            embedding_directory=embedding_directory,
            embedding_size=1280,
            embedding_key="clip_g",
            tokenizer_data=tokenizer_data,
        )


class SDXLTokenizer:
    """Both tokenizers; results are keyed "g" and "l"."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Mapping[str, Any] | None = None) -> None:
        self.clip_l = SDTokenizer(embedding_directory=embedding_directory, tokenizer_data=tokenizer_data)
        self.clip_g = SDXLClipGTokenizer(embedding_directory=embedding_directory, tokenizer_data=tokenizer_data)

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **kwargs: Any) -> dict[str, Any]:
        """{"g": chunks, "l": chunks}, see :meth:`SDTokenizer.tokenize_with_weights`."""
        return {
            "g": self.clip_g.tokenize_with_weights(text, return_word_ids, **kwargs),
            "l": self.clip_l.tokenize_with_weights(text, return_word_ids, **kwargs),
        }

    def untokenize(self, token_weight_pair: list[tuple[Any, ...]]) -> list[tuple[tuple[Any, ...], str]]:
        """Each (token, weight) with the token's text."""
        return self.clip_g.untokenize(token_weight_pair)

    def state_dict(self) -> dict[str, Any]:
        """What a saved text encoder must carry for its tokenizers: nothing."""
        return {}

    def decode(self, token_ids: Any, skip_special_tokens: bool = True) -> str | list[str]:
        """The text of vocabulary ids; for a list of lists one text each."""
        return self.clip_g.decode(token_ids, skip_special_tokens=skip_special_tokens)


class SDXLClipModel(JointTextEncoder):
    """Hidden states of CLIP-L and CLIP-G along the width, pooled output of CLIP-G."""

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.clip_l = SDClipModel(
            layer="hidden",
            layer_idx=-2,
            device=device,
            dtype=dtype,
            layer_norm_hidden_state=False,
            model_options={**(model_options or {}), "model_name": "clip_l"},
        )
        self.clip_g = SDXLClipG(device=device, dtype=dtype, model_options=model_options)
        self.dtypes = {part.dtype for part in self.parts().values()}

    def encode_token_weights(self, token_weight_pairs: Mapping[str, Any]) -> tuple[Any, ...]:
        """(hidden states, CLIP-G's pooled output) for chunks keyed "g" and "l"."""
        states_g, pooled_g, *_ = self.clip_g.encode_token_weights(token_weight_pairs["g"])
        states_l, *_ = self.clip_l.encode_token_weights(token_weight_pairs["l"])
        tokens = min(states_l.shape[1], states_g.shape[1])
        return torch.cat([states_l[:, :tokens], states_g[:, :tokens]], dim=-1), pooled_g


class SDXLRefinerClipModel(SD1ClipModel):
    """The refiner's text encoder: CLIP-G alone."""

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__(device=device, dtype=dtype, clip_name="g", clip_model=SDXLClipG, model_options=model_options)


def sdxl_target(parts: Collection[str]) -> ClipTarget:
    """Of CLIP-L and CLIP-G."""
    return ClipTarget(SDXLTokenizer, SDXLClipModel)


def refiner_target(parts: Collection[str]) -> ClipTarget:
    """Of CLIP-G alone."""
    return ClipTarget(SDXLTokenizer, SDXLRefinerClipModel)
