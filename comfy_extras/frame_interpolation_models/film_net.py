"""FILM, frame interpolation for large motion (Reda et al., ECCV 2022), in the weight names of its port to torch.

Both frames are looked at in several sizes (a pyramid, whole pictures first). How pixels move is told from coarse to fine; then both frames,
moved towards the time asked for, become one. Shapes: B batch, C features, H and W rows and columns of a level.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ops
from comfy.families.sd_unet_config import count_blocks

SLOPE = 0.2
BYTES_PER_VALUE = 1700  # of working memory for each pixel and byte of a value, as ComfyUI counts it
Pyramid = list[torch.Tensor]
Seen = tuple[Pyramid, Pyramid]  # pictures of all sizes, and their features
Cache = Mapping[str, Any]


class FilmConv2d(torch.nn.Module):
    """A convolution that keeps the sides, and a leaky ReLU if asked for."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        activation: bool = True,
        operations: Any = comfy.ops.disable_weight_init,
        **kept: Any,
    ) -> None:
        super().__init__()
        self.even_pad, self.activation = size % 2 == 0, activation
        self.conv = operations.Conv2d(in_channels, out_channels, size, padding=0 if self.even_pad else size // 2, **kept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x in x H x W to B x out x H x W."""
        x = self.conv(F.pad(x, (0, 1, 0, 1)) if self.even_pad else x)
        return F.leaky_relu(x, SLOPE) if self.activation else x


class SubTreeExtractor(torch.nn.Module):
    """Features of a picture and of its smaller sizes, of which each has twice as many."""

    def __init__(self, in_channels: int = 3, channels: int = 64, n_layers: int = 4, **made: Any) -> None:
        super().__init__()
        widths = [in_channels, *(channels << number for number in range(n_layers))]
        self.convs = torch.nn.ModuleList(
            torch.nn.Sequential(FilmConv2d(wide, inner, 3, **made), FilmConv2d(inner, inner, 3, **made))
            for wide, inner in zip(widths, widths[1:])
        )

    def forward(self, image: torch.Tensor, n: int) -> Pyramid:
        """Of *image* and its next smaller sizes, *n* of them."""
        found: Pyramid = []
        for layer in list(self.convs)[:n]:
            image = layer(F.avg_pool2d(image, 2, 2) if found else image)
            found.append(image)
        return found


class FeatureExtractor(torch.nn.Module):
    """Features of each size of a picture: its own, and those that larger sizes came to when they were made as small."""

    def __init__(self, in_channels: int = 3, channels: int = 64, sub_levels: int = 4, **made: Any) -> None:
        super().__init__()
        self.extract_sublevels = SubTreeExtractor(in_channels, channels, sub_levels, **made)
        self.sub_levels = sub_levels

    def forward(self, image_pyramid: Pyramid) -> Pyramid:
        """Of all sizes."""
        found: list[Pyramid] = []
        features = []
        for level, image in enumerate(image_pyramid):
            found.append(self.extract_sublevels(image, min(len(image_pyramid) - level, self.sub_levels)))
            depths = range(min(level + 1, self.sub_levels))
            features.append(torch.cat([found[level - depth][depth] for depth in depths], dim=1))
            if level + 1 >= self.sub_levels:
                found[level + 1 - self.sub_levels] = []  # nothing smaller needs it
        return features


class FlowEstimator(torch.nn.Module):
    """How pixels move from one picture's features to the other's."""

    def __init__(self, in_channels: int, num_convs: int, num_filters: int, **made: Any) -> None:
        super().__init__()
        widths = [in_channels, *[num_filters] * num_convs]
        self._convs = torch.nn.ModuleList(FilmConv2d(wide, inner, 3, **made) for wide, inner in zip(widths, widths[1:]))
        self._convs.append(FilmConv2d(num_filters, num_filters // 2, 1, **made))
        self._convs.append(FilmConv2d(num_filters // 2, 2, 1, activation=False, **made))

    def forward(self, features_a: torch.Tensor, features_b: torch.Tensor) -> torch.Tensor:
        """B x C x H x W of both to B x 2 x H x W: columns and rows, in pixels."""
        x = torch.cat((features_a, features_b), dim=1)
        for layer in self._convs:
            x = layer(x)
        return x


class PyramidFlowEstimator(torch.nn.Module):
    """That from coarse to fine. The finest levels have layers of their own, all others the same."""

    def __init__(
        self, filters: int = 64, flow_convs: Sequence[int] = (3,) * 4, flow_filters: Sequence[int] = (32, 64, 128, 256), **made: Any
    ) -> None:
        super().__init__()
        widths = [filters * 2 * sum(1 << depth for depth in range(level + 1)) for level in range(len(flow_convs))]
        *fine, coarse = (
            FlowEstimator(width, count, inner, **made) for width, count, inner in zip(widths, flow_convs, flow_filters, strict=True)
        )
        self._predictor = coarse
        self._predictors = torch.nn.ModuleList(reversed(fine))

    def forward(self, first: Pyramid, second: Pyramid) -> Pyramid:
        """From the features of both pictures, how pixels of each size move, the finest first."""
        flow = self._predictor(first[-1], second[-1])
        flows = [flow]
        for level in range(len(first) - 2, -1, -1):
            predictor = self._predictor if level >= len(self._predictors) else self._predictors[len(self._predictors) - 1 - level]
            flow = F.interpolate(flow, size=first[level].shape[2:], mode="bilinear") * 2
            flow = flow + predictor(first[level], _moved(second[level], flow))
            flows.append(flow)
        return flows[::-1]


class Fusion(torch.nn.Module):
    """Both pictures, moved, of all sizes, become one picture."""

    def __init__(
        self,
        n_layers: int = 4,
        specialized_layers: int = 3,
        filters: int = 64,
        operations: Any = comfy.ops.disable_weight_init,
        **kept: Any,
    ) -> None:
        super().__init__()
        made = {"operations": operations, **kept}
        self.output_conv = operations.Conv2d(filters, 3, 1, **kept)
        self.convs = torch.nn.ModuleList()
        wide = _given(n_layers, filters)
        for level in reversed(range(n_layers)):
            inner = filters << min(level, specialized_layers)
            smooth, second = FilmConv2d(wide, inner, 2, activation=False, **made), FilmConv2d(inner, inner, 3, **made)
            first = FilmConv2d(inner + _given(level + 1, filters), inner, 3, **made)
            self.convs.append(torch.nn.ModuleList((smooth, first, second)))
            wide = inner

    def forward(self, pyramid: Pyramid) -> torch.Tensor:
        """B x 3 x H x W of the largest size."""
        x = pyramid[-1]
        for level, layers in zip(reversed(range(len(self.convs))), self.convs):
            blocks: Any = layers
            smooth, first, second = blocks
            x = smooth(F.interpolate(x, size=pyramid[level].shape[2:], mode="nearest"))
            x = second(first(torch.cat((pyramid[level], x), dim=1)))
        made: torch.Tensor = self.output_conv(x)
        return made


def _given(level: int, filters: int) -> int:
    """Values per pixel of both pictures with the features of *level* sizes, their colours and flows."""
    return 2 * (sum(filters << depth for depth in range(level)) + 3 + 2)


def _moved(image: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """*image* (B x C x H x W) as seen from where *flow* (B x 2 x H x W, columns and rows in pixels) points; in float32 within."""
    rows, columns = flow.shape[2:]
    down, across = (torch.linspace(1 / length - 1, 1 - 1 / length, length, device=flow.device) for length in (rows, columns))
    flow = flow.float()
    places = (across[None, None, :] + flow[:, 0] / (columns / 2), down[None, :, None] + flow[:, 1] / (rows / 2))
    grid = torch.stack(places, dim=-1)
    return F.grid_sample(image.float(), grid, mode="bilinear", padding_mode="border", align_corners=False).to(image.dtype)


class FILMNet(torch.nn.Module):
    """The network. *pyramid_levels*: sizes in which motion is told; *fusion_pyramid_levels*: those of which a frame is made."""

    pad_align = 1

    def __init__(
        self,
        pyramid_levels: int = 7,
        fusion_pyramid_levels: int = 5,
        specialized_levels: int = 3,
        sub_levels: int = 4,
        filters: int = 64,
        flow_convs: Sequence[int] = (3,) * 4,
        flow_filters: Sequence[int] = (32, 64, 128, 256),
        **made: Any,
    ) -> None:
        super().__init__()
        self.pyramid_levels, self.fusion_pyramid_levels = pyramid_levels, fusion_pyramid_levels
        self.extract = FeatureExtractor(3, filters, sub_levels, **made)
        self.predict_flow = PyramidFlowEstimator(filters, flow_convs, flow_filters, **made)
        self.fuse = Fusion(sub_levels, specialized_levels, filters, **made)

    def get_dtype(self) -> torch.dtype:
        """Of its weights."""
        first: Any = next(self.parameters())
        dtype: torch.dtype = first.dtype
        return dtype

    def memory_used_forward(self, shape: Sequence[int], dtype: torch.dtype) -> int:
        """Bytes of working memory for frames of *shape* (F x H x W x 3)."""
        return BYTES_PER_VALUE * shape[1] * shape[2] * dtype.itemsize

    def extract_features(self, img: torch.Tensor) -> Seen:
        """What is seen in a frame alone (1 x 3 x H x W), which can be used for both of its neighbours. Raises ``ValueError`` for one that
        is too small.
        """
        least = 1 << (self.pyramid_levels - 1)
        if min(img.shape[2:]) < least:
            raise ValueError(
                f"FILM looks at frames of {least} pixels or more on each side, not {img.shape[3]} x {img.shape[2]}; enlarge them"
            )
        pictures = [img]
        for _ in range(self.pyramid_levels - 1):
            pictures.append(F.avg_pool2d(pictures[-1], 2, 2))
        return pictures, self.extract(pictures)

    def between(self, img0: torch.Tensor, img1: torch.Tensor, times: Iterable[float], cache: Cache | None = None) -> torch.Tensor:
        """The frames between two (1 x 3 x H x W) at *times* in 0…1, one after the other; how pixels move is told once. *cache* holds
        :meth:`extract_features` of ``img0`` and ``img1`` where that is known.
        """
        known = cache or {}
        seen = [known[name] if name in known else self.extract_features(img) for name, img in (("img0", img0), ("img1", img1))]
        (_, first), (_, second) = seen
        kept = self.fusion_pyramid_levels
        there, back = self.predict_flow(first, second)[:kept], self.predict_flow(second, first)[:kept]
        levels = [[torch.cat(pair, dim=1) for pair in zip(pictures[:kept], features[:kept])] for pictures, features in seen]
        made = []
        for time in times:
            to_first, to_second = [flow * time for flow in back], [flow * (1 - time) for flow in there]
            moved = [[_moved(*pair) for pair in zip(*both)] for both in zip(levels, (to_first, to_second))]
            made.append(self.fuse([torch.cat(parts, dim=1) for parts in zip(*moved, to_first, to_second)]))
        return torch.cat(made)

    forward_multi_timestep = between

    def forward(
        self, img0: torch.Tensor, img1: torch.Tensor, timestep: torch.Tensor | float = 0.5, cache: Cache | None = None
    ) -> torch.Tensor:
        """The frame between two (1 x 3 x H x W) at *timestep*: a number, or a tensor of equal ones."""
        time = float(timestep.mean()) if isinstance(timestep, torch.Tensor) else timestep
        return self.between(img0, img1, [time], cache)


def detect_film_sizes(shapes: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of :class:`FILMNet` that the *shapes* of a file tell."""
    convs, flows = "extract.extract_sublevels.convs.", "predict_flow._predictors."
    estimators = [*(f"{flows}{number}." for number in reversed(range(count_blocks(shapes, flows + "{}.")))), "predict_flow._predictor."]
    return {
        "sub_levels": count_blocks(shapes, convs + "{}."),
        "filters": shapes[f"{convs}0.0.conv.weight"][0],
        "flow_filters": [shapes[f"{name}_convs.0.conv.weight"][0] for name in estimators],
        "flow_convs": [count_blocks(shapes, name + "_convs.{}.") - 2 for name in estimators],
    }
