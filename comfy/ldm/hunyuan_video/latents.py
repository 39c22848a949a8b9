"""How HunyuanVideo 1 and 1.5 scale their latents, and how to preview them; :mod:`comfy.latent_formats` has these names, too."""

from comfy.latent_formats import LatentFormat, rgb_factors


class HunyuanVideo(LatentFormat):
    """HunyuanVideo 1's video latents, and Kandinsky 5's: batch x 16 x frames x height x width."""

    scale_factor = 0.476986
    latent_channels, latent_dimensions = 16, 3
    temporal_downscale_ratio = 4
    taesd_decoder_name = "taehv"

    def __init__(self) -> None:
        self.latent_rgb_factors = rgb_factors(
            "-395 -331 445 696 795 518 135 -945 -282 108 -250 -765 -209 32 224 -804 -254 -639 -991 271 -669 -646 -422 -400 "
            "-696 -595 -894 -799 -208 -375 1166 1627 962 1165 432 407 -2315 -1920 -1355 -270 401 -821 -616 -997 -727 249 -469 "
            "-1703"
        )
        self.latent_rgb_factors_bias = [0.0259, -0.0192, -0.0761]


class HunyuanVideo15(LatentFormat):
    """HunyuanVideo 1.5's video latents: batch x 32 x frames x height x width, at a sixteenth of the picture's size."""

    scale_factor = 1.03682
    latent_channels, latent_dimensions = 32, 3
    spacial_downscale_ratio, temporal_downscale_ratio = 16, 4
    taesd_decoder_name = "lighttaehy1_5"

    def __init__(self) -> None:
        self.latent_rgb_factors = rgb_factors(
            "568 -521 -131 14 735 326 186 531 -138 -31 51 288 110 556 432 -41 -23 -485 530 413 253 283 251 339 277 -372 "
            "-93 393 944 1131 20 251 37 -17 12 234 468 436 203 354 439 -233 90 123 346 382 29 217 261 -300 30 -88 -220 "
            "-283 -272 -121 -363 -664 -622 144 414 479 529 355 612 -247 147 264 174 438 38 542 431 -573 -33 -162 -211 -406 "
            "-487 -295 -393 5 -109 253 296 591 353 119 181 -306 -85 -362 229 5 -106 242"
        )
        self.latent_rgb_factors_bias = [0.0456, -0.0202, -0.0644]
