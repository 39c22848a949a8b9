"""What applies Uni3C's ControlNet as a model of Wan runs: after each of the model's first blocks."""

from __future__ import annotations

from typing import Any, Self

import torch

import comfy.model_management
import comfy.utils
from comfy.control.model_patches import Arguments, PatchOfNetwork
from comfy.ldm.wan.uni3c import LATENT_CHANNELS

MASKS = 4  # channels beside the latents of a picture to video: one for each frame of a latent one
Going = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # tokens, time and rotations on their way through one call's blocks


class Uni3CPatch(PatchOfNetwork):
    """A ``double_block`` patch that sees *render_video* (F x height x width x 3), *strength* strong, between two levels of noise.

    The video's last frame stands still where it is shorter than the one that is made; its latents are kept while these have one size.
    """

    def __init__(
        self,
        model_patch: Any,
        render_video: torch.Tensor,
        vae: Any,
        latent_format: Any,
        strength: float,
        sigma_start: float,
        sigma_end: float,
    ) -> None:
        super().__init__(model_patch)
        self.render_video, self.vae, self.latent_format = render_video, vae, latent_format
        self.strength, self.sigma_start, self.sigma_end = strength, sigma_start, sigma_end
        self._going: Going | None = None

    def to(self, device_or_dtype: torch.device | torch.dtype) -> Self:
        """Itself; see the base class."""
        self._going = None
        return super().to(device_or_dtype)

    def __call__(self, arguments: Arguments) -> Arguments:
        """*arguments*, with ``img`` changed in place."""
        img, number, network = arguments["img"], arguments["block_index"], self.model_patch.model
        if number == 0:
            self._going = self._begun(arguments) if self._acts(arguments["transformer_options"]) else None
        if self._going is None or number >= network.num_layers:
            return arguments
        tokens, time, turns = self._going
        tokens, added = network.forward_block(number, tokens, time, turns)
        self._going = None if number + 1 == network.num_layers else (tokens, time, turns)
        added = added.to(img.dtype) * self.strength
        start = arguments.get("img_offset", 0)
        img[:, start : start + added.shape[1]] += added.repeat(len(img) // len(added), 1, 1)
        return arguments

    def _acts(self, options: Arguments) -> bool:
        sigmas = options.get("sigmas")
        return sigmas is None or self.sigma_end <= float(sigmas[0]) <= self.sigma_start

    def _begun(self, arguments: Arguments) -> Going:
        """What goes through the first block: once for all prompts of the call, which have the same latents."""
        x, dtype = arguments["x"], arguments["img"].dtype
        prompts = len(arguments["transformer_options"].get("cond_or_uncond", (0,))) or 1
        count = len(x) if len(x) % prompts else len(x) // prompts
        time = arguments["vec"][:count]
        known = LATENT_CHANNELS + MASKS
        given = x[:count, :known].to(dtype)
        given = torch.nn.functional.pad(given, (0,) * 7 + (known - given.shape[1],))  # text to video has no mask
        shown = self._rendered(given.shape[2:]).to(given)
        tokens, turns = self.model_patch.model.process_input(torch.cat((given, shown.expand(count, -1, -1, -1, -1)), dim=1))
        return tokens, (time[:, 0] if time.ndim == 3 else time).to(dtype), turns

    def _rendered(self, sides: torch.Size) -> torch.Tensor:
        """Latents of the rendering for latents of *sides* (frames, height, width), as the sampler has them."""
        if self.seen is None or self.seen.shape[2:] != sides:
            cells, height, width = sides
            side, rate = self.vae.spacial_compression_encode(), self.vae.temporal_compression_decode() or 1
            length = (cells - 1) * rate + 1
            frames = self.render_video[:length]
            frames = torch.cat((frames, frames[-1:].expand(length - len(frames), -1, -1, -1)))
            scaled = comfy.utils.common_upscale(frames.movedim(-1, 1), width * side, height * side, "bilinear", "center").movedim(1, -1)
            loaded = comfy.model_management.loaded_models(only_currently_used=True)
            self.seen = self.latent_format.process_in(self.vae.encode(scaled))
            comfy.model_management.load_models_gpu(loaded)  # the autoencoder may have taken their place
        assert self.seen is not None
        return self.seen
