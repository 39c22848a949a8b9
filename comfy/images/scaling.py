"""Resizes batches of images and latents by torch's own modes, Lanczos through PIL, and spherical interpolation.

Shapes: B batch, C channels, H rows, W columns. All functions return new tensors on the device and in the dtype of the input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy.lazy_import import lazy_module

if TYPE_CHECKING:
    from torch import Tensor

numpy = lazy_module("numpy")
pil_image = lazy_module("PIL.Image")
torch = lazy_module("torch")

NEARLY_PARALLEL = 1e-5


def common_upscale(samples: Tensor, width: int, height: int, upscale_method: str, crop: str) -> Tensor:
    """Resize the last two dimensions of *samples* (BCHW, or BC…HW with frames between) to *height* × *width*.

    *upscale_method* is ``bislerp``, ``lanczos`` or a mode of ``torch.nn.functional.interpolate``. *crop* ``center`` first cuts
    the sides that would change the aspect ratio; any other value stretches. Raises what torch raises for an unknown mode.
    """
    frames_shape = samples.shape if samples.ndim > 4 else None
    if frames_shape is not None:
        samples = _frames_as_batch(samples)
    if crop == "center":
        samples = _crop_to_aspect(samples, width / height)
    if upscale_method == "bislerp":
        resized = bislerp(samples, width, height)
    elif upscale_method == "lanczos":
        resized = lanczos(samples, width, height)
    else:
        resized = torch.nn.functional.interpolate(samples, size=(height, width), mode=upscale_method)
    if frames_shape is None:
        return resized
    batch, channels = frames_shape[:2]
    by_frame = resized.reshape(batch, -1, channels, height, width)
    return by_frame.movedim(2, 1).reshape(*frames_shape[:-2], height, width)


def _frames_as_batch(samples_BCFHW: Tensor) -> Tensor:
    batch, channels, *_, height, width = samples_BCFHW.shape
    return samples_BCFHW.reshape(batch, channels, -1, height, width).movedim(2, 1).reshape(-1, channels, height, width)


def _crop_to_aspect(samples: Tensor, wanted: float) -> Tensor:
    height, width = samples.shape[-2:]
    present = width / height
    left = round((width - width * (wanted / present)) / 2) if present > wanted else 0
    top = round((height - height * (present / wanted)) / 2) if present < wanted else 0
    return samples[..., top : height - top, left : width - left]


def lanczos(samples: Tensor, width: int, height: int) -> Tensor:
    """Resize each image of a BCHW (or BHW) batch, values in 0…1, with PIL's Lanczos filter in 8 bits per channel."""
    if samples.ndim == 4:
        samples = samples.squeeze(1) if samples.shape[1] == 1 else samples.movedim(1, -1)
    resized = []
    for image in samples:
        levels = numpy.clip(255.0 * image.cpu().numpy(), 0, 255).astype(numpy.uint8)
        picture = pil_image.fromarray(levels).resize((width, height), resample=pil_image.Resampling.LANCZOS)
        values = torch.from_numpy(numpy.array(picture).astype(numpy.float32) / 255.0)
        resized.append(values.movedim(-1, 0) if values.ndim == 3 else values)
    return torch.stack(resized).to(samples.device, samples.dtype)


def bislerp(samples: Tensor, width: int, height: int) -> Tensor:
    """Resize a BCHW batch by interpolating channel vectors on the sphere, first along W and then along H.

    Neighbours and weights are those of bilinear interpolation; lengths are interpolated linearly. Computed in float32.
    """
    values = _slerp_last_dimension(samples.float(), width)
    values = _slerp_last_dimension(values.transpose(-1, -2), height).transpose(-1, -2)
    return values.to(samples.dtype)


def _slerp_last_dimension(values_BCHW: Tensor, length: int) -> Tensor:
    batch, channels, rows, old_length = values_BCHW.shape
    positions = torch.arange(old_length, dtype=torch.float32, device=values_BCHW.device)
    next_positions = (positions + 1).clamp(max=old_length - 1)
    first = _stretch(positions, length)
    weights = (first - first.floor()).expand(batch, rows, length).reshape(-1, 1)
    low, high = (_vectors_at(values_BCHW, where.to(torch.int64)) for where in (first, _stretch(next_positions, length)))
    mixed = _slerp(low, high, weights)
    return mixed.reshape(batch, rows, length, channels).movedim(-1, 1)


def _stretch(positions: Tensor, length: int) -> Tensor:
    return torch.nn.functional.interpolate(positions.reshape(1, 1, 1, -1), size=(1, length), mode="bilinear").reshape(-1)


def _vectors_at(values_BCHW: Tensor, columns: Tensor) -> Tensor:
    return values_BCHW.index_select(-1, columns).movedim(1, -1).reshape(-1, values_BCHW.shape[1])


def _slerp(start: Tensor, end: Tensor, weight: Tensor) -> Tensor:
    """Rows of *start* moved towards rows of *end* by *weight* (N×1) along the great circle; N×C each."""
    start_length, end_length = torch.norm(start, dim=-1, keepdim=True), torch.norm(end, dim=-1, keepdim=True)
    start_unit = torch.where(start_length == 0.0, torch.zeros_like(start), start / start_length)
    end_unit = torch.where(end_length == 0.0, torch.zeros_like(end), end / end_length)
    cosine = (start_unit * end_unit).sum(1)
    angle = torch.acos(cosine)
    sine, share = torch.sin(angle), weight.squeeze(1)
    mixed = (torch.sin((1.0 - share) * angle) / sine).unsqueeze(1) * start_unit
    mixed = mixed + (torch.sin(share * angle) / sine).unsqueeze(1) * end_unit
    mixed = mixed * (start_length * (1.0 - weight) + end_length * weight)
    same, opposite = cosine > 1 - NEARLY_PARALLEL, cosine < NEARLY_PARALLEL - 1
    mixed[same] = start[same]
    mixed[opposite] = (start * (1.0 - weight) + end * weight)[opposite]
    return mixed
