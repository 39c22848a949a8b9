"""BiRefNet, which tells what a picture shows from its background: transformers' Swin at two sizes, and a decoder that looks at the picture
again at each size.

P. Zheng et al., "Bilateral Reference for High-Resolution Dichotomous Image Segmentation" (2024). Shapes: B batch, C channels, H and W.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from transformers import SwinBackbone, SwinConfig

import comfy.ops
from comfy.families.sd_unet_config import count_blocks
from comfy.ldm.modules.batch_norm import FixedBatchNorm
from comfy.ops import cast_bias_weight

Shape = tuple[int, ...]
STAGES = 4
MARK = "bb.layers.1.blocks.0.attn.relative_position_index"
KERNELS = (1, 3, 7)  # of the layers that look around, beside a first one of 1
IN_FLOAT32 = "bias_table"  # weights whose names end so are added to scores
TRAINING = ("decoder.conv_ms_spvn_", "decoder.gdt_convs_pred_")  # parts that training alone compares with
COMPUTED = ("relative_position_index", "num_batches_tracked")
TRUNK_NAMES = (
    ("bb.patch_embed.proj.", "bb.swin.embeddings.patch_embeddings.projection."),
    ("bb.patch_embed.norm.", "bb.swin.embeddings.norm."),
    ("bb.layers.", "bb.swin.encoder.layers."),
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    (".attn.proj.", ".attention.o_proj."),
    (".attn.relative_position_bias_table", ".attention.relative_position_bias.relative_position_bias_table"),
)


@dataclass(frozen=True, slots=True)
class BiRefNetSizes:
    """*width* of the first stage, *depths* and *heads* of each, *window* of attention; *inner* and *around*: channels of the decoder's
    blocks and of their layers that look around; *edge*: those of what attends to edges."""

    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    inner: int
    around: int
    edge: int


def read_birefnet_sizes(shapes: Mapping[str, Shape]) -> BiRefNetSizes | None:
    """Those of a file with tensors of *shapes*, None for one that is no BiRefNet."""
    if MARK not in shapes:
        return None
    tables = [shapes[f"bb.layers.{stage}.blocks.0.attn.relative_position_bias_table"] for stage in range(STAGES)]
    return BiRefNetSizes(
        width=shapes["bb.patch_embed.proj.weight"][0],
        depths=tuple(count_blocks(shapes, f"bb.layers.{stage}.blocks.{{}}.") for stage in range(STAGES)),
        heads=tuple(table[1] for table in tables),
        window=(round(tables[0][0] ** 0.5) + 1) // 2,
        inner=shapes["decoder.decoder_block1.conv_in.weight"][0],
        around=shapes["decoder.decoder_block1.dec_att.aspp1.bn.weight"][0],
        edge=shapes["decoder.gdt_convs_4.0.weight"][0],
    )


def parameters_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The parameters for the *tensors* of a file, as views of these."""
    found: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        name = parameter_name(key)
        if name is None:
            continue
        if ".attn.qkv." in name:
            stem, last = name.split(".attn.qkv.")
            found |= {f"{stem}.attention.{part}_proj.{last}": rows for part, rows in zip("qkv", tensor.chunk(3))}
        else:
            found[name] = tensor
    return found


def parameter_name(key: str) -> str | None:
    """What the tensor *key* is called here, but for those that are taken apart; None for one that computes no mask."""
    if key.startswith(TRAINING) or key.endswith(COMPUTED):
        return None
    if key.startswith("bb.norm"):
        number, _, last = key.removeprefix("bb.norm").partition(".")
        return f"bb.hidden_states_norms.stage{int(number) + 1}.{last}"
    if key.startswith("bb."):
        for theirs, ours in TRUNK_NAMES:
            key = key.replace(theirs, ours)
    return key


