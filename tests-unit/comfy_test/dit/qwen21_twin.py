"""diffusers' own pipeline of Qwen-Image 2.1 with the weights of small files: what pictures are held against."""

import types

import torch
from diffusers import AutoencoderKLQwenImage21, FlowMatchEulerDiscreteScheduler, QwenImage21Pipeline, QwenImage21Transformer2DModel
from qwen_tokenizer import MARKS, VOCABULARY, qwen_tokenizer_json
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from comfy.images.wan_vae import published_levels

LANGUAGE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 128,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True},
}
EYES = {"depth": 27, "hidden_size": 64, "intermediate_size": 48, "out_hidden_size": 48, "num_position_embeddings": 16}
GREY = [0.5] * 3


class Processor:
    """Stands for transformers' processor of Qwen3-VL, which needs torchvision: its tokenizer, and its patches of pictures."""

    def __init__(self):
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(qwen_tokenizer_json()))
        size = {"shortest_edge": 1024, "longest_edge": 10**7}
        self.pictures = Qwen2VLImageProcessorPil(patch_size=16, size=size, image_mean=GREY, image_std=GREY)

    def apply_chat_template(self, messages, tokenize, return_dict):
        return [self.tokenizer.encode("".join(f"<|im_start|>{one['role']}\n{one['content'][0]['text']}<|im_end|>\n" for one in messages))]

    def __call__(self, text, images=None, **ignored):
        seen = self.pictures(images=images, return_tensors="pt") if images else {}
        (spoken,) = text
        for grid in seen.get("image_grid_thw", ()):
            spoken = spoken.replace("<|image_pad|>", "\x00" * int(grid.prod() // 4), 1)
        ids = torch.tensor([self.tokenizer.encode(spoken.replace("\x00", "<|image_pad|>"))])
        kinds = (ids == MARKS["<|image_pad|>"]).int()
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": kinds}
        given |= {name: seen[name] for name in ("pixel_values", "image_grid_thw") if images}
        return types.SimpleNamespace(to=lambda device: types.SimpleNamespace(**given))


def pipeline(text_tensors, network_tensors, vae_tensors):
    """The pipeline. *network_tensors* have a gate and what it gates apart; *vae_tensors* have the published names."""
    text = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=LANGUAGE, vision_config=EYES)).eval()
    assert text.load_state_dict(text_tensors, strict=False).missing_keys == ["lm_head.weight"]
    vae = AutoencoderKLQwenImage21(base_dim=8, decoder_base_dim=12).eval()
    flat = {name: value.squeeze(2) if value.ndim == 5 else value for name, value in published_levels(vae_tensors).items()}
    vae.load_state_dict(flat)
    sizes = {"num_layers": 2, "attention_head_dim": 32, "num_attention_heads": 2, "context_in_dim": 48, "axes_dims_rope": (4, 14, 14)}
    network = QwenImage21Transformer2DModel(**sizes).eval()
    network.load_state_dict(network_tensors)
    made = QwenImage21Pipeline(FlowMatchEulerDiscreteScheduler(shift=1.0), vae, text, Processor(), network)
    made.set_progress_bar_config(disable=True)
    return made
