"""Nodes around SeedVR2, which restores and enlarges pictures and videos: what it takes, its conditioning, long videos in parts, colours."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_extras.node_extension import extension_of

if TYPE_CHECKING:
    from torch import Tensor

    from comfy_extras.node_values import Latent

torch = lazy_module("torch")
management = lazy_module("comfy.model_management")
colours = lazy_module("comfy_extras.restored_colours")

log = logging.getLogger(__name__)

CHANNELS, SIDE, FRAMES = 16, 8, 4  # of latents; pixels and frames of one
PADDED = 16  # sides of what is encoded are multiples of it
METHODS = ("lab", "wavelet", "adain", "none")
MOST = 16384  # frames
GIB = 1024**3
# What sampling takes, as ComfyUI measured it: for a latent frame of a million pixels, and beside it.
GIB_PER_FRAME, GIB_BESIDE = 0.55, 8.5
GIB_DEVIATION, FREE_DEVIATIONS = 0.55, 4  # the standard deviation of these measurements, and how many of it are left free


class SeedVR2Preprocess(io.ComfyNode):
    """Fills up pictures to the sides and frames that the autoencoder takes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SeedVR2Preprocess",
            display_name="Pre-Process SeedVR2 Input",
            category="image/pre-processors",
            description="Fills up pictures of their final size for SeedVR2. Post-Process SeedVR2 Output restores the alpha channel.",
            search_aliases=["seedvr2", "upscale", "video upscale", "pad", "preprocess"],
            inputs=[io.Image.Input("resized_images", tooltip="Pictures in their final size; several are the frames of one video.")],
            outputs=[io.Image.Output("images", tooltip="What is to be encoded.")],
        )

    @classmethod
    def execute(cls, resized_images: Tensor) -> io.NodeOutput:
        """B × frames × height × width × 3, sides multiples of 16, black at the right and below, 4 n + 1 frames: the last is repeated."""
        videos = _as_videos(resized_images, "SeedVR2Preprocess")[..., :3].clamp(0.0, 1.0)
        frames, height, width = videos.shape[1:4]
        if not frames:
            raise ValueError("SeedVR2Preprocess: there are no pictures; connect at least one frame")
        if min(height, width) < 2:
            raise ValueError(f"SeedVR2Preprocess: pictures of {width}x{height} pixels are too small; both sides must be at least 2")
        videos = torch.nn.functional.pad(videos, (0, 0, 0, -width % PADDED, 0, -height % PADDED))
        last = videos[:, -1:].expand(-1, (1 - frames) % FRAMES, -1, -1, -1)
        return io.NodeOutput(torch.cat((videos, last), dim=1))


