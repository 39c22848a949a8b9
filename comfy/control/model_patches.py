"""What applies model patches as a diffusion model runs: patches in ``transformer_options``, one per application.

Pictures are B x height x width x 3 in 0…1. Each patch names its network among its ``models()``, so that the residency counts it and brings
it to the device with the model. Used by the sampler's thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch

import comfy.latent_formats
import comfy.model_management
import comfy.utils

Arguments = dict[str, Any]
LAYERS = 30  # of Z-Image, over which the blocks of its ControlNets are spread
LOW, MIDDLE = -20, -11  # SigLIP's layers that USO looks at, beside the last but one


class PatchOfNetwork:
    """A network and what it looks at, ``seen``."""

    def __init__(self, model_patch: Any) -> None:
        self.model_patch = model_patch
        self.seen: torch.Tensor | None = None

    def to(self, device_or_dtype: torch.device | torch.dtype) -> Self:
        """Itself, with what it looks at on a device; a dtype changes nothing."""
        if isinstance(device_or_dtype, torch.device) and self.seen is not None:
            self.seen = self.seen.to(device_or_dtype)
        return self

    def models(self) -> list[Any]:
        """The patchers that must be loaded with the model."""
        return [self.model_patch]


class _PicturePatch(PatchOfNetwork):
    """A patch that looks at a picture's latent, which is encoded again where the model works on another size."""

    size: tuple[int, int] | None = None  # of the picture behind ``seen``, in pixels

    def __init__(self, model_patch: Any, vae: Any) -> None:
        super().__init__(model_patch)
        self.vae = vae

    def _encoded(self, pictures: Mapping[str, torch.Tensor | None]) -> torch.Tensor:
        raise NotImplementedError

    def look_at(self, pictures: Mapping[str, torch.Tensor | None]) -> None:
        """Encode *pictures*, all of one size."""
        self.seen = self._encoded(pictures)
        self.size = next((picture.shape[1], picture.shape[2]) for picture in pictures.values() if picture is not None)

    def _fit(self, x: torch.Tensor, pictures: Mapping[str, torch.Tensor | None]) -> torch.Tensor:
        """What is seen of *pictures* for a latent *x* (… x height x width)."""
        side = self.vae.spacial_compression_encode()
        height, width = x.shape[-2] * side, x.shape[-1] * side
        if self.seen is None or self.size != (height, width):
            loaded = comfy.model_management.loaded_models(only_currently_used=True)
            self.look_at({name: None if picture is None else _scaled(picture, width, height) for name, picture in pictures.items()})
            comfy.model_management.load_models_gpu(loaded)  # the autoencoder may have taken their place
        assert self.seen is not None
        return self.seen.to(x.device)


def _scaled(picture: torch.Tensor, width: int, height: int) -> torch.Tensor:
    return comfy.utils.common_upscale(picture.movedim(-1, 1), width, height, "area", "center").movedim(1, -1)


