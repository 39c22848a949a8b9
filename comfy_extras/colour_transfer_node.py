"""The node that gives images the colours of others (part of ``nodes_post_processing``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import comfy.utils
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras import colour_matching

if TYPE_CHECKING:
    from torch import Tensor

management = lazy_module("comfy.model_management")
torch = lazy_module("torch")

# By method: statistics of frames, and the transform between two statistics. All but the last work in L*a*b*.
_METHODS: dict[str, tuple[Callable[[Sequence[Any]], Any], Callable[[Any, Any], colour_matching.Transform]]] = {
    "reinhard_lab": (colour_matching.reinhard_statistics, colour_matching.reinhard),
    "mkl_lab": (colour_matching.mkl_statistics, colour_matching.mkl),
    "histogram": (colour_matching.level_shares, colour_matching.histogram),
}


class _Frames(Sequence["Tensor"]):
    """The frames of B×H×W×C images as C×N colours on the computing device, converted one at a time, as often as they are read."""

    def __init__(self, images: Tensor, in_lab: bool) -> None:
        self._images = images
        self._in_lab = in_lab

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, number: Any) -> Any:
        frame = self._images[number].to(management.get_torch_device(), torch.float32)
        colours = frame.reshape(-1, frame.shape[-1]).T.contiguous()
        return colour_matching.rgb_to_lab(colours) if self._in_lab else colours


class ColorTransfer(io.ComfyNode):
    """Gives images the colours of a reference."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ColorTransfer",
            display_name="Transfer Color",
            category="image/filters",
            description="Gives images the colors of a reference image.",
            search_aliases=[
                "color match",
                "color grading",
                "color correction",
                "match colors",
                "color transform",
                "mkl",
                "reinhard",
                "histogram",
            ],
            inputs=[
                io.Image.Input("image_target", tooltip="The images to change."),
                io.Image.Input("image_ref", tooltip="The images whose colors are wanted."),
                io.Combo.Input("method", options=list(_METHODS)),
                _source_stats(),
                io.Float.Input("strength", default=1.0, min=0.0, max=10.0, step=0.01),
            ],
            outputs=[io.Image.Output(display_name="image")],
        )

    @classmethod
    def execute(
        cls, image_target: Tensor, image_ref: Tensor | None, method: str, source_stats: dict[str, Any], strength: float = 1.0
    ) -> io.NodeOutput:
        """*image_target*, changed as far as *strength* says, in 0…1; itself at 0. Raises ``ValueError`` where there are no colours."""
        if strength == 0 or image_ref is None:
            return io.NodeOutput(image_target)
        in_lab = method != "histogram"
        if in_lab and (image_target.shape[-1] != 3 or image_ref.shape[-1] != 3):
            raise ValueError(f"{method} needs images of 3 channels; remove the alpha channel, or choose histogram")
        target, reference = _Frames(image_target, in_lab), _Frames(image_ref, in_lab)
        transform_of = _transforms(target, reference, method, source_stats)
        result = torch.empty(image_target.shape, device=management.intermediate_device(), dtype=management.intermediate_dtype())
        progress = comfy.utils.ProgressBar(len(target))
        for number, frame in enumerate(target):
            changed = (
                torch.lerp(frame, transform_of(number, frame)(frame), strength) if strength != 1.0 else transform_of(number, frame)(frame)
            )
            colours = colour_matching.lab_to_rgb(changed) if in_lab else changed.clamp(0, 1)
            result[number] = colours.T.reshape(image_target.shape[1:]).to(result)
            progress.update(1)
        return io.NodeOutput(result)


def _transforms(
    target: _Frames, reference: _Frames, method: str, source_stats: dict[str, Any]
) -> Callable[[int, Any], colour_matching.Transform]:
    """For a frame's number and colours what is done to it."""
    statistics, transform = _METHODS[method]
    if source_stats["source_stats"] != "per_frame":
        chosen = min(source_stats.get("target_index", 0), len(target) - 1)
        own = statistics(target if source_stats["source_stats"] == "uniform" else [target[chosen]])
        one = transform(own, statistics(reference))
        return lambda number, frame: one
    wanted = [statistics([reference[0]])] if len(reference) == 1 else None

    def of_frame(number: int, frame: Any) -> colour_matching.Transform:
        return transform(statistics([frame]), wanted[0] if wanted else statistics([reference[min(number, len(reference) - 1)]]))

    return of_frame


def _source_stats() -> io.DynamicCombo.Input:
    index = io.Int.Input("target_index", default=0, min=0, max=10000, tooltip="Which frame's colors count as those to change.")
    return io.DynamicCombo.Input(
        "source_stats",
        tooltip="What is matched to the reference. per_frame: each frame for itself. uniform: all frames together, changed alike. "
        "target_frame: one frame, and all are changed as it is.",
        options=[
            io.DynamicCombo.Option("per_frame", []),
            io.DynamicCombo.Option("uniform", []),
            io.DynamicCombo.Option("target_frame", [index]),
        ],
    )
