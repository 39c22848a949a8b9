"""Nodes that calculate with latents, cut and join them, and apply operations to them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import comfy.utils
from comfy.lazy_import import lazy_module
from comfy_extras.image_filters import convolve_mirrored, sharpening_kernel
from comfy_extras.node_inputs import MAX_RESOLUTION, combo, pixels, real, socket, whole

if TYPE_CHECKING:
    from torch import Tensor

    from comfy.model_patcher import ModelPatcher
    from comfy_extras.node_values import Latent

torch = lazy_module("torch")

log = logging.getLogger(__name__)

ADVANCED, OPERATIONS = "model/latent/advanced", "model/latent/advanced/operations"
_AXES = {"x": -1, "y": -2, "t": -3}
_TWO_LATENTS = ("samples1", "samples2")


def reshape_latent_to(target_shape: Any, latent: Tensor, repeat_batch: bool = True) -> Tensor:
    """*latent* resized to the spatial size of *target_shape* and, with *repeat_batch*, repeated to its batch size."""
    if latent.shape[1:] != target_shape[1:]:
        latent = comfy.utils.common_upscale(latent, target_shape[-1], target_shape[-2], "bilinear", "center")
    return comfy.utils.repeat_to_batch_size(latent, target_shape[0]) if repeat_batch else latent


def _latent_inputs(*names: str, **more: Any) -> dict[str, Any]:
    return {"required": {**{name: socket("LATENT") for name in names}, **more}}


class _LatentNode:
    """Attributes that the nodes of this module share."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "execute"
    CATEGORY = ADVANCED


