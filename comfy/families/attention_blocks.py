"""Where a UNet's cross-attentions are: blocks by the names and numbers that node authors patch them under."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple


class AttentionBlock(NamedTuple):
    """One transformer block: ``set_model_attn2_replace(patch, name, number, transformer)`` replaces its cross-attention.

    *name* is ``input``, ``middle`` or ``output``, *number* that of the block (always 0 for the middle), *transformer* the place in
    the block. *width* is the number of channels of its queries.
    """

    name: str
    number: int
    transformer: int
    width: int


def cross_attention_blocks(unet_config: Mapping[str, Any]) -> tuple[AttentionBlock, ...]:
    """Every cross-attention of a network, in the order in which adapters' files number them: input, output, middle.

    Reads ``model_channels``, ``channel_mult``, ``num_res_blocks``, ``transformer_depth``, ``transformer_depth_output`` (last block
    first) and ``transformer_depth_middle``. Raises ``ValueError`` for networks of other kinds.
    """
    if "transformer_depth_output" not in unet_config:
        raise ValueError("block names are known for UNets of Stable Diffusion only; this network is of another kind")
    widths = [unet_config["model_channels"] * multiple for multiple in unet_config["channel_mult"]]
    counts: Sequence[int] = unet_config["num_res_blocks"]
    middle = max(0, unet_config.get("transformer_depth_middle") or 0)
    return (
        *_blocks("input", _input_places(counts), unet_config["transformer_depth"], widths),
        *_blocks("output", _output_places(counts), list(reversed(unet_config["transformer_depth_output"])), widths),
        *(AttentionBlock("middle", 0, index, widths[-1]) for index in range(middle)),
    )


def _blocks(name: str, places: Iterator[tuple[int, int]], depths: Sequence[int], widths: Sequence[int]) -> Iterator[AttentionBlock]:
    for (number, level), depth in zip(places, depths, strict=True):
        yield from (AttentionBlock(name, number, index, widths[level]) for index in range(depth))


def _input_places(counts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(number, level) of the residual blocks: the first block takes the latent, and each level ends with one that halves the size."""
    number = 1
    for level, count in enumerate(counts):
        yield from ((number + index, level) for index in range(count))
        number += count + 1


def _output_places(counts: Sequence[int]) -> Iterator[tuple[int, int]]:
    number = 0
    for level, count in reversed(list(enumerate(counts))):
        yield from ((number + index, level) for index in range(count + 1))
        number += count + 1
