"""How to preview the latents of Cosmos 1; :mod:`comfy.latent_formats` has this name, too."""

from comfy.latent_formats import LatentFormat, rgb_factors


class Cosmos1CV8x8x8(LatentFormat):
    """Cosmos 1's video latents: batch x 16 x frames x height x width; its autoencoder scales them."""

    latent_channels, latent_dimensions = 16, 3
    temporal_downscale_ratio = 8

    def __init__(self) -> None:
        self.latent_rgb_factors = rgb_factors(
            "1817 2284 2423 -586 -862 -3108 -4703 -4255 -3995 803 1963 1001 -820 -1050 400 2511 3098 2787 -1830 -2117 -40 -621 "
            "-2187 -939 3619 1082 1455 3164 3922 2575 1152 231 -462 -1434 -3609 -3665 635 1471 1680 -3635 -1963 -3248 -1865 365 "
            "2346 447 994 881"
        )
        self.latent_rgb_factors_bias = [-0.1223, -0.1889, -0.1976]
