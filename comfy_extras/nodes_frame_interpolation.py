"""Nodes that make frames between those of a video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import comfy.utils
import folder_paths
from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")
management = lazy_module("comfy.model_management")
loading = lazy_module("comfy.loading.frame_interpolation")
common_dit = lazy_module("comfy.ldm.common_dit")
film_net = lazy_module("comfy_extras.frame_interpolation_models.film_net")
ifnet = lazy_module("comfy_extras.frame_interpolation_models.ifnet")

FOLDER = "frame_interpolation"
COLOURS = 3
OTHER_NAMES = ("rife", "film", "frame interpolation", "slow motion", "interpolate frames", "vfi")
FrameInterpolationModel = io.Custom("INTERP_MODEL")


class FrameInterpolationModelLoader(io.ComfyNode):
    """Loads a model that makes frames between others."""

    READS_AHEAD = {"model_name": FOLDER}

    @classmethod
    def define_schema(cls) -> io.Schema:
        names = folder_paths.get_filename_list(FOLDER)
        return io.Schema(
            node_id="FrameInterpolationModelLoader",
            display_name="Load Frame Interpolation Model",
            category="model/loaders",
            inputs=[io.Combo.Input("model_name", options=names, tooltip=f"A file in the folder {FOLDER}: RIFE (4 or later) or FILM.")],
            outputs=[FrameInterpolationModel.Output()],
        )

    @classmethod
    def execute(cls, model_name: str) -> io.NodeOutput:
        """The patcher. Raises ``UnknownModelError`` for files that hold no such model, ``ModelFileError`` for damaged ones."""
        path = folder_paths.get_full_path_or_raise(FOLDER, model_name)
        return io.NodeOutput(loading.load_frame_interpolation(path, {"film_net": film_net, "ifnet": ifnet}))


class FrameInterpolate(io.ComfyNode):
    """Makes frames between each two of a video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        times = io.Int.Input("multiplier", default=2, min=2, max=16, tooltip="How many times as many frames there are then.")
        return io.Schema(
            node_id="FrameInterpolate",
            display_name="Run Frame Interpolation Model",
            description="Makes a video smoother, or slower: a model makes frames between each two.",
            category="video",
            inputs=[FrameInterpolationModel.Input("interp_model"), io.Image.Input("images"), times],
            outputs=[io.Image.Output()],
            search_aliases=list(OTHER_NAMES),
        )

    @classmethod
    def execute(cls, interp_model: Any, images: Tensor, multiplier: int) -> io.NodeOutput:
        """(F - 1) x *multiplier* + 1 frames; a single one stays alone."""
        if len(images) < 2 or multiplier < 2:
            return io.NodeOutput(images)
        images, network, dtype = images[..., :COLOURS], interp_model.model, interp_model.model_dtype()
        management.load_models_gpu([interp_model], memory_required=network.memory_used_forward(images.shape, dtype))
        frames, rows, columns, _ = images.shape
        made = torch.empty(
            ((frames - 1) * multiplier + 1, rows, columns, COLOURS),
            device=management.intermediate_device(),
            dtype=management.intermediate_dtype(),
        )
        made[::multiplier] = images
        times = [step / multiplier for step in range(1, multiplier)]
        progress = comfy.utils.ProgressBar((frames - 1) * len(times))
        between = _Between(network, times)
        prepared = _prepared(images, network.pad_align, interp_model.load_device, dtype)
        for pair in range(frames - 1):
            management.throw_exception_if_processing_interrupted()
            place = pair * multiplier + 1
            for some in between.next_pair(prepared):
                some = some[:, :, :rows, :columns].movedim(1, -1).clamp(0.0, 1.0)
                made[place : place + len(some)] = some.to(made)
                place += len(some)
                progress.update(len(some))
        return io.NodeOutput(made.clamp_(0.0, 1.0))


def _prepared(images: Tensor, multiple: int, device: Any, dtype: Any) -> Iterator[Tensor]:
    """Each of *images* as 1 x 3 x H x W on *device*, its sides made a *multiple* by mirroring, or by repeating its edge if it is small."""
    rows, columns = images.shape[1:3]
    mode = "reflect" if -rows % multiple < rows and -columns % multiple < columns else "replicate"
    for image in images:
        frame = image[None].movedim(-1, 1).to(device=device, dtype=dtype)
        yield common_dit.pad_to_patch_size(frame, (multiple, multiple), padding_mode=mode) if multiple > 1 else frame


class _Between:
    """The frames between two and two of a video. Each is looked at once; fewer are made together where memory is short."""

    def __init__(self, network: Any, times: Sequence[float]) -> None:
        self._network, self._times, self._together = network, times, len(times)
        self._last: tuple[Tensor, Any] | None = None

    def next_pair(self, frames: Iterator[Tensor]) -> Iterator[Tensor]:
        """Those before the next of *frames*, some at a time."""
        first, second = self._last or self._seen(next(frames)), self._seen(next(frames))
        self._last = second
        seen, place = {"img0": first[1], "img1": second[1]}, 0
        while place < len(self._times):
            some = self._times[place : place + self._together]
            try:
                made = self._network.between(first[0], second[0], some, seen)
            except RuntimeError as error:
                management.raise_non_oom(error)
                if self._together == 1:
                    raise
                self._together //= 2
                management.soft_empty_cache()
                continue
            place += len(some)
            yield made

    def _seen(self, frame: Tensor) -> tuple[Tensor, Any]:
        return frame, self._network.extract_features(frame)


comfy_entrypoint = extension_of(FrameInterpolationModelLoader, FrameInterpolate)
