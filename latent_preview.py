"""Pictures of a latent while it is sampled, and the callback that reports them with the progress."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import comfy.utils
import folder_paths
from comfy.cli_args import LatentPreviewMethod, args
from comfy.families.model_errors import ModelFileError
from comfy.lazy_import import lazy_module
from comfy.residency.platform_facts import is_oom

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from comfy.sampling.protocols import SampledPatcher

log = logging.getLogger(__name__)

torch = lazy_module("torch")
pil_image = lazy_module("PIL.Image")
tiny_autoencoder = lazy_module("comfy.taesd.taesd")

PREVIEW_FORMAT = "JPEG"


class _MethodChoice:
    """The preview method of the command line, remembered while a prompt uses another one."""

    def __init__(self) -> None:
        self._default: LatentPreviewMethod | None = None

    @property
    def default(self) -> LatentPreviewMethod:
        return args.preview_method if self._default is None else self._default

    def choose(self, method: LatentPreviewMethod | None) -> None:
        self._default = self.default
        args.preview_method = self._default if method is None else method


_method_choice = _MethodChoice()


def __getattr__(name: str) -> Any:
    """The flags' values under upstream's names: the command line is read after this module is imported."""
    if name == "default_preview_method":
        return _method_choice.default
    if name == "MAX_PREVIEW_RESOLUTION":
        return args.preview_size
    if name == "TAESD":
        return tiny_autoencoder.TAESD
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def preview_to_image(latent_image: Tensor, do_scale: bool = True) -> Image:
    """A PIL picture of H×W×3 values in -1…1, or in 0…1 without *do_scale*."""
    values = (latent_image + 1.0) / 2.0 if do_scale else latent_image
    return pil_image.fromarray(values.clamp(0, 1).mul(255).to(device="cpu", dtype=torch.uint8).numpy())


class LatentPreviewer:
    """Makes a picture of the first latent of a batch."""

    def decode_latent_to_preview(self, x0: Tensor) -> Image:
        """The PIL picture of *x0* (B×C×H×W)."""
        raise NotImplementedError(f"{type(self).__name__} must define decode_latent_to_preview()")

    def decode_latent_to_preview_image(self, preview_format: str, x0: Tensor) -> tuple[str, Image, int]:
        """Format, picture and the longest side it is to be sent with, as progress reports take it."""
        return PREVIEW_FORMAT, self.decode_latent_to_preview(x0), args.preview_size


class TAESDPreviewerImpl(LatentPreviewer):
    """Previews by a tiny autoencoder."""

    def __init__(self, taesd: Any) -> None:
        self.taesd = taesd

    def decode_latent_to_preview(self, x0: Tensor) -> Image:
        """The decoded picture."""
        return preview_to_image(self.taesd.decode(x0[:1])[0].movedim(0, 2))


class TAEHVPreviewerImpl(TAESDPreviewerImpl):
    """Previews of a video's first frame by a tiny video autoencoder."""

    def decode_latent_to_preview(self, x0: Tensor) -> Image:
        """The decoded frame."""
        return preview_to_image(self.taesd.decode(x0[:1, :, :1])[0][0], do_scale=False)


class Latent2RGBPreviewer(LatentPreviewer):
    """Previews by a linear map from latent channels to colours: blurred, but nearly free."""

    def __init__(
        self,
        latent_rgb_factors: Sequence[Sequence[float]],
        latent_rgb_factors_bias: Sequence[float] | None = None,
        latent_rgb_factors_reshape: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.latent_rgb_factors = torch.tensor(latent_rgb_factors, device="cpu").transpose(0, 1)
        self.latent_rgb_factors_bias = None if latent_rgb_factors_bias is None else torch.tensor(latent_rgb_factors_bias, device="cpu")
        self.latent_rgb_factors_reshape = latent_rgb_factors_reshape

    def decode_latent_to_preview(self, x0: Tensor) -> Image:
        """The mapped latent, one pixel per cell; of a video the first frame."""
        if self.latent_rgb_factors_reshape is not None:
            x0 = self.latent_rgb_factors_reshape(x0)
        first = x0[0, :, 0] if x0.ndim == 5 else x0[0]
        self.latent_rgb_factors = self.latent_rgb_factors.to(first)
        if self.latent_rgb_factors_bias is not None:
            self.latent_rgb_factors_bias = self.latent_rgb_factors_bias.to(first)
        return preview_to_image(torch.nn.functional.linear(first.movedim(0, -1), self.latent_rgb_factors, self.latent_rgb_factors_bias))


def get_previewer(device: Any, latent_format: Any) -> LatentPreviewer | None:
    """The previewer that ``--preview-method`` asks for; None for no previews or an unknown kind of latent.

    TAESD needs its decoder in ``models/vae_approx``; without it, or with a damaged one, the linear map is used and a warning says so.
    """
    if args.preview_method == LatentPreviewMethod.NoPreviews:
        return None
    if args.preview_method == LatentPreviewMethod.TAESD:
        path = _decoder_path(latent_format.taesd_decoder_name)
        try:
            if path is not None:
                model = tiny_autoencoder.TAESD(None, path, latent_channels=latent_format.latent_channels)
                return TAESDPreviewerImpl(model.to(device))
            log.warning("TAESD previews need models/vae_approx/%s; showing rough previews instead", latent_format.taesd_decoder_name)
        except Exception as error:
            if not (isinstance(error, OSError | ModelFileError) or is_oom(error)):
                raise
            log.warning("TAESD previews are not possible, showing rough previews instead: %s", error)
    if latent_format.latent_rgb_factors is None:
        return None
    return Latent2RGBPreviewer(
        latent_format.latent_rgb_factors,
        getattr(latent_format, "latent_rgb_factors_bias", None),
        getattr(latent_format, "latent_rgb_factors_reshape", None),
    )


def _decoder_path(stem: str | None) -> str | None:
    names = [] if stem is None else [name for name in folder_paths.get_filename_list("vae_approx") if name.startswith(stem)]
    return folder_paths.get_full_path("vae_approx", names[0]) if names else None


def prepare_callback(
    model: SampledPatcher, steps: int, x0_output_dict: dict[str, Any] | None = None
) -> Callable[[int, Any, Any, int], None]:
    """A sampler callback ``(step, picture, latent, total)`` that reports progress and previews for the running node.

    With *x0_output_dict* the latest picture's latent is kept in it under ``x0``. Of several latents in one the first is
    shown. The callback raises what the progress hook raises.
    """
    previewer = get_previewer(model.load_device, model.model.latent_format)
    progress = comfy.utils.ProgressBar(steps)

    def callback(step: int, x0: Any, x: Any, total_steps: int) -> None:
        if x0_output_dict is not None:
            x0_output_dict["x0"] = x0
        shown = x0.unbind()[0] if getattr(x0, "is_nested", False) else x0
        preview = None if previewer is None else _preview(previewer, shown)
        progress.update_absolute(step + 1, total_steps, preview)

    return callback


def _preview(previewer: LatentPreviewer, latent: Tensor) -> tuple[str, Image, int] | None:
    """The preview of *latent*; None where memory does not do for it: the picture itself is worth more."""
    try:
        return previewer.decode_latent_to_preview_image(PREVIEW_FORMAT, latent)
    except Exception as error:
        if not is_oom(error):
            raise
        log.warning("no preview of this step: %s", error)
        return None


def set_preview_method(override: str | None = None) -> None:
    """Use the preview method named *override* from now on; None, "default" or an unknown name mean the command line's."""
    _method_choice.choose(LatentPreviewMethod.from_string(override) if override and override != "default" else None)
