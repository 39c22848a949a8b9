"""Renames CLIP text weights to open_clip's names, to save checkpoints of families that use those."""

from collections.abc import Mapping

import torch

_LAYER_NAMES = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_TOP_NAMES = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}


def to_open_clip(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """*state_dict* (transformers' names, no prefix) under open_clip's names; query, key and value are fused, which copies them.

    Tensors that open_clip has no name for are left out.
    """
    renamed: dict[str, torch.Tensor] = {}
    for key, tensor in state_dict.items():
        if key in _TOP_NAMES:
            renamed[_TOP_NAMES[key]] = tensor
        elif key == "text_projection.weight":
            renamed["text_projection"] = tensor.transpose(0, 1).contiguous()
        elif key.startswith("text_model.encoder.layers."):
            number, rest = key.removeprefix("text_model.encoder.layers.").split(".", 1)
            block, (layer, leaf) = f"transformer.resblocks.{number}", rest.rsplit(".", 1)
            if layer in _LAYER_NAMES:
                renamed[f"{block}.{_LAYER_NAMES[layer]}.{leaf}"] = tensor
            elif layer == "self_attn.q_proj":
                parts = [state_dict[key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
                renamed[f"{block}.attn.in_proj_{leaf}"] = torch.cat(parts)
    return renamed