class SeedVR2PostProcessing(io.ComfyNode):
    """Cuts restored pictures to the size of what they were made from, and gives them its colours and transparency."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        helps = (
            "How colours come from the originals. lab: shades of CIE L*a*b*, the most faithful; wavelet: coarse colours; "
            "adain: mean and deviation of each channel; none: not at all."
        )
        original = io.Image.Input("original_resized_images", tooltip="What was given to Pre-Process SeedVR2 Input.")
        return io.Schema(
            node_id="SeedVR2PostProcessing",
            display_name="Post-Process SeedVR2 Output",
            category="image/post-processors",
            description="Cuts what SeedVR2 made to the originals' size and length, and corrects its colours by them.",
            search_aliases=["seedvr2", "upscale", "color correction", "color match", "postprocess"],
            inputs=[
                io.Image.Input("images", tooltip="What was decoded."),
                original,
                io.Combo.Input("color_correction_method", options=list(METHODS), default="lab", tooltip=helps),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="The result; width and height are even.")],
        )

    @classmethod
    def execute(cls, images: Tensor, original_resized_images: Tensor, color_correction_method: str) -> io.NodeOutput:
        """Frames one behind the other where *images* were given so."""
        if color_correction_method not in METHODS:
            raise ValueError(f"SeedVR2PostProcessing: there is no method {color_correction_method!r}; there are {', '.join(METHODS)}")
        originals = _as_videos(original_resized_images, "SeedVR2PostProcessing")
        made = _like(_as_videos(images, "SeedVR2PostProcessing"), originals)
        batch, frames, height, width = (min(sizes) for sizes in zip(made.shape[:4], originals.shape[:4]))
        made, originals = made[:batch, :frames, :height, :width], originals[:batch, :frames]
        if color_correction_method != "none":
            made = _coloured(made, originals[..., :3], colours.WAYS[color_correction_method])
        if originals.shape[-1] == 4:
            made = torch.cat((made, originals[:, :, :height, :width, 3:].to(made)), dim=-1)
        made = made[:, :, : height // 2 * 2, : width // 2 * 2]
        return io.NodeOutput(made.flatten(0, 1) if images.ndim == 4 else made)


def _as_videos(images: Tensor, node: str) -> Tensor:
    """*images* with a dimension of videos."""
    if images.ndim not in (4, 5):
        raise ValueError(f"{node}: pictures of (videos ×) frames × height × width × colours are needed, not {list(images.shape)}")
    return images[None] if images.ndim == 4 else images


def _like(made: Tensor, originals: Tensor) -> Tensor:
    """*made*, whose frames stand one behind the other, as as many videos as *originals* are, where they can be those."""
    videos, frames = originals.shape[:2]
    if len(made) != 1 or made.shape[1] % videos or made.shape[1] // videos < frames:
        return made
    return made[0].unflatten(0, (videos, -1))


def _coloured(made: Tensor, originals: Tensor, transfer: Any) -> Tensor:
    """*made* (videos × frames × H × W × 3) with the colours of *originals*, frame by frame on the device of autoencoders."""
    device, result = management.vae_device(), torch.empty_like(made)
    for number in range(len(made)):
        for frame in range(made.shape[1]):
            own, reference = (images[number, frame].to(device).float().movedim(-1, 0) * 2.0 - 1.0 for images in (made, originals))
            if reference.shape != own.shape:
                sides = own.shape[1:]
                reference = torch.nn.functional.interpolate(reference[None], sides, mode="bicubic", antialias=True)[0]
            result[number, frame] = ((transfer(own, reference) + 1.0) / 2.0).clamp(0.0, 1.0).movedim(0, -1)
    return result


class SeedVR2Conditioning(io.ComfyNode):
    """Makes conditioning of what is restored, and of the texts in the model's file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SeedVR2Conditioning",
            display_name="Apply SeedVR2 Conditioning",
            category="model/conditioning",
            description="Conditions SeedVR2 by the latent of what it restores; the texts are in its file.",
            search_aliases=["seedvr2", "upscale", "conditioning"],
            inputs=[
                io.Model.Input("model", tooltip="SeedVR2."),
                io.Latent.Input("vae_conditioning", display_name="latent", tooltip="What is restored, by SeedVR2's autoencoder."),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The positive text of the model's file, with the latent."),
                io.Conditioning.Output(display_name="negative", tooltip="The negative text of the model's file, with the same latent."),
            ],
        )

    @classmethod
    def execute(cls, model: Any, vae_conditioning: Latent) -> io.NodeOutput:
        """Both with ``condition``: the latent, and ones. Texts are copies, as the model's own keep all of its file in memory."""
        latent = _checked(vae_conditioning, "SeedVR2Conditioning")
        network = getattr(getattr(model, "model", None), "diffusion_model", None)
        texts = [getattr(network, f"{name}_conditioning", None) for name in ("positive", "negative")]
        if any(text is None for text in texts):
            raise ValueError(
                f"SeedVR2Conditioning: the model is no SeedVR2 but {type(network).__name__}; load one with Load Diffusion Model"
            )
        condition = torch.cat((latent, torch.ones_like(latent[:, :1])), dim=1)
        return io.NodeOutput(*([[text[None].clone(), {"condition": condition}]] for text in texts if text is not None))


def _checked(latent: Latent, node: str) -> Tensor:
    """The latent's values. Raises ``ValueError`` where they are none of SeedVR2's."""
    samples = latent["samples"]
    if samples.ndim != 5 or samples.shape[1] != CHANNELS:
        raise ValueError(
            f"{node}: a latent of B × {CHANNELS} × frames × rows × columns is needed, not {list(samples.shape)}; encode with SeedVR2's VAE"
        )
    return samples


