"""Prompt encoding for Stable Diffusion XL: CLIP-L and CLIP-G side by side."""

from collections.abc import Mapping
from typing import Any

import torch

from comfy.families.clip_text_config import ClipTextConfig
from comfy.families.weight_source import WeightSource
from comfy.sd1_clip import SD1ClipModel, SDClipModel
from comfy.text.clip_tokenizer import SDTokenizer

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


class SDXLClipModel(torch.nn.Module):
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
        self.dtypes = {dtype} - {None}

    def set_clip_options(self, options: Mapping[str, Any]) -> None:
        """Set options of both text models for the next encoding."""
        self.clip_l.set_clip_options(options)
        self.clip_g.set_clip_options(options)

    def reset_clip_options(self) -> None:
        """Restore both text models' own options."""
        self.clip_l.reset_clip_options()
        self.clip_g.reset_clip_options()

    def encode_token_weights(self, token_weight_pairs: Mapping[str, Any]) -> tuple[Any, ...]:
        """(hidden states, CLIP-G's pooled output) for chunks keyed "g" and "l"."""
        states_g, pooled_g, *_ = self.clip_g.encode_token_weights(token_weight_pairs["g"])
        states_l, *_ = self.clip_l.encode_token_weights(token_weight_pairs["l"])
        tokens = min(states_l.shape[1], states_g.shape[1])
        return torch.cat([states_l[:, :tokens], states_g[:, :tokens]], dim=-1), pooled_g

    def load_weights(self, sources: Mapping[str, WeightSource]) -> None:
        """Weights by text model ("clip_l", "clip_g"), see :meth:`SDClipModel.load_weights`."""
        self.clip_l.load_weights(sources["clip_l"], "clip_l")
        self.clip_g.load_weights(sources["clip_g"], "clip_g")

    def load_sd(self, sd: dict[str, torch.Tensor]) -> tuple[list[str], list[str]]:
        """Load one of the two models from *sd*, told apart by depth; see :meth:`SDClipModel.load_sd`."""
        deepest = f"text_model.encoder.layers.{self.clip_g.num_layers - 1}.mlp.fc1.weight"
        is_g = deepest in sd or "transformer.resblocks.0.ln_1.weight" in sd
        return (self.clip_g if is_g else self.clip_l).load_sd(sd)


class SDXLRefinerClipModel(SD1ClipModel):
    """The refiner's text encoder: CLIP-G alone."""

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: Mapping[str, Any] | None = None) -> None:
        super().__init__(device=device, dtype=dtype, clip_name="g", clip_model=SDXLClipG, model_options=model_options)
