"""Convolutions whose weight is a direction and a length for each of its rows, as vocoders and autoencoders of sound have them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

# What torch's newer weight norm calls the two.
NEWER_NAMES = {"parametrizations.weight.original1": "weight_v", "parametrizations.weight.original0": "weight_g"}


def older_name(name: str) -> str:
    """The name of a tensor with the older names of a weight's two parts."""
    for newer, older in NEWER_NAMES.items():
        name = name.replace(newer, older)
    return name


class Normed(torch.nn.Module):
    """What both kinds share: ``weight_v`` and ``weight_g``, instead of a weight."""

    weight: Any
    weight_v: torch.Tensor
    weight_g: torch.Tensor
    norm_dim = 0  # the dimension whose entries have a length each

    def part(self, dim: int = 0) -> None:
        """Put the two parts in the weight's place, if they are not there yet."""
        if "weight" in self._parameters:
            weight = self._parameters.pop("weight")
            assert weight is not None
            self.norm_dim = dim
            shape = [size if place == dim else 1 for place, size in enumerate(weight.shape)]
            self.weight_g = torch.nn.Parameter(torch.empty(shape, device=weight.device), requires_grad=False)
            self.weight_v = torch.nn.Parameter(weight.detach(), requires_grad=False)

    def normed(self, like: torch.Tensor) -> torch.Tensor:
        """The weight where and as *like* is, made anew at each call, so that nothing is kept twice."""
        return torch._weight_norm(self.weight_v.to(like), self.weight_g.to(like), self.norm_dim)


class NormedConvolution(Normed, torch.nn.Conv1d):
    """Along one dimension."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name
        """B x in x T to B x out x T'."""
        bias = None if self.bias is None else self.bias.to(input)
        return F.conv1d(input, self.normed(input), bias, self.stride, self.padding, self.dilation, self.groups)


class NormedTransposed(Normed, torch.nn.ConvTranspose1d):
    """The transposed one."""

    def forward(self, input: torch.Tensor, output_size: Any = None) -> torch.Tensor:  # noqa: A002 - torch's name
        """B x in x T to B x out x T'."""
        bias = None if self.bias is None else self.bias.to(input)
        padding: Any = self.padding
        return F.conv_transpose1d(input, self.normed(input), bias, self.stride, padding)