class SeedVR2TemporalChunk(io.ComfyNode):
    """Cuts the latent of a video into parts that are sampled one by one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        frames = io.Int.Input("frames_per_chunk", default=21, min=1, max=MOST, step=FRAMES, tooltip="Frames of a part: 1, 5, 9, 13 …")
        return io.Schema(
            node_id="SeedVR2TemporalChunk",
            display_name="Split SeedVR2 Latent",
            category="model/latent/batch",
            description="Cuts a long video's latent into parts for conditioning and sampler; Merge SeedVR2 Latents puts them together.",
            search_aliases=["seedvr2", "split", "chunk", "temporal", "video upscale", "rebatch"],
            inputs=[
                io.Latent.Input("latent", tooltip="The encoded video."),
                io.Int.Input(
                    "temporal_overlap", default=0, min=0, max=MOST, tooltip="Latent frames that two parts share; there they fade."
                ),
                io.DynamicCombo.Input(
                    "chunking_mode",
                    options=[io.DynamicCombo.Option("auto", []), io.DynamicCombo.Option("manual", [frames])],
                    tooltip="manual: parts of frames_per_chunk; auto: as long as free memory is foreseen to allow.",
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="latents", is_output_list=True, tooltip="The parts, in order."),
                io.Int.Output(display_name="temporal_overlap", tooltip="Latent frames that two parts share, for Merge SeedVR2 Latents."),
            ],
        )

    @classmethod
    def execute(cls, latent: Latent, temporal_overlap: int, chunking_mode: Mapping[str, Any]) -> io.NodeOutput:
        """The parts and how much two of them share; one, and none, where all fits."""
        samples = _checked(latent, "SeedVR2TemporalChunk")
        if temporal_overlap < 0:
            raise ValueError(f"SeedVR2TemporalChunk: temporal_overlap must be 0 or more, not {temporal_overlap}")
        length, cells = samples.shape[2], _cells_of_a_part(samples, chunking_mode)
        if length <= cells:
            return io.NodeOutput([latent], 0)
        overlap = min(temporal_overlap, cells - 1)
        starts = range(0, length - overlap, cells - overlap)
        return io.NodeOutput([{**latent, "samples": samples[:, :, start : start + cells].contiguous()} for start in starts], overlap)


def _cells_of_a_part(samples: Tensor, chunking_mode: Mapping[str, Any]) -> int:
    """How many latent frames a part has."""
    mode = chunking_mode["chunking_mode"]
    if mode == "manual":
        frames = chunking_mode["frames_per_chunk"]
        if frames < 1 or frames % FRAMES != 1:
            raise ValueError(f"SeedVR2TemporalChunk: frames_per_chunk must be one of 1, 5, 9, 13 …, not {frames}")
        return frames // FRAMES + 1
    if mode != "auto":
        raise ValueError(f"there is no chunking_mode {mode!r}; there are auto and manual")
    free = management.get_free_memory(management.get_torch_device()) / GIB
    megapixels = len(samples) * math.prod(samples.shape[3:]) * SIDE**2 / 1e6
    cells = max(1, int((free - GIB_BESIDE - FREE_DEVIATIONS * GIB_DEVIATION) / (GIB_PER_FRAME * megapixels)))
    log.info(
        "SeedVR2TemporalChunk: %.2f GiB are free, which allow for %d latent frames of %.2f megapixels at once", free, cells, megapixels
    )
    return cells


class SeedVR2TemporalMerge(io.ComfyNode):
    """Puts the parts of a video's latent together."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        helps = "What Split SeedVR2 Latent says; 0: one part behind the other."
        return io.Schema(
            node_id="SeedVR2TemporalMerge",
            display_name="Merge SeedVR2 Latents",
            category="model/latent/batch",
            description="Puts sampled parts together; what two share goes over from the one to the other.",
            search_aliases=["seedvr2", "merge", "temporal", "hann", "crossfade"],
            is_input_list=True,
            inputs=[
                io.Latent.Input("latents", tooltip="The sampled parts, in order."),
                io.Int.Input("temporal_overlap", default=0, min=0, max=MOST, force_input=True, tooltip=helps),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The whole.")],
        )

    @classmethod
    def execute(cls, latents: list[Latent], temporal_overlap: list[int]) -> io.NodeOutput:
        """The whole, without a mask. Raises ``ValueError`` for parts that do not fit together."""
        parts, overlap = [_checked(latent, "SeedVR2TemporalMerge") for latent in latents], temporal_overlap[0]
        if overlap < 0:
            raise ValueError(f"SeedVR2TemporalMerge: temporal_overlap must be 0 or more, not {overlap}")
        _check_parts(parts)
        overlap = min(overlap, parts[0].shape[2] - 1)
        merged = parts[0] if len(parts) == 1 else _merged(parts, parts[0].shape[2] - overlap)
        whole = {name: value for name, value in latents[0].items() if name != "noise_mask"}
        return io.NodeOutput({**whole, "samples": merged})


def _check_parts(parts: list[Tensor]) -> None:
    first = parts[0].shape
    for number, part in enumerate(parts):
        is_longer = 0 < number < len(parts) - 1 and part.shape[2] != first[2]
        if (*part.shape[:2], *part.shape[3:]) != (*first[:2], *first[3:]) or is_longer:
            raise ValueError(
                f"SeedVR2TemporalMerge: part {number} is of {list(part.shape)}, the first of {list(first)}; all must be as large, and only "
                "the last may be shorter"
            )


def _merged(parts: list[Tensor], step: int) -> Tensor:
    """The whole of *parts*, of which one starts every *step* latent frames: what two have fades in the middle third.

    Where the last is shorter than what it shares, the frames behind it are those of the part before.
    """
    first, starts = parts[0], range(0, len(parts) * step, step)
    length = max(start + part.shape[2] for start, part in zip(starts, parts))
    whole, filled = first.new_empty((*first.shape[:2], length, *first.shape[3:])), 0
    for start, part in zip(starts, parts):
        shared, end = min(filled - start, part.shape[2]), start + part.shape[2]
        if shared:
            way = (torch.linspace(0.0, 1.0, shared, device=part.device, dtype=part.dtype) * 3.0 - 1.0).clamp(0.0, 1.0)
            own = (0.5 + 0.5 * torch.cos(way * math.pi)).view(-1, 1, 1)
            whole[:, :, start : start + shared] = whole[:, :, start : start + shared] * own + part[:, :, :shared] * (1.0 - own)
        whole[:, :, start + shared : end] = part[:, :, shared:]
        filled = max(filled, end)
    return whole


comfy_entrypoint = extension_of(SeedVR2Conditioning, SeedVR2Preprocess, SeedVR2PostProcessing, SeedVR2TemporalChunk, SeedVR2TemporalMerge)
