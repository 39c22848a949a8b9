"""How each family scales its latents between the sampler and the autoencoder, and how to preview them as RGB."""

import torch


class LatentFormat:
    """The identity format of a four-channel latent at an eighth of the picture's size.

    ``latent_rgb_factors`` is a latent_channels x 3 matrix for previews, ``latent_rgb_factors_bias`` its offset;
    ``taesd_decoder_name`` names the file stem of the small preview decoder.
    """

    scale_factor = 1.0
    latent_channels = 4
    latent_dimensions = 2
    latent_rgb_factors: list[list[float]] | None = None
    latent_rgb_factors_bias: list[float] | None = None
    latent_rgb_factors_reshape = None
    taesd_decoder_name: str | None = None
    spacial_downscale_ratio = 8
    temporal_downscale_ratio = 1

    def process_in(self, latent: torch.Tensor) -> torch.Tensor:
        """The sampler's latent for an autoencoder latent (new tensor)."""
        return latent * self.scale_factor

    def process_out(self, latent: torch.Tensor) -> torch.Tensor:
        """The autoencoder's latent for a sampler latent (new tensor)."""
        return latent / self.scale_factor


class SD15(LatentFormat):
    """Stable Diffusion 1.x; ``scale_factor`` is the reciprocal of the latents' standard deviation."""

    def __init__(self, scale_factor: float = 0.18215) -> None:
        self.scale_factor = scale_factor
        self.latent_rgb_factors = [
            [0.3512, 0.2297, 0.3227],
            [0.3250, 0.4974, 0.2350],
            [-0.2829, 0.1762, 0.2721],
            [-0.2120, -0.2616, -0.7177],
        ]
        self.taesd_decoder_name = "taesd_decoder"


class SDXL(LatentFormat):
    """Stable Diffusion XL, base and refiner."""

    scale_factor = 0.13025

    def __init__(self) -> None:
        self.latent_rgb_factors = [
            [0.3651, 0.4232, 0.4341],
            [-0.2533, -0.0042, 0.1068],
            [0.1076, 0.1111, -0.0362],
            [-0.3165, -0.2492, -0.2188],
        ]
        self.latent_rgb_factors_bias = [0.1084, -0.0175, -0.0011]
        self.taesd_decoder_name = "taesdxl_decoder"


class SDXL_Playground_2_5(LatentFormat):  # noqa: N801 - the name node packs import
    """Playground 2.5: SDXL's autoencoder with latents normalised per channel."""

    def __init__(self) -> None:
        self.scale_factor = 0.5
        self.latents_mean = torch.tensor([-1.6574, 1.886, -1.383, 2.5155]).view(1, 4, 1, 1)
        self.latents_std = torch.tensor([8.4927, 5.9022, 6.5498, 5.2299]).view(1, 4, 1, 1)
        self.latent_rgb_factors = [
            [0.3920, 0.4054, 0.4549],
            [-0.2634, -0.0196, 0.0653],
            [0.0568, 0.1687, -0.0755],
            [-0.3112, -0.2359, -0.2076],
        ]
        self.taesd_decoder_name = "taesdxl_decoder"

    def process_in(self, latent: torch.Tensor) -> torch.Tensor:
        """Subtract the channel means and divide by their deviations, times the scale factor."""
        return (latent - self.latents_mean.to(latent)) * self.scale_factor / self.latents_std.to(latent)

    def process_out(self, latent: torch.Tensor) -> torch.Tensor:
        """Undo :meth:`process_in`."""
        return latent * self.latents_std.to(latent) / self.scale_factor + self.latents_mean.to(latent)