class DiffSynthPatch(_PicturePatch):
    """A DiffSynth ControlNet of Qwen-Image, after each block. *mask* (B x 1 x height x width) is 1 where the picture holds."""

    def __init__(self, model_patch: Any, vae: Any, image: torch.Tensor, strength: float, mask: torch.Tensor | None = None) -> None:
        super().__init__(model_patch, vae)
        self.strength, self.mask, self.pictures = strength, mask, {"image": image}
        self._tokens: torch.Tensor | None = None  # of ``seen``, from a network's first block to its last
        self.look_at(self.pictures)

    def _encoded(self, pictures: Mapping[str, torch.Tensor | None]) -> torch.Tensor:
        latent = self.vae.encode(pictures["image"])
        network = self.model_patch.model
        if network.additional_in_dim:
            if self.mask is None:
                mask = torch.ones_like(latent[:, : network.additional_in_dim // 4])
            else:
                mask = comfy.utils.common_upscale(self.mask, latent.shape[-1], latent.shape[-2], "bilinear", "none").unsqueeze(2)
            latent = torch.cat([latent, comfy.utils.repeat_to_batch_size(mask.to(latent), len(latent))], dim=1)
        return latent

    def __call__(self, arguments: Arguments) -> Arguments:
        """*arguments* of a ``double_block`` patch, with ``img`` changed in place."""
        img, number, network = arguments["img"], arguments["block_index"], self.model_patch.model
        if number == 0:
            self._tokens = network.process_input_latent_image(self._fit(arguments["x"], self.pictures)).to(img.dtype)
        assert self._tokens is not None
        own = img[:, : self._tokens.shape[1]]
        own += network.control_block(own, self._tokens, number) * self.strength
        if number + 1 == arguments["transformer_options"]["total_blocks"]:
            self._tokens = None
        return arguments


class ZImageControlPatch(_PicturePatch):
    """A Fun ControlNet of Z-Image, after refining layers and some layers. *mask* (B x 1 x height x width) is 1 where *inpaint_image* holds.

    One of *image* and *inpaint_image* may be None.
    """

    def __init__(
        self,
        model_patch: Any,
        vae: Any,
        image: torch.Tensor | None,
        strength: float,
        inpaint_image: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
    ) -> None:
        super().__init__(model_patch, vae)
        self.strength, self.mask, self.pictures = strength, mask, {"image": image, "inpaint": inpaint_image}
        self._state: tuple[int, torch.Tensor] | None = None  # the number of blocks that ran, and the next one's input
        if image is None or inpaint_image is None or image.shape == inpaint_image.shape:
            self.look_at(self.pictures)

    def to(self, device_or_dtype: torch.device | torch.dtype) -> Self:
        """As for all, without what is left of an earlier run."""
        self._state = None
        return super().to(device_or_dtype)

    def _latent(self, picture: torch.Tensor) -> torch.Tensor:
        return comfy.latent_formats.Flux().process_in(self.vae.encode(picture))

    def _encoded(self, pictures: Mapping[str, torch.Tensor | None]) -> torch.Tensor:
        image, fill = pictures["image"], pictures["inpaint"]
        known = image if image is not None else fill
        assert known is not None
        grey = torch.full_like(known, 0.5)
        latent = self._latent(grey if image is None else image)
        if not self.model_patch.model.additional_in_dim:
            return latent
        fill = grey if fill is None else fill
        if self.mask is None:
            return torch.cat([latent, torch.zeros_like(latent[:, :1]), self._latent(fill)], dim=1)
        holds = comfy.utils.common_upscale(self.mask, fill.shape[2], fill.shape[1], "bilinear", "center").movedim(1, -1).round()
        filled = self._latent((fill - 0.5) * holds.to(fill) + 0.5)
        mask = comfy.utils.common_upscale(self.mask.to(filled), filled.shape[-1], filled.shape[-2], "nearest", "center")
        return torch.cat([latent, comfy.utils.repeat_to_batch_size(mask, len(latent)), filled], dim=1)

    def __call__(self, arguments: Arguments) -> Arguments:
        """*arguments* of a ``noise_refiner`` or ``double_block`` patch, with ``img`` changed in place."""
        if len(arguments["vec"]) != len(arguments["img"]):
            raise ValueError(f"{self.model_patch.model.source_name} works with no pictures to look at beside its own; remove them")
        number, network = arguments["block_index"], self.model_patch.model
        turns, time, x = arguments["pe"], arguments["vec"], arguments["img_input"]
        if arguments.get("block_type") == "noise_refiner":
            if number == 0:
                latent = self._fit(arguments["x"], self.pictures)
                self._state = 0, network(latent.to(x.dtype), turns, time)
            assert self._state is not None
            added, tokens = self._run(network.refine, number, x, turns, time)
            self._state = 0, tokens
        else:
            apart = round(LAYERS / network.n_control_layers)
            if number % apart or number // apart >= network.n_control_layers:
                return arguments
            assert self._state is not None
            added, tokens = self._run(network.control, number // apart, x, turns, time)
            self._state = (number // apart + 1, tokens) if number // apart + 1 < network.n_control_layers else None
        if added is not None:
            arguments["img"][:, : added.shape[1]] += added * self.strength
        return arguments

    def _run(self, step: Callable[..., Any], number: int, x: torch.Tensor, turns: torch.Tensor, time: torch.Tensor) -> Any:
        assert self._state is not None
        tokens = self._state[1]
        return step(number, tokens, x[:, : tokens.shape[1]], turns, time)


class StylePatch(PatchOfNetwork):
    """USO's tokens before the text. *states*: 3 (SigLIP's low, middle, high layer) x B x tokens x width."""

    def __init__(self, model_patch: Any, states: torch.Tensor) -> None:
        super().__init__(model_patch)
        self.seen = states

    def __call__(self, arguments: Arguments) -> Arguments:
        """*arguments* of a ``post_input`` patch with longer ``txt`` and ``txt_ids``."""
        text, places = arguments["txt"], arguments["txt_ids"]
        assert self.seen is not None
        tokens = self.model_patch.model(self.seen.to(text)).to(text.dtype)
        tokens = comfy.utils.repeat_to_batch_size(tokens, len(text))
        own_places = places.new_zeros(len(places), tokens.shape[1], places.shape[2])
        return {**arguments, "txt": torch.cat([tokens, text], dim=1), "txt_ids": torch.cat([own_places, places], dim=1)}


def style_states(seen: Any, network: Any) -> torch.Tensor:
    """What :class:`StylePatch` takes, of *seen*, an image encoder's output. Raises ``ValueError`` for another encoder than *network*'s."""
    layers = getattr(seen, "all_hidden_states", None)
    wanted = (network.siglip_token_nums, network.siglip_token_dims)
    if layers is None or layers.shape[1] < -LOW or tuple(layers.shape[2:]) != wanted:
        found = "one that gives its last layers only" if layers is None else f"one of {layers.shape[1]} x {list(layers.shape[2:])}"
        raise ValueError(f"{network.source_name} needs a SigLIP of at least {-LOW} layers of {list(wanted)} (tokens, width), not {found}")
    return torch.stack((layers[:, LOW], layers[:, MIDDLE], seen.penultimate_hidden_states))


def check_model(model_patch: Any, model: Any, kind: Any, sizes: Mapping[str, int], least_blocks: str = "") -> None:
    """Raise ``ValueError``, naming both files, unless *model*'s is a *kind* (or one of several) whose network has the attributes *sizes*.

    *least_blocks*: an attribute with its blocks, of which *model_patch* must correct each.
    """
    base: Any = model.model
    network = model_patch.model
    file = getattr(base, "source_name", "") or "the diffusion model"
    found = {name: getattr(base.diffusion_model, name, None) for name in sizes}
    if not isinstance(base, kind) or found != sizes:
        own = f" of {found}" if isinstance(base, kind) else ""
        known = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise ValueError(f"{network.source_name} changes a {known} of {dict(sizes)}; {file} holds a {type(base).__name__}{own}")
    if least_blocks and len(getattr(base.diffusion_model, least_blocks)) > len(network.controlnet_blocks):
        blocks = len(getattr(base.diffusion_model, least_blocks))
        raise ValueError(f"{network.source_name} is for {len(network.controlnet_blocks)} blocks; {file} has {blocks}")


def check_autoencoder(model_patch: Any, vae: Any, dimensions: int, channels: int) -> None:
    """Raise ``ValueError``, naming both files, unless *vae* makes latents of so many dimensions (2 pictures, 3 videos) and channels."""
    if (vae.latent_dim, vae.latent_channels) != (dimensions, channels):
        raise ValueError(
            f"{model_patch.model.source_name} looks at latents of {channels} channels in {dimensions} dimensions; "
            f"the VAE {vae.source_name} makes those of {vae.latent_channels} in {vae.latent_dim}"
        )
