"""Small autoencoders of Wan 2.1's and Qwen-Image's kind with random weights in the published names."""

import math

import torch
from safetensors.torch import save_file


def wan_vae_layout(width=8, channels=3):
    """{published name: shape} of an autoencoder with *width* channels at full resolution, for pictures of *channels*."""
    shapes = {}

    def conv(name, inner, outer, *kernel):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outer, inner, *kernel), (outer,)

    def block(name, inner, outer):
        shapes[f"{name}.residual.0.gamma"] = (inner, 1, 1, 1)
        conv(f"{name}.residual.2", inner, outer, 3, 3, 3)
        shapes[f"{name}.residual.3.gamma"] = (outer, 1, 1, 1)
        conv(f"{name}.residual.6", outer, outer, 3, 3, 3)
        if inner != outer:
            conv(f"{name}.shortcut", inner, outer, 1, 1, 1)

    def middle(half, inner):
        block(f"{half}.middle.0", inner, inner)
        shapes[f"{half}.middle.1.norm.gamma"] = (inner, 1, 1)
        conv(f"{half}.middle.1.to_qkv", inner, 3 * inner, 1, 1)
        conv(f"{half}.middle.1.proj", inner, inner, 1, 1)
        block(f"{half}.middle.2", inner, inner)

    def head(half, inner, outer):
        shapes[f"{half}.head.0.gamma"] = (inner, 1, 1, 1)
        conv(f"{half}.head.2", inner, outer, 3, 3, 3)

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
    return shapes


def wan_vae_tensors(seed=0, **sizes):
    """Values for such an autoencoder, float32."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in wan_vae_layout(**sizes).items():
        value = torch.randn(shape, generator=generator)
        tensors[name] = (
            1 + value * 0.1 if name.endswith("gamma") else value * math.prod(shape[1:]) ** -0.5 * (0.1 if len(shape) == 1 else 1)
        )
    return tensors


def wan_vae_file(path, seed=0, **sizes):
    """*path*, after such an autoencoder was written there."""
    save_file(wan_vae_tensors(seed, **sizes), str(path))
    return str(path)
