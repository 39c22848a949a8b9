"""FreSca (Huang et al. 2025, arXiv:2504.02154): guidance whose low and high spatial frequencies are scaled apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.model_patcher import ModelPatcher

torch = lazy_module("torch")


def Fourier_filter(x: Tensor, scale_low: float = 1.0, scale_high: float = 1.5, freq_cutoff: int = 20) -> Tensor:  # noqa: N802 - packs' name
    """*x* (…×H×W) with its lowest *freq_cutoff* frequencies along each side multiplied by *scale_low*, the others by *scale_high*."""
    frequencies = torch.fft.fftshift(torch.fft.fftn(x.float(), dim=(-2, -1)), dim=(-2, -1))
    scale = torch.full(x.shape[-2:], float(scale_high), device=x.device)
    rows, columns = (slice(side // 2 - min(freq_cutoff, side // 2), side // 2 + min(freq_cutoff, side // 2)) for side in x.shape[-2:])
    scale[rows, columns] = scale_low
    return torch.fft.ifftn(torch.fft.ifftshift(frequencies * scale, dim=(-2, -1)), dim=(-2, -1)).real.to(x.dtype)


class FreSca(io.ComfyNode):
    """Scales guidance by frequency."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        def scale(name: str, default: float, which: str) -> io.Float.Input:
            text = f"What the {which} frequencies of guidance are multiplied by."
            return io.Float.Input(name, default=default, min=0, max=10, step=0.01, tooltip=text, advanced=True)

        cutoff = "How many frequencies from the middle on count as low."
        return io.Schema(
            node_id="FreSca",
            display_name="FreSca",
            category="experimental",
            search_aliases=["frequency guidance"],
            description="Scales low and high spatial frequencies of guidance apart.",
            inputs=[
                io.Model.Input("model"),
                scale("scale_low", 1.0, "low"),
                scale("scale_high", 1.25, "high"),
                io.Int.Input("freq_cutoff", default=20, min=1, max=10000, step=1, tooltip=cutoff, advanced=True),
            ],
            outputs=[io.Model.Output()],
            is_experimental=True,
        )

    @classmethod
    def execute(cls, model: ModelPatcher, scale_low: float, scale_high: float, freq_cutoff: int) -> io.NodeOutput:
        """A clone of *model*. Steps with one side only stay as they are."""

        def filtered(args: dict[str, Any]) -> list[Tensor]:
            pictures = args["conds_out"]
            if len(pictures) < 2 or any(cond is None for cond in args["conds"][:2]):
                return pictures
            positive, negative, *others = pictures
            guidance = Fourier_filter(positive - negative, scale_low, scale_high, freq_cutoff)
            return [guidance + negative, negative, *others]

        clone = model.clone()
        clone.set_model_sampler_pre_cfg_function(filtered)
        return io.NodeOutput(clone)


comfy_entrypoint = extension_of(FreSca)