class DeformableConv2d(torch.nn.Module):
    """A convolution that looks beside its cells, where the picture says, and as much as it says (X. Zhu et al., 2019)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        padding = kernel_size // 2
        self.offset_conv = torch.nn.Conv2d(in_channels, 2 * kernel_size**2, kernel_size, padding=padding)
        self.modulator_conv = torch.nn.Conv2d(in_channels, kernel_size**2, kernel_size, padding=padding)
        self.regular_conv = torch.nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x H x W. One after the other of the kernel's places is added, so that memory is that of one."""
        layer: Any = self.regular_conv
        offsets, shares = self.offset_conv(x).unflatten(1, (-1, 2)), 2 * self.modulator_conv(x).sigmoid()
        weight = cast_bias_weight(layer, x)[0].flatten(2)
        height, width = x.shape[-2:]
        side, middle = layer.kernel_size[0], layer.kernel_size[0] // 2
        rows = torch.arange(height, device=x.device, dtype=torch.float32)[:, None]
        columns = torch.arange(width, device=x.device, dtype=torch.float32)
        total = x.new_zeros(())
        for place in range(side**2):
            down, right = offsets[:, place].float().unbind(1)
            down, right = rows + place // side - middle + down, columns + place % side - middle + right
            grid = torch.stack([(2 * right + 1) / width, (2 * down + 1) / height], dim=-1) - 1
            seen = F.grid_sample(x, grid.to(x.dtype), mode="bilinear", padding_mode="zeros", align_corners=False)
            total = total + torch.einsum("oc,bchw->bohw", weight[..., place], seen * shares[:, place : place + 1])
        return total


