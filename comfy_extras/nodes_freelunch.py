"""FreeU (Si et al. 2023, arXiv:2309.11497): strengthens a UNet's backbone features and weakens low frequencies in its skip connections."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_api.latest import ComfyExtension, io

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.model_patcher import ModelPatcher

torch = lazy_module("torch")
patching = lazy_module("comfy.patching.patched_models")

log = logging.getLogger(__name__)

CATEGORY = "model/patch/unet"
LOW_FREQUENCIES = 1


def Fourier_filter(x: Tensor, threshold: int, scale: float) -> Tensor:  # noqa: N802 - the name packs import
    """*x* (B×C×H×W) with its spatial frequencies up to *threshold* multiplied by *scale*."""
    frequencies = torch.fft.fftshift(torch.fft.fftn(x.float(), dim=(-2, -1)), dim=(-2, -1))
    mask = torch.ones(x.shape[-2:], device=x.device)
    row, column = (length // 2 for length in x.shape[-2:])
    mask[row - threshold : row + threshold, column - threshold : column + threshold] = scale
    shifted_back = torch.fft.ifftshift(frequencies * mask, dim=(-2, -1))
    return torch.fft.ifftn(shifted_back, dim=(-2, -1)).real.to(x.dtype)


class SkipFilter:
    """Filters skip connections; on the CPU if their device has no Fourier transforms."""

    def __init__(self) -> None:
        self._needs_cpu: set[Any] = set()

    def __call__(self, skip: Tensor, scale: float) -> Tensor:
        """The filtered *skip*."""
        if skip.device not in self._needs_cpu:
            try:
                return Fourier_filter(skip, LOW_FREQUENCIES, scale)
            except RuntimeError:
                log.warning("FreeU: %s has no Fourier transforms; they run on the CPU", skip.device)
                self._needs_cpu.add(skip.device)
        return Fourier_filter(skip.cpu(), LOW_FREQUENCIES, scale).to(skip.device)


def _constant(h: Tensor, factor: float) -> Tensor | float:
    """The factor of version 1: the same everywhere."""
    return factor


def _by_structure(h: Tensor, factor: float) -> Tensor | float:
    """The factors of version 2: up to *factor* where the features' mean over the channels is highest."""
    mean = h.mean(1, keepdim=True)
    lowest, highest = mean.amin(dim=(1, 2, 3), keepdim=True), mean.amax(dim=(1, 2, 3), keepdim=True)
    return (factor - 1) * ((mean - lowest) / (highest - lowest)) + 1


def _patched(model: ModelPatcher, factors: dict[int, tuple[float, float]], strengthen: Any) -> ModelPatcher:
    """A patched clone of *model*; *factors* maps multiples of its base width to the factors for backbone and skip connection."""
    width = model.model.model_config.unet_config["model_channels"]
    by_channels = {width * multiple: pair for multiple, pair in factors.items()}

    def build(clone: ModelPatcher) -> None:
        skip_filter = SkipFilter()

        def patch(h: Tensor, skip: Tensor, transformer_options: dict[str, Any]) -> tuple[Tensor, Tensor]:
            pair = by_channels.get(h.shape[1])
            if pair is None:
                return h, skip
            half = h.shape[1] // 2
            h[:, :half] = h[:, :half] * strengthen(h, pair[0])
            return h, skip_filter(skip, pair[1])

        clone.set_model_output_block_patch(patch)

    return patching.patched_models().patched(model, (), build)


def _schema(node_id: str, b1: float, b2: float) -> io.Schema:
    factors = {"b1": b1, "b2": b2, "s1": 0.9, "s2": 0.2}
    return io.Schema(
        node_id=node_id,
        category=CATEGORY,
        outputs=[io.Model.Output()],
        inputs=[
            io.Model.Input("model"),
            *(io.Float.Input(name, default=value, min=0.0, max=10.0, step=0.01, advanced=True) for name, value in factors.items()),
        ],
    )


class FreeU(io.ComfyNode):
    """Applies FreeU with the same factor for all features."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("FreeU", 1.1, 1.2)

    @classmethod
    def execute(cls, model: ModelPatcher, b1: float, b2: float, s1: float, s2: float) -> io.NodeOutput:
        """The patched model."""
        return io.NodeOutput(_patched(model, {4: (b1, s1), 2: (b2, s2)}, _constant))

    patch = execute


class FreeU_V2(io.ComfyNode):  # noqa: N801 - the name packs import
    """Applies FreeU with factors that depend on the structure of the features."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema("FreeU_V2", 1.3, 1.4)

    @classmethod
    def execute(cls, model: ModelPatcher, b1: float, b2: float, s1: float, s2: float) -> io.NodeOutput:
        """The patched model."""
        return io.NodeOutput(_patched(model, {4: (b1, s1), 2: (b2, s2)}, _by_structure))

    patch = execute


class FreelunchExtension(ComfyExtension):
    """The extension with the FreeU nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [FreeU, FreeU_V2]


async def comfy_entrypoint() -> FreelunchExtension:
    """The extension, for the pack loader."""
    return FreelunchExtension()
