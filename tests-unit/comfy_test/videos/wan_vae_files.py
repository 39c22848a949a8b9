"""Small autoencoders of the kinds of Wan 2.1 (and Qwen-Image) and of Wan 2.2 with random weights in the published names."""

import math

import torch
from safetensors.torch import save_file


class Layout:
    """{published name: shape}, part by part."""

    def __init__(self, kernel=(3, 3, 3)):
        self.shapes, self.kernel = {}, kernel

    def conv(self, name, inner, outer, *kernel):
        self.shapes[f"{name}.weight"], self.shapes[f"{name}.bias"] = (outer, inner, *kernel), (outer,)

    def block(self, name, inner, outer):
        self.shapes[f"{name}.residual.0.gamma"] = (inner, 1, 1, 1)
        self.conv(f"{name}.residual.2", inner, outer, *self.kernel)
        self.shapes[f"{name}.residual.3.gamma"] = (outer, 1, 1, 1)
        self.conv(f"{name}.residual.6", outer, outer, *self.kernel)
        if inner != outer:
            self.conv(f"{name}.shortcut", inner, outer, 1, 1, 1)

    def middle(self, half, inner):
        self.block(f"{half}.middle.0", inner, inner)
        self.shapes[f"{half}.middle.1.norm.gamma"] = (inner, 1, 1)
        self.conv(f"{half}.middle.1.to_qkv", inner, 3 * inner, 1, 1)
        self.conv(f"{half}.middle.1.proj", inner, inner, 1, 1)
        self.block(f"{half}.middle.2", inner, inner)

    def head(self, half, inner, outer):
        self.shapes[f"{half}.head.0.gamma"] = (inner, 1, 1, 1)
        self.conv(f"{half}.head.2", inner, outer, *self.kernel)


def wan_vae_layout(width=8, channels=3):
    """The layout of an autoencoder of Wan 2.1's with *width* channels at full resolution, for pictures of *channels*."""
    layout = Layout()
    conv, block, middle, head = layout.conv, layout.block, layout.middle, layout.head
    conv("encoder.conv1", channels, width, 3, 3, 3)
    number, inner = 0, width
    for level, outer in enumerate((width, 2 * width, 4 * width, 4 * width)):
        for _ in range(2):
            block(f"encoder.downsamples.{number}", inner, outer)
            number, inner = number + 1, outer
        if level < 3:
            conv(f"encoder.downsamples.{number}.resample.1", outer, outer, 3, 3)
            if level:
                conv(f"encoder.downsamples.{number}.time_conv", outer, outer, 3, 1, 1)
            number += 1
    middle("encoder", 4 * width)
    head("encoder", 4 * width, 32)
    conv("conv1", 32, 32, 1, 1, 1)
    conv("conv2", 16, 16, 1, 1, 1)
    conv("decoder.conv1", 16, 4 * width, 3, 3, 3)
    middle("decoder", 4 * width)
    number = 0
    for level, (inner, outer) in enumerate(((4, 4), (2, 4), (2, 2), (1, 1))):
        for part in range(3):
            block(f"decoder.upsamples.{number}", (inner if part == 0 else outer) * width, outer * width)
            number += 1
        if level < 3:
            conv(f"decoder.upsamples.{number}.resample.1", outer * width, outer * width // 2, 3, 3)
            if level < 2:
                conv(f"decoder.upsamples.{number}.time_conv", outer * width, 2 * outer * width, 3, 1, 1)
            number += 1
    head("decoder", width, channels)
    return layout.shapes


def wan22_vae_layout(width=8, decoder_width=12):
    """The layout of one of Wan 2.2's, with *width* channels of the encoder and *decoder_width* of the decoder at full resolution."""
    layout = Layout()
    inner = width
    layout.conv("encoder.conv1", 12, width, 3, 3, 3)
    for level, outer in enumerate((width, 2 * width, 4 * width, 4 * width)):
        name = f"encoder.downsamples.{level}.downsamples"
        for part in range(2):
            layout.block(f"{name}.{part}", inner, outer)
            inner = outer
        if level < 3:
            layout.conv(f"{name}.2.resample.1", outer, outer, 3, 3)
        if level in (1, 2):
            layout.conv(f"{name}.2.time_conv", outer, outer, 3, 1, 1)
    layout.middle("encoder", inner)
    layout.head("encoder", inner, 96)
    layout.conv("conv1", 96, 96, 1, 1, 1)
    layout.conv("conv2", 48, 48, 1, 1, 1)
    inner = 4 * decoder_width
    layout.conv("decoder.conv1", 48, inner, 3, 3, 3)
    layout.middle("decoder", inner)
    for level, outer in enumerate((4 * decoder_width, 4 * decoder_width, 2 * decoder_width, decoder_width)):
        name = f"decoder.upsamples.{level}.upsamples"
        for part in range(3):
            layout.block(f"{name}.{part}", inner, outer)
            inner = outer
        if level < 3:
            layout.conv(f"{name}.3.resample.1", outer, outer, 3, 3)
        if level < 2:
            layout.conv(f"{name}.3.time_conv", outer, 2 * outer, 3, 1, 1)
    layout.head("decoder", inner, 12)
    return layout.shapes


def wan_vae_tensors(seed=0, layout=wan_vae_layout, **sizes):
    """Values for such an autoencoder, float32."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in layout(**sizes).items():
        value = torch.randn(shape, generator=generator)
        tensors[name] = (
            1 + value * 0.1 if name.endswith("gamma") else value * math.prod(shape[1:]) ** -0.5 * (0.1 if len(shape) == 1 else 1)
        )
    return tensors


def wan_vae_file(path, seed=0, **sizes):
    """*path*, after such an autoencoder was written there."""
    save_file(wan_vae_tensors(seed, **sizes), str(path))
    return str(path)
