"""Maps diffusers' names of a Stable Diffusion UNet's weights to the published ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

RESNET = {
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
    "in_layers.0": "norm1",
    "out_layers.0": "norm2",
}
ATTENTION = ("proj_in", "proj_out", "norm")
TRANSFORMER_WITH_BIAS = ("norm1", "norm2", "norm3", "attn1.to_out.0", "attn2.to_out.0", "ff.net.0.proj", "ff.net.2")
TRANSFORMER_WITHOUT_BIAS = tuple(f"attn{number}.to_{part}" for number in (1, 2) for part in "qkv")
OUTSIDE_BLOCKS = {
    "label_emb.0.0": "class_embedding.linear_1",
    "label_emb.0.2": "class_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
}
VECTOR_NAMES = {"label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2"}

# The same under the names that packs read, each weight by itself.
UNET_MAP_RESNET = {f"{published}.{leaf}": f"{diffusers}.{leaf}" for published, diffusers in RESNET.items() for leaf in ("weight", "bias")}
UNET_MAP_ATTENTIONS = {f"{part}.{leaf}" for part in ATTENTION for leaf in ("weight", "bias")}
TRANSFORMER_BLOCKS = {f"{part}.{leaf}" for part in TRANSFORMER_WITH_BIAS for leaf in ("weight", "bias")} | {
    f"{part}.weight" for part in TRANSFORMER_WITHOUT_BIAS
}
UNET_MAP_BASIC = {
    (f"{published}.{leaf}", f"{diffusers}.{leaf}")
    for names in (OUTSIDE_BLOCKS, VECTOR_NAMES)
    for published, diffusers in names.items()
    for leaf in ("weight", "bias")
}


def unet_to_diffusers(unet_config: Mapping[str, Any]) -> dict[str, str]:
    """{diffusers' weight name: published name without ``diffusion_model.``}; empty for networks of other kinds.

    Reads ``num_res_blocks``, ``channel_mult``, ``transformer_depth``, ``transformer_depth_middle``, ``transformer_depth_output``.
    """
    if "num_res_blocks" not in unet_config:
        return {}
    counts = list(unet_config["num_res_blocks"])
    levels = len(unet_config["channel_mult"])
    depths = list(unet_config["transformer_depth"])
    output_depths = list(unet_config["transformer_depth_output"])
    names: dict[str, str] = {}
    block = 1
    for level in range(levels):
        for index in range(counts[level]):
            where = f"down_blocks.{level}"
            names.update(_stage(f"{where}.resnets.{index}", f"{where}.attentions.{index}", f"input_blocks.{block}", depths.pop(0)))
            block += 1
        names.update(_with_bias(f"down_blocks.{level}.downsamplers.0.conv", f"input_blocks.{block}.0.op"))
        block += 1
    middle = unet_config.get("transformer_depth_middle") or 0
    if middle >= 0:
        names.update(_transformer("mid_block.attentions.0", "middle_block.1", middle))
    for index, place in enumerate((0, 2)[: 2 if middle >= 0 else middle + 2]):
        names.update(_resnet(f"mid_block.resnets.{index}", f"middle_block.{place}"))
    block = 0
    for level, count in enumerate(reversed(counts)):
        for index in range(count + 1):
            depth = output_depths.pop()
            where = f"up_blocks.{level}"
            names.update(_stage(f"{where}.resnets.{index}", f"{where}.attentions.{index}", f"output_blocks.{block}", depth))
            if index == count:
                names.update(_with_bias(f"{where}.upsamplers.0.conv", f"output_blocks.{block}.{2 if depth else 1}.conv"))
            block += 1
    for published, diffusers in OUTSIDE_BLOCKS.items():
        names.update(_with_bias(diffusers, published))
    return names


def _with_bias(name: str, published: str) -> Iterator[tuple[str, str]]:
    return ((f"{name}.{kind}", f"{published}.{kind}") for kind in ("weight", "bias"))


def _resnet(name: str, published: str) -> Iterator[tuple[str, str]]:
    for inner, outer in RESNET.items():
        yield from _with_bias(f"{name}.{outer}", f"{published}.{inner}")


def _transformer(name: str, published: str, depth: int) -> Iterator[tuple[str, str]]:
    for part in ATTENTION:
        yield from _with_bias(f"{name}.{part}", f"{published}.{part}")
    for index in range(depth):
        inner: Sequence[str] = TRANSFORMER_WITH_BIAS
        for part in inner:
            yield from _with_bias(f"{name}.transformer_blocks.{index}.{part}", f"{published}.transformer_blocks.{index}.{part}")
        for part in TRANSFORMER_WITHOUT_BIAS:
            place = f"transformer_blocks.{index}.{part}.weight"
            yield f"{name}.{place}", f"{published}.{place}"


def _stage(resnet: str, attention: str, published: str, depth: int) -> Iterator[tuple[str, str]]:
    yield from _resnet(resnet, f"{published}.0")
    if depth > 0:
        yield from _transformer(attention, f"{published}.1", depth)
