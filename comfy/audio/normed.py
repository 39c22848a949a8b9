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

    def part(self) -> None:
        """Put the two parts in the weight's place, if they are not there yet."""
        if "weight" in self._parameters:
            weight = self._parameters.pop("weight")
            assert weight is not None
            self.weight_g = torch.nn.Parameter(torch.empty((len(weight), 1, 1), device=weight.device), requires_grad=False)
            self.weight_v = torch.nn.Parameter(weight.detach(), requires_grad=False)

    def normed(self) -> torch.Tensor:
        """The weight, made anew at each call, so that nothing is kept twice."""
        return torch._weight_norm(self.weight_v, self.weight_g, 0)


class NormedConvolution(Normed, torch.nn.Conv1d):
    """Along one dimension."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's name
        """B x in x T to B x out x T'."""
        return F.conv1d(input, self.normed(), self.bias, self.stride, self.padding, self.dilation)


class NormedTransposed(Normed, torch.nn.ConvTranspose1d):
    """The transposed one."""

    def forward(self, input: torch.Tensor, output_size: Any = None) -> torch.Tensor:  # noqa: A002 - torch's name
        """B x in x T to B x out x T'."""
        return F.conv_transpose1d(input, self.normed(), self.bias, self.stride, self.padding)