class _Around(torch.nn.Module):
    """One such convolution, normed and rectified."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.atrous_conv = DeformableConv2d(in_channels, out_channels, kernel_size)
        self.bn = FixedBatchNorm(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.atrous_conv(x)))


class ASPPDeformable(torch.nn.Module):
    """Several of them side by side, and the picture's mean."""

    def __init__(self, channels: int, around: int) -> None:
        super().__init__()
        self.aspp1 = _Around(channels, around, 1)
        self.aspp_deforms = torch.nn.ModuleList(_Around(channels, around, kernel) for kernel in KERNELS)
        pooled = (torch.nn.AdaptiveAvgPool2d(1), torch.nn.Conv2d(channels, around, 1, bias=False), FixedBatchNorm(around), torch.nn.ReLU())
        self.global_avg_pool = torch.nn.Sequential(*pooled)
        self.conv1 = torch.nn.Conv2d(around * (2 + len(KERNELS)), channels, 1, bias=False)
        self.bn1 = FixedBatchNorm(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x H x W."""
        mean = self.global_avg_pool(x).expand(-1, -1, *x.shape[-2:])
        parts = [self.aspp1(x), *(layer(x) for layer in self.aspp_deforms), mean]
        return F.relu(self.bn1(self.conv1(torch.cat(parts, dim=1))))


class BasicDecBlk(torch.nn.Module):
    """A block of the decoder."""

    def __init__(self, in_channels: int, out_channels: int, sizes: BiRefNetSizes) -> None:
        super().__init__()
        self.conv_in = torch.nn.Conv2d(in_channels, sizes.inner, 3, padding=1)
        self.bn_in = FixedBatchNorm(sizes.inner)
        self.dec_att = ASPPDeformable(sizes.inner, sizes.around)
        self.conv_out = torch.nn.Conv2d(sizes.inner, out_channels, 3, padding=1)
        self.bn_out = FixedBatchNorm(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x H x W."""
        return self.bn_out(self.conv_out(self.dec_att(F.relu(self.bn_in(self.conv_in(x))))))


class Decoder(torch.nn.Module):
    """From the smallest features to a mask of the picture's size. At each size it sees the picture, cut into parts of that size."""

    def __init__(self, channels: tuple[int, ...], sizes: BiRefNetSizes) -> None:
        super().__init__()
        seen = [channels[0] // 8, *(count // 8 for count in channels)]  # channels of the picture's parts, the smallest size first
        for number, width in zip((5, 4, 3, 2, 1), seen):
            block = torch.nn.Module()
            block.conv1 = torch.nn.Conv2d(3 * (4**number if number > 1 else 1), sizes.inner, 3, padding=1)
            block.conv_out = torch.nn.Conv2d(sizes.inner, width, 3, padding=1)
            setattr(self, f"ipt_blk{number}", block)
        out = (*channels[1:], channels[3] // 2)
        for number, before, extra, after in zip((4, 3, 2, 1), channels, seen, out):
            setattr(self, f"decoder_block{number}", BasicDecBlk(before + extra, after, sizes))
        for number, width in zip((4, 3, 2), channels[1:]):
            block = torch.nn.Module()
            block.conv = torch.nn.Conv2d(width, width, 1)
            setattr(self, f"lateral_block{number}", block)
            edges = torch.nn.Sequential(torch.nn.Conv2d(width, sizes.edge, 3, padding=1), FixedBatchNorm(sizes.edge), torch.nn.ReLU())
            setattr(self, f"gdt_convs_{number}", edges)
            setattr(self, f"gdt_convs_attn_{number}", torch.nn.Sequential(torch.nn.Conv2d(sizes.edge, 1, 1)))
        self.conv_out1 = torch.nn.Sequential(torch.nn.Conv2d(channels[3] // 2 + seen[4], 1, 1))

    def forward(self, picture: torch.Tensor, features: list[torch.Tensor]) -> torch.Tensor:
        """B x 1 x H x W before the sigmoid. *features*: of four sizes, the largest first."""
        x = features[-1]
        for number, larger in zip((4, 3, 2, 1), (*reversed(features[:-1]), None)):
            x = getattr(self, f"decoder_block{number}")(self._with_picture(number + 1, x, picture))
            if larger is None:
                x = _resized(x, picture.shape[-2:])
                continue
            edges = getattr(self, f"gdt_convs_{number}")(x)
            x = _resized(x * getattr(self, f"gdt_convs_attn_{number}")(edges).sigmoid(), larger.shape[-2:])
            x = x + getattr(self, f"lateral_block{number}").conv(larger)
        return self.conv_out1(self._with_picture(1, x, picture))

    def _with_picture(self, number: int, x: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        block = getattr(self, f"ipt_blk{number}")
        height, width = x.shape[-2:]
        parts = picture.unflatten(3, (-1, width)).unflatten(2, (-1, height)).permute(0, 4, 2, 1, 3, 5)
        return torch.cat([x, block.conv_out(block.conv1(parts.flatten(1, 3)))], dim=1)


class BiRefNet(torch.nn.Module):
    """Pictures to masks. Parameters are on the meta device until they are loaded; sides are multiples of 64."""

    bb: Any

    def __init__(self, sizes: BiRefNetSizes, operations: Any = comfy.ops.manual_cast) -> None:
        super().__init__()
        arguments: dict[str, Any] = {
            "embed_dim": sizes.width,
            "depths": list(sizes.depths),
            "num_heads": list(sizes.heads),
            "window_size": sizes.window,
            "out_features": [f"stage{stage + 1}" for stage in range(STAGES)],
            "attn_implementation": "sdpa",
        }
        channels = tuple(2 * sizes.width * 2**stage for stage in reversed(range(STAGES)))
        with torch.device("meta"):
            self.bb = SwinBackbone(SwinConfig(**arguments))
            self.squeeze_module = torch.nn.Sequential(BasicDecBlk(sum(channels), channels[0], sizes))
            self.decoder = Decoder(channels, sizes)
        self.bb.swin.layernorm = torch.nn.Identity()  # of its last stage alone, which has a norm among the stages'
        for part in self.bb.modules():
            if hasattr(part, "_create_relative_position_index"):
                part.relative_position_index = part._create_relative_position_index().view(-1)
        self.eval().requires_grad_(False)
        comfy.ops.adopt_layers(self, operations)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """B x 3 x H x W to B x 1 x H x W, before the sigmoid."""
        size = pixel_values.shape[-2:]
        whole = self.bb(pixel_values).feature_maps
        half = self.bb(_resized(pixel_values, (size[0] // 2, size[1] // 2))).feature_maps
        features = [torch.cat([large, _resized(small, large.shape[-2:])], dim=1) for large, small in zip(whole, half)]
        last = features[-1]
        context = [_resized(one, last.shape[-2:]) for one in features[:-1]]
        features[-1] = self.squeeze_module(torch.cat([*context, last], dim=1))
        return self.decoder(pixel_values, features)


def _resized(x: torch.Tensor, size: Any) -> torch.Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)
