"""Small ControlNet files, in the published names and in diffusers', from one set of random weights."""

import functools

import torch
from diffusers.models.controlnets.controlnet import ControlNetModel

WIDTHS = (32, 64)
SIZES = {
    "block_out_channels": WIDTHS,
    "layers_per_block": 1,
    "cross_attention_dim": 48,
    "norm_num_groups": 32,
    "attention_head_dim": 4,
    "conditioning_embedding_out_channels": (16, 32, 96, 256),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
}
VECTOR = {"addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 96}
HEADS = {"keepwarm.config": '{"unet": {"num_heads": 4}}'}


@functools.cache
def reference(vector: bool = False) -> ControlNetModel:
    """diffusers' own network with random weights, zero convolutions included."""
    network = ControlNetModel(**SIZES, **(VECTOR if vector else {})).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return network


def diffusers_names(vector: bool = False) -> dict[str, torch.Tensor]:
    """The weights in diffusers' names."""
    return {name: tensor.clone() for name, tensor in reference(vector).state_dict().items()}


def published_names(vector: bool = False) -> dict[str, torch.Tensor]:
    """The weights in the published names."""
    renamed = {}
    for name, tensor in diffusers_names(vector).items():
        renamed["control_model." + _published(name)] = tensor
    return renamed


def _published(name: str) -> str:
    places = {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "controlnet_mid_block": "middle_block_out.0",
        "controlnet_cond_embedding.conv_in": "input_hint_block.0",
        "controlnet_cond_embedding.conv_out": "input_hint_block.14",
        "down_blocks.0.resnets.0": "input_blocks.1.0",
        "down_blocks.0.attentions.0": "input_blocks.1.1",
        "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
        "down_blocks.1.resnets.0": "input_blocks.3.0",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
    }
    places |= {f"controlnet_down_blocks.{index}": f"zero_convs.{index}.0" for index in range(4)}
    places |= {f"controlnet_cond_embedding.blocks.{index}": f"input_hint_block.{2 * index + 2}" for index in range(6)}
    layers = {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "time_emb_proj": "emb_layers.1",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "conv_shortcut": "skip_connection",
    }
    place = max((place for place in places if name.startswith(place + ".")), key=len)
    rest = name[len(place) + 1 :]
    if ".resnets." in place:
        layer, _, leaf = rest.partition(".")
        rest = f"{layers[layer]}.{leaf}"
    return f"{places[place]}.{rest}"