class LatentAdd(_LatentNode):
    """Adds two latents; the second is resized and repeated like the first."""

    SEARCH_ALIASES = ["combine latents", "sum latents"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return _latent_inputs(*_TWO_LATENTS)

    @classmethod
    def execute(cls, samples1: Latent, samples2: Latent) -> tuple[Latent]:
        """The sum."""
        first = samples1["samples"]
        return ({**samples1, "samples": first + reshape_latent_to(first.shape, samples2["samples"])},)

    op = execute


class LatentSubtract(_LatentNode):
    """Subtracts one latent from another; the second is resized and repeated like the first."""

    SEARCH_ALIASES = ["difference latent", "remove features"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return _latent_inputs(*_TWO_LATENTS)

    @classmethod
    def execute(cls, samples1: Latent, samples2: Latent) -> tuple[Latent]:
        """The difference."""
        first = samples1["samples"]
        return ({**samples1, "samples": first - reshape_latent_to(first.shape, samples2["samples"])},)

    op = execute


class LatentMultiply(_LatentNode):
    """Multiplies a latent by a number."""

    SEARCH_ALIASES = ["scale latent", "amplify latent", "latent gain"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return _latent_inputs("samples", multiplier=real(1.0, -10.0, 10.0))

    @classmethod
    def execute(cls, samples: Latent, multiplier: float) -> tuple[Latent]:
        """The product."""
        return ({**samples, "samples": samples["samples"] * multiplier},)

    op = execute


class LatentInterpolate(_LatentNode):
    """Interpolates between two latents: directions and lengths of the channel vectors are mixed separately."""

    SEARCH_ALIASES = ["blend latent", "mix latent", "lerp latent", "transition"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return _latent_inputs(*_TWO_LATENTS, ratio=real(1.0, 0.0, 1.0))

    @classmethod
    def execute(cls, samples1: Latent, samples2: Latent, ratio: float) -> tuple[Latent]:
        """The mixture; *ratio* 1 gives the first latent, 0 the second."""
        first = samples1["samples"]
        (near, near_length), (far, far_length) = map(_direction, (first, reshape_latent_to(first.shape, samples2["samples"])))
        direction, _ = _direction(near * ratio + far * (1.0 - ratio))
        return ({**samples1, "samples": direction * (near_length * ratio + far_length * (1.0 - ratio))},)

    op = execute


def _direction(latent: Tensor) -> tuple[Tensor, Tensor]:
    """The channel vectors scaled to length 1 (zeros stay zeros), and their lengths."""
    length = torch.linalg.vector_norm(latent, dim=1, keepdim=True)
    return torch.nan_to_num(latent / length), length


class LatentConcat(_LatentNode):
    """Joins two latents along an axis; a minus sign puts the second one first."""

    SEARCH_ALIASES = ["join latents", "stitch latents"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return _latent_inputs(*_TWO_LATENTS, dim=combo(["x", "-x", "y", "-y", "t", "-t"]))

    @classmethod
    def execute(cls, samples1: Latent, samples2: Latent, dim: str) -> tuple[Latent]:
        """The joined latent, with the batch of the first."""
        first = samples1["samples"]
        parts = (first, comfy.utils.repeat_to_batch_size(samples2["samples"], first.shape[0]))
        return ({**samples1, "samples": torch.cat(parts[::-1] if dim.startswith("-") else parts, dim=_AXES[dim[-1]])},)

    op = execute


class LatentCut(_LatentNode):
    """Cuts a stretch of cells or frames out of a latent."""

    SEARCH_ALIASES = ["crop latent", "slice latent", "extract region"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return _latent_inputs("samples", dim=combo(list(_AXES)), index=whole(0, -MAX_RESOLUTION, MAX_RESOLUTION, 1), amount=pixels(1, 1))

    @classmethod
    def execute(cls, samples: Latent, dim: str, index: int, amount: int) -> tuple[Latent]:
        """At most *amount* entries along *dim* from *index* on; a negative index counts from the end."""
        latent, axis = samples["samples"], _AXES[dim]
        length = latent.shape[axis]
        start = min(index, length - 1) if index >= 0 else max(index + length, 0)
        return ({**samples, "samples": latent.narrow(axis, start, min(length - start, amount))},)

    op = execute


class LatentCutToBatch(_LatentNode):
    """Cuts a latent into slices, which become the batch."""

    SEARCH_ALIASES = ["slice to batch", "split latent", "tile latent"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return _latent_inputs("samples", dim=combo(["t", "x", "y"]), slice_size=pixels(1, 1))

    @classmethod
    def execute(cls, samples: Latent, dim: str, slice_size: int) -> tuple[Latent]:
        """Slices of *slice_size* along *dim*; a shorter rest is dropped. A latent without ``t`` comes back unchanged for ``t``."""
        latent = samples["samples"]
        axis = latent.ndim + _AXES[dim]
        if axis < 2:
            return (samples,)
        length = latent.shape[axis]
        slice_size = min(slice_size, length)
        along = latent.movedim(axis, 1)[:, : length // slice_size * slice_size]
        return ({**samples, "samples": along.reshape(-1, slice_size, *along.shape[2:]).movedim(1, axis)},)


class LatentBatch(_LatentNode):
    """Joins two batches; the second is resized to the first."""

    CATEGORY = "model/latent/batch"
    DEPRECATED = True
    SEARCH_ALIASES = ["combine latents", "merge latents", "join latents"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return _latent_inputs(*_TWO_LATENTS)

    @classmethod
    def execute(cls, samples1: Latent, samples2: Latent) -> tuple[Latent]:
        """One batch after the other; each keeps its batch indices."""
        first, second = samples1["samples"], samples2["samples"]
        joined = torch.cat((first, reshape_latent_to(first.shape, second, repeat_batch=False)), dim=0)
        index = [number for latent in (samples1, samples2) for number in latent.get("batch_index", range(latent["samples"].shape[0]))]
        return ({**samples1, "samples": joined, "batch_index": index},)

    batch = execute


class LatentBatchSeedBehavior(_LatentNode):
    """Decides whether the latents of a batch get the same noise."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return _latent_inputs("samples", seed_behavior=combo(["random", "fixed"], default="fixed"))

    @classmethod
    def execute(cls, samples: Latent, seed_behavior: str) -> tuple[Latent]:
        """The latents with the same noise (``fixed``: that of the first) or each with its own (``random``, the default of samplers)."""
        changed = {key: value for key, value in samples.items() if key != "batch_index"}
        if seed_behavior == "fixed":
            changed["batch_index"] = [samples.get("batch_index", [0])[0]] * samples["samples"].shape[0]
        return (changed,)

    op = execute


class LatentApplyOperation(_LatentNode):
    """Applies an operation to a latent."""

    CATEGORY = OPERATIONS
    EXPERIMENTAL = True
    SEARCH_ALIASES = ["transform latent"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return _latent_inputs("samples", operation=socket("LATENT_OPERATION"))

    @classmethod
    def execute(cls, samples: Latent, operation: Any) -> tuple[Latent]:
        """The latent that *operation* returns."""
        return ({**samples, "samples": operation(latent=samples["samples"])},)

    op = execute


class LatentApplyOperationCFG(_LatentNode):
    """Makes a model apply an operation to the difference between its two sides at every step."""

    RETURN_TYPES = ("MODEL",)
    CATEGORY = OPERATIONS
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": socket("MODEL"), "operation": socket("LATENT_OPERATION")}}

    @classmethod
    def execute(cls, model: ModelPatcher, operation: Any) -> tuple[ModelPatcher]:
        """A clone of the model that applies the operation before guidance."""

        def apply_before_guidance(args: dict[str, Any]) -> list[Tensor]:
            predictions = args["conds_out"]
            base = predictions[1] if len(predictions) == 2 else 0.0
            predictions[0] = operation(latent=predictions[0] - base) + base
            return predictions

        patched = model.clone()
        patched.set_model_sampler_pre_cfg_function(apply_before_guidance)
        return (patched,)

    patch = execute


class LatentOperationTonemapReinhard(_LatentNode):
    """Makes an operation that compresses the largest values of a latent."""

    RETURN_TYPES = ("LATENT_OPERATION",)
    CATEGORY = OPERATIONS
    EXPERIMENTAL = True
    SEARCH_ALIASES = ["hdr latent"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"multiplier": real(1.0, 0.0, 100.0)}}

    @classmethod
    def execute(cls, multiplier: float) -> tuple[Any]:
        """The operation. Channel vectors keep their direction; lengths follow Reinhard's curve below the mean + 5 standard deviations."""

        def tonemap_reinhard(latent: Tensor, **_ignored: Any) -> Tensor:
            length = torch.linalg.vector_norm(latent, dim=1, keepdim=True) + 1e-10
            spatial = list(range(1, length.ndim))
            mean, deviation = length.mean(dim=spatial, keepdim=True), length.std(dim=spatial, keepdim=True)
            ceiling = (deviation * 5 + mean) * multiplier
            share = length * (1.0 / ceiling)
            return latent / length * (share / (share + 1.0) * ceiling)

        return (tonemap_reinhard,)

    op = execute


class LatentOperationSharpen(_LatentNode):
    """Makes an operation that sharpens the directions of a latent's channel vectors."""

    RETURN_TYPES = ("LATENT_OPERATION",)
    CATEGORY = OPERATIONS
    EXPERIMENTAL = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "sharpen_radius": whole(9, 1, 31, 1, advanced=True),
                "sigma": real(1.0, 0.1, 10.0, 0.1, advanced=True),
                "alpha": real(0.1, 0.0, 5.0, advanced=True),
            }
        }

    @classmethod
    def execute(cls, sharpen_radius: int, sigma: float, alpha: float) -> tuple[Any]:
        """The operation. The radius is in cells, *sigma* is relative to it, and *alpha* is the strength."""

        def sharpen(latent: Tensor, **_ignored: Any) -> Tensor:
            length = torch.linalg.vector_norm(latent, dim=1, keepdim=True) + 1e-6
            kernel = sharpening_kernel(sharpen_radius * 2 + 1, sigma, alpha, latent.device)
            return length * convolve_mirrored(latent / length, kernel.to(latent.dtype))

        return (sharpen,)

    op = execute


class ReplaceVideoLatentFrames(_LatentNode):
    """Replaces frames of a video latent by those of another one."""

    CATEGORY = "model/latent/batch"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        place = whole(0, -MAX_RESOLUTION, MAX_RESOLUTION, 1, tooltip="First frame to replace; negative numbers count from the end.")
        return {
            "required": {"destination": socket("LATENT", tooltip="The latent whose frames are replaced."), "index": place},
            "optional": {"source": socket("LATENT", tooltip="The frames to put in; without them nothing changes.")},
        }

    @classmethod
    def execute(cls, destination: Latent, index: int, source: Latent | None = None) -> tuple[Latent]:
        """The latent with the frames replaced; unchanged, with a line in the log, when they do not fit."""
        if source is None:
            return (destination,)
        present, given = destination["samples"].shape[2], source["samples"].shape[2]
        start = index + present if index < 0 else index
        if start < 0 or start + given > present:
            log.warning(
                "ReplaceVideoLatentFrames: %d frames do not fit at frame %d of %d; the latent is left as it is", given, index, present
            )
            return (destination,)
        frames = destination["samples"].clone()
        frames[:, :, start : start + given] = source["samples"]
        return ({**source, "samples": frames},)


NODE_CLASS_MAPPINGS = {
    node.__name__: node
    for node in (
        LatentAdd,
        LatentApplyOperation,
        LatentApplyOperationCFG,
        LatentBatch,
        LatentBatchSeedBehavior,
        LatentConcat,
        LatentCut,
        LatentCutToBatch,
        LatentInterpolate,
        LatentMultiply,
        LatentOperationSharpen,
        LatentOperationTonemapReinhard,
        LatentSubtract,
        ReplaceVideoLatentFrames,
    )
}

NODE_DISPLAY_NAME_MAPPINGS = {"LatentBatch": "Batch Latents (DEPRECATED)", "ReplaceVideoLatentFrames": "Replace Video Latent Frames"}
