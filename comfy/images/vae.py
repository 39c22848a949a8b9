"""The autoencoder that nodes use: pictures in [0, 1] or sounds with channels last, memory estimates, batches, tiles."""

import contextlib
import logging
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import torch

import comfy.model_management
import comfy.model_patcher
import comfy.utils
from comfy import made_by
from comfy.families.quantised_weights import plain_weights
from comfy.families.weight_source import StateDictSource, WeightSource
from comfy.images.autoencoders import SUPPORTED, WORKING_DTYPES, find_autoencoder
from comfy.images.tiled_sounds import TiledSounds
from comfy.images.tiled_videos import TiledVideos
from comfy.model_detection import describe_tensors
from comfy.patching.model_weights import ModelWeights
from comfy.residency.host_heap import activations_returned

log = logging.getLogger(__name__)

MANY_FRAMES = 8192
AUDIO_RATE_HZ = 44100


class VAE(TiledVideos, TiledSounds):
    """An autoencoder and its patcher. If there are no known weights, ``first_stage_model`` is None and there is no patcher.

    *sd* is a state dict (published or diffusers' names, no prefix) or a weight source. Latents are B x channels x height x
    width, pictures B x height x width x channels in [0, 1]; results are on ``output_device``. Where ``latent_dim`` is 3, latents are
    B x channels x frames x height x width, decoded pictures have a dimension of frames as well, and a batch of pictures that is encoded
    is one video. Those of sound take B x samples x channels in [-1, 1] at ``audio_sample_rate`` Hz instead.
    """

    def __init__(
        self,
        sd: WeightSource | MutableMapping[str, torch.Tensor] | None = None,
        device: torch.device | None = None,
        config: Any = None,
        dtype: torch.dtype | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        source = plain_weights(StateDictSource(sd or {}, metadata=metadata) if sd is None or isinstance(sd, MutableMapping) else sd)
        found = find_autoencoder(source)
        self.latent_dim = 2
        self.output_channels = 3
        self.pad_channel_value: float | str | None = None
        self.extra_1d_channel: int | None = None
        self.audio_sample_rate = AUDIO_RATE_HZ
        self.process_input: Callable[[torch.Tensor], torch.Tensor] = lambda image: image * 2.0 - 1.0
        self.process_output: Callable[[torch.Tensor], torch.Tensor] = lambda image: image.add_(1.0).div_(2.0).clamp_(0.0, 1.0)
        self.working_dtypes = list(WORKING_DTYPES if found is None else found.working_dtypes)
        self.disable_offload = False
        self.not_video = False
        self.crop_input = True
        self.size: int | None = None
        self.first_stage_model: Any = None
        self._found, self.source_name = "", source.name
        if found is None:
            self._found = f" {source.name} holds {describe_tensors(source.shapes())}."
            log.warning("no VAE weights were found in %s; there is no VAE", source.name)
            return
        self._kind = found
        self.latent_dim, self.pad_channel_value = found.latent_dim, found.pad_channel_value
        self.disable_offload, self.crop_input = found.is_whole, found.crops
        self.downscale_ratio, self.upscale_ratio = found.downscale_ratio, found.upscale_ratio
        self.downscale_index_formula, self.upscale_index_formula = found.downscale_index_formula, found.upscale_index_formula
        self.latent_channels = found.latent_channels
        self.output_channels = found.image_channels
        if found.sample_rate_hz is not None:
            self.audio_sample_rate, self.extra_1d_channel, self.disable_offload = found.sample_rate_hz, found.extra_1d_channel, True
            self.audio_sample_rate_output = found.output_rate_hz or found.sample_rate_hz
            self.process_input = self.process_output = lambda sound: sound
        if found.in_parts:
            self.process_output = lambda colours: colours
        management = comfy.model_management
        self.device = management.vae_device() if device is None else device
        self.vae_dtype = management.vae_dtype(self.device, self.working_dtypes) if dtype is None else dtype
        self.output_device = management.intermediate_device()
        self.first_stage_model = found.build().eval()
        found.load(self.first_stage_model, source, self.vae_dtype)
        self.patcher = comfy.model_patcher.CoreModelPatcher(
            self.first_stage_model, load_device=self.device, offload_device=management.vae_offload_device()
        )

    def memory_used_encode(self, shape: tuple[int, ...], dtype: torch.dtype) -> float:
        """Bytes of working memory to encode pictures of *shape* (B x channels x height x width) in *dtype*."""
        return self._kind.encode_bytes(shape, comfy.model_management.dtype_size(dtype))

    def memory_used_decode(self, shape: tuple[int, ...], dtype: torch.dtype) -> float:
        """Bytes of working memory to decode latents of *shape* (B x channels x height x width) in *dtype*."""
        return self._kind.decode_bytes(shape, comfy.model_management.dtype_size(dtype))

    def model_size(self) -> int:
        """Bytes of the weights."""
        if self.size is None:
            self.size = comfy.model_management.module_size(self._network())
        return self.size

    def throw_exception_if_invalid(self) -> None:
        """Raise ``RuntimeError`` if there are no weights."""
        self._network()

    def _check_latent(self, latent: torch.Tensor) -> None:
        """Raise ``RuntimeError`` if there are no weights, and ``ValueError`` for a latent of another family."""
        self.throw_exception_if_invalid()
        user = f"the VAE {self.source_name}"
        made_by.check_latent(latent, self.latent_channels, user)
        made_by.check_dimensions(latent, self.latent_dim, user)

    def _network(self) -> Any:
        if self.first_stage_model is None:
            raise RuntimeError(
                f"there is no VAE: the file it was to come from holds no autoencoder that is supported.{self._found} "
                f"Supported: {SUPPORTED}. Use a checkpoint with a VAE or a VAE loader node"
            )
        return self.first_stage_model

    def vae_encode_crop_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """*pixels* (… x height x width x channels; B x samples x channels) cropped around the middle to the latent grid, and to the model's
        channels.

        Channels that are missing are filled where the model says with what.
        """
        if self.crop_input:
            ratio = self.spacial_compression_encode()
            for axis in range(max(1, pixels.ndim - 3), pixels.ndim - 1):
                side = pixels.shape[axis]
                pixels = pixels.narrow(axis, side % ratio // 2, side // ratio * ratio)
        missing = self.output_channels - pixels.shape[-1]
        filling = self.pad_channel_value
        if missing > 0 and isinstance(filling, str):
            return torch.nn.functional.pad(pixels, (0, missing), mode=filling)
        if missing > 0 and filling is not None:
            return torch.nn.functional.pad(pixels, (0, missing), value=float(filling))
        return pixels[..., : self.output_channels]

    def vae_output_dtype(self) -> torch.dtype:
        """The dtype of results."""
        return comfy.model_management.intermediate_dtype()

    def decode(self, samples_in: torch.Tensor, vae_options: Mapping[str, Any] | None = None) -> torch.Tensor:
        """Decode latents to pictures, as many at a time as memory allows, and in tiles if the device runs out of memory.

        Raises ``RuntimeError`` without weights.
        """
        self._check_latent(samples_in)
        samples_in = self._in_latent_dimensions(samples_in)
        tiled: Any = self.decode_tiled_3d if self.latent_dim == 3 else self.decode_tiled_1d if self._is_of_sound() else self.decode_tiled_
        tiled = self._decode_batch if self._kind.in_parts else tiled
        memory_used = self.memory_used_decode(samples_in.shape, self.vae_dtype)
        pictures = self._in_batches(samples_in, memory_used, self._decode_batch, "decoding")
        pictures = tiled(samples_in) if pictures is None else pictures
        return pictures.to(self.output_device).movedim(1, -1)

    def encode(self, pixel_samples: torch.Tensor) -> torch.Tensor:
        """Encode pictures to latents, in tiles if the device runs out of memory. Sides are cropped to the latent grid.

        Raises ``RuntimeError`` without weights.
        """
        self.throw_exception_if_invalid()
        pixels = self._as_network_takes(pixel_samples)
        tiled: Any = self.encode_tiled_3d if self.latent_dim == 3 else self.encode_tiled_1d if self._is_of_sound() else self.encode_tiled_
        tiled = self._encode_batch if self._kind.in_parts else tiled
        latents = self._in_batches(pixels, self.memory_used_encode(pixels.shape, self.vae_dtype), self._encode_batch, "encoding")
        latents = tiled(pixels) if latents is None else latents
        return made_by.mark(latents, self.source_name)

    def _is_of_sound(self) -> bool:
        return self.latent_dim == 1 or self.extra_1d_channel is not None

    def _in_latent_dimensions(self, samples: torch.Tensor) -> torch.Tensor:
        """*samples* with a dimension of frames or without one, as the network has it."""
        if self.latent_dim == 2 and samples.ndim == 5:
            return samples[:, :, 0]
        return samples.unsqueeze(2) if self.latent_dim == 3 and samples.ndim == 4 else samples

    def _as_network_takes(self, pixel_samples: torch.Tensor) -> torch.Tensor:
        """Pictures cropped to the grid, channels first; for a network of videos, as the frames of one (``not_video``: one of each)."""
        pixels = self.vae_encode_crop_pixels(pixel_samples).movedim(-1, 1)
        if self.latent_dim != 3 or pixels.ndim == 5:
            return pixels
        return pixels.unsqueeze(2) if self.not_video else pixels.movedim(1, 0).unsqueeze(0)

    def _in_batches(
        self, inputs: torch.Tensor, memory_used: float, run: Callable[[torch.Tensor], torch.Tensor], doing: str
    ) -> torch.Tensor | None:
        """The results of *run* for *inputs*, as many at a time as memory allows; None without inputs, or if memory ran out meanwhile.

        Raises what loading the weights raises: where there is no room for them, tiles do not help.
        """
        self._load(memory_used)
        batch = max(1, int(self.patcher.get_free_memory(self.device) / max(1, memory_used)))
        try:
            return self._collected([inputs[start : start + batch] for start in range(0, len(inputs), batch)], len(inputs), run)
        except RuntimeError as error:
            comfy.model_management.raise_non_oom(error)
            log.warning("%s ran out of memory; %s in tiles instead", doing, doing)
        comfy.model_management.soft_empty_cache()  # here the error, which keeps what was computed alive, is gone
        return None

    def _collected(self, parts: Sequence[torch.Tensor], count: int, run: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor | None:
        if len(parts) == 1:
            return run(parts[0]).to(device=self.output_device, dtype=self.vae_output_dtype())
        outputs, start = None, 0
        for part in parts:
            out = run(part)
            if outputs is None:
                outputs = torch.empty((count, *out.shape[1:]), device=self.output_device, dtype=self.vae_output_dtype())
            outputs[start : start + len(part)].copy_(out)
            start += len(part)
            del out
        return outputs

    def _load(self, memory_used: float) -> None:
        comfy.model_management.load_models_gpu([self.patcher], memory_required=memory_used, force_full_load=self.disable_offload)

    def _decode_batch(self, latents: torch.Tensor) -> torch.Tensor:
        network, latents = self._network(), latents.to(device=self.device, dtype=self.vae_dtype)
        with self._activations():
            if self._kind.in_parts:
                shape = network.decode_output_shape(latents.shape)
                return network.decode(latents, output_buffer=torch.empty(shape, device=self.output_device, dtype=self.vae_output_dtype()))
            picture = network.decode(latents)
        return self.process_output(picture.to(device=self.output_device, dtype=self.vae_output_dtype(), copy=True))

    def _encode_batch(self, pixels: torch.Tensor) -> torch.Tensor:
        with self._activations():
            if self._kind.in_parts:
                return self._network().encode(self.process_input(pixels).to(self.vae_dtype), device=self.device)
            return self._network().encode(self.process_input(pixels).to(device=self.device, dtype=self.vae_dtype))

    def _activations(self) -> contextlib.AbstractContextManager[None]:
        return activations_returned(self.device) if self.latent_dim == 3 else contextlib.nullcontext()

    def decode_tiled_(self, samples: torch.Tensor, tile_x: int = 64, tile_y: int = 64, overlap: int = 16) -> torch.Tensor:
        """Pictures, channels first: the mean of three tilings (sizes in latent pixels), whose seams do not coincide."""
        tiles = ((tile_x // 2, tile_y * 2), (tile_x * 2, tile_y // 2), (tile_x, tile_y))

        def run(latents: torch.Tensor) -> torch.Tensor:
            return self._network().decode(latents.to(device=self.device, dtype=self.vae_dtype)).to(self.vae_output_dtype())

        return self.process_output(self._tiled(samples, run, tiles, overlap, self.upscale_ratio, self.output_channels) / 3.0)

    def encode_tiled_(self, pixel_samples: torch.Tensor, tile_x: int = 512, tile_y: int = 512, overlap: int = 64) -> torch.Tensor:
        """Latents of channels-first pictures: the mean of three tilings (sizes in picture pixels)."""
        tiles = ((tile_x, tile_y), (tile_x * 2, tile_y // 2), (tile_x // 2, tile_y * 2))

        def run(pixels: torch.Tensor) -> torch.Tensor:
            if min(pixels.shape[2:]) < self.downscale_ratio:
                raise ValueError(
                    f"a tile of {pixels.shape[3]}x{pixels.shape[2]} pixels is left over at the edge, less than one latent "
                    f"pixel: tile size and overlap must be multiples of {self.downscale_ratio}"
                )
            return self._encode_batch(pixels).to(self.vae_output_dtype())

        return self._tiled(pixel_samples, run, tiles, overlap, 1 / self.downscale_ratio, self.latent_channels) / 3.0

    def _tiled(
        self,
        inputs: torch.Tensor,
        run: Callable[[torch.Tensor], torch.Tensor],
        tiles: tuple[tuple[int, int], ...],
        overlap: int,
        scale: float,
        channels: int,
    ) -> torch.Tensor:
        """The sum of the tiled results for every entry of *tiles*."""
        try:
            steps = sum(
                len(inputs) * comfy.utils.get_tiled_scale_steps(inputs.shape[3], inputs.shape[2], tile_x, tile_y, overlap)
                for tile_x, tile_y in tiles
            )
        except ValueError as error:
            raise ValueError(
                f"{error}. Every tiling is also made with tiles of half the width and of half the height: "
                "choose an overlap below half of the tile size, or larger tiles"
            ) from error
        progress = comfy.utils.ProgressBar(steps)
        parts = [
            comfy.utils.tiled_scale(
                inputs,
                run,
                tile_x,
                tile_y,
                overlap,
                upscale_amount=scale,
                out_channels=channels,
                output_device=self.output_device,
                pbar=progress,
            )
            for tile_x, tile_y in tiles
        ]
        return parts[0] + parts[1] + parts[2]

    def decode_tiled(
        self,
        samples: torch.Tensor,
        tile_x: int | None = None,
        tile_y: int | None = None,
        overlap: int | None = None,
        tile_t: int | None = None,
        overlap_t: int | None = None,
    ) -> torch.Tensor:
        """Decode latents to pictures in tiles (sizes in latent pixels and frames)."""
        self._check_latent(samples)
        if self._kind.in_parts:
            return self.decode(samples)
        samples = self._in_latent_dimensions(samples)
        self._load(self.memory_used_decode(self.largest_tile(samples.shape, tile_x, tile_y, tile_t), self.vae_dtype))
        if self.latent_dim == 3:
            return self.decode_video_tiles(samples, tile_x, tile_y, overlap, tile_t, overlap_t).movedim(1, -1)
        if self._is_of_sound():
            return self.decode_tiled_1d(samples, **_given(tile_x=tile_x, overlap=overlap)).movedim(1, -1)
        return self.decode_tiled_(samples, **_given(tile_x=tile_x, tile_y=tile_y, overlap=overlap)).movedim(1, -1)

    def encode_tiled(
        self,
        pixel_samples: torch.Tensor,
        tile_x: int | None = None,
        tile_y: int | None = None,
        overlap: int | None = None,
        tile_t: int | None = None,
        overlap_t: int | None = None,
    ) -> torch.Tensor:
        """Encode pictures to latents in tiles (sizes in picture pixels and frames)."""
        self.throw_exception_if_invalid()
        if self._kind.in_parts:
            return self.encode(pixel_samples)
        pixels = self._as_network_takes(pixel_samples)
        self._load(self.memory_used_encode(self.largest_tile(pixels.shape, tile_x, tile_y), self.vae_dtype))
        if self.latent_dim == 3:
            latents = self.encode_video_tiles(pixels, tile_x, tile_y, overlap, tile_t, overlap_t)
        elif self._is_of_sound():
            latents = self.encode_tiled_1d(pixels, **_given(tile_x=tile_x, overlap=overlap))
        else:
            latents = self.encode_tiled_(pixels, **_given(tile_x=tile_x, tile_y=tile_y, overlap=overlap))
        return made_by.mark(latents, self.source_name)

    def get_sd(self) -> dict[str, torch.Tensor]:
        """The weights under their published names."""
        weights = ModelWeights(self._network())
        return {key: weights.get(key) for key in weights}

    def spacial_compression_decode(self) -> int:
        """Picture pixels per latent pixel along one side."""
        return self.upscale_ratio[-1] if self.latent_dim == 3 else self.upscale_ratio

    def spacial_compression_encode(self) -> int:
        """Picture pixels per latent pixel along one side."""
        return self.downscale_ratio[-1] if self.latent_dim == 3 else self.downscale_ratio

    def temporal_compression_decode(self) -> int | None:
        """Frames per latent frame; None where latents have no time dimension."""
        return round(self.upscale_ratio[0](MANY_FRAMES) / MANY_FRAMES) if self.latent_dim == 3 else None

    def is_dynamic(self) -> bool:
        """Whether the host streams the weights from files on demand."""
        patcher = getattr(self, "patcher", None)
        return patcher is not None and patcher.is_dynamic()


def _given(**options: int | None) -> dict[str, int]:
    return {name: value for name, value in options.items() if value is not None}
