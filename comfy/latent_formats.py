"""How each family scales its latents between the sampler and the autoencoder, and how to preview them as RGB."""

import functools
from collections.abc import Callable
from typing import Any

import torch

from comfy.nested_tensor import NestedTensor
from comfy.placeholders import placeholders


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
    latent_rgb_factors_reshape: Callable[[torch.Tensor], torch.Tensor] | None = None
    taesd_decoder_name: str | None = None
    spacial_downscale_ratio = 8
    temporal_downscale_ratio = 1

    def process_in(self, latent: torch.Tensor) -> torch.Tensor:
        """The sampler's latent for an autoencoder latent (new tensor)."""
        return latent * self.scale_factor

    def process_out(self, latent: torch.Tensor) -> torch.Tensor:
        """The autoencoder's latent for a sampler latent (new tensor)."""
        return latent / self.scale_factor

    def fix_empty_latent(self, latent: torch.Tensor) -> Any:
        """What sampling starts from for an empty *latent* of these channels: formats of several kinds add the others."""
        return latent


def rgb_factors(numbers: str) -> list[list[float]]:
    """*numbers*, in ten thousandths, as a row of red, green and blue for each channel."""
    values = [int(number) / 10000 for number in numbers.split()]
    return [values[start : start + 3] for start in range(0, len(values), 3)]


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


class PerChannelFormat(LatentFormat):
    """Latents normalised per channel: ``latents_mean`` and ``latents_std`` broadcast against them."""

    latents_mean: torch.Tensor
    latents_std: torch.Tensor

    def process_in(self, latent: torch.Tensor) -> torch.Tensor:
        """Subtract the channel means and divide by their deviations, times the scale factor."""
        return (latent - self.latents_mean.to(latent)) * self.scale_factor / self.latents_std.to(latent)

    def process_out(self, latent: torch.Tensor) -> torch.Tensor:
        """Undo :meth:`process_in`."""
        return latent * self.latents_std.to(latent) / self.scale_factor + self.latents_mean.to(latent)


class SDXL_Playground_2_5(PerChannelFormat):  # noqa: N801 - the name node packs import
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


class SD_X4(LatentFormat):  # noqa: N801 - the name node packs import
    """Stable Diffusion's upscaler by four."""

    scale_factor = 0.08333


class SC_Prior(LatentFormat):  # noqa: N801 - the name node packs import
    """The first stage of Stable Cascade."""

    latent_channels = 16
    spacial_downscale_ratio = 42


class SC_B(LatentFormat):  # noqa: N801 - the name node packs import
    """The second stage of Stable Cascade."""

    scale_factor = 1 / 0.43
    spacial_downscale_ratio = 4


class SD3(LatentFormat):
    """Stable Diffusion 3: sixteen channels, whose mean is moved to zero before they are scaled."""

    latent_channels = 16
    scale_factor = 1.5305
    shift_factor = 0.0609
    taesd_decoder_name = "taesd3_decoder"

    def __init__(self) -> None:
        self.latent_rgb_factors = rgb_factors(
            "-922 -175 749 311 633 954 1994 927 458 856 339 902 587 272 -496 -6 1104 309 978 306 427 -42 1038 1358 -194 "
            "20 669 -488 130 -268 922 988 951 -278 524 -542 332 456 895 -69 -30 -810 -596 -465 -293 -1448 -1463 -1189"
        )
        self.latent_rgb_factors_bias = [0.2394, 0.2135, 0.1925]

    def process_in(self, latent: torch.Tensor) -> torch.Tensor:
        """Subtract the shift and scale."""
        return (latent - self.shift_factor) * self.scale_factor

    def process_out(self, latent: torch.Tensor) -> torch.Tensor:
        """Undo :meth:`process_in`."""
        return latent / self.scale_factor + self.shift_factor


class Flux(SD3):
    """Flux: the same with numbers of its own."""

    scale_factor = 0.3611
    shift_factor = 0.1159
    taesd_decoder_name = "taef1_decoder"

    def __init__(self) -> None:
        self.latent_rgb_factors = rgb_factors(
            "-346 244 681 34 210 687 275 -668 -433 -174 160 617 859 721 329 4 383 115 405 861 915 -236 -185 -259 -245 "
            "250 1180 1008 755 -421 -515 201 11 428 -12 -36 817 765 749 -1264 -522 -1103 -280 -881 -499 -1262 -982 -778"
        )
        self.latent_rgb_factors_bias = [-0.0329, -0.0718, -0.0851]


class Flux2(LatentFormat):
    """Flux.2: each cell holds 2 × 2 places of 32 channels; the autoencoder itself normalises them. Previews show the places."""

    latent_channels = 128
    spacial_downscale_ratio = 16
    taesd_decoder_name = "taef2_decoder"

    def __init__(self) -> None:
        self.latent_rgb_factors = rgb_factors(
            "58 113 73 495 443 836 -99 96 644 2144 3009 3652 166 -39 -54 157 103 -160 -398 902 -235 -52 95 109 -3527 -2712 -1666 -301 -356 "
            "-180 -107 78 13 746 90 -941 156 169 70 -34 -40 -114 32 181 80 -939 -8 186 18 43 104 284 56 -127 -24 -22 -30 1207 -26 65 128 "
            "101 142 137 -72 -7 95 92 -59 0 -77 -49 -465 -204 -312 95 12 -66 290 -34 25 220 169 -48 -332 -457 -468 -85 389 609 -76 3 -43 "
            "-111 -460 -614"
        )
        self.latent_rgb_factors_bias = [-0.0329, -0.0718, -0.0851]
        self.latent_rgb_factors_reshape = functools.partial(torch.pixel_shuffle, upscale_factor=2)


class Wan21(PerChannelFormat):
    """Wan 2.1's video latents: batch x 16 x frames x height x width."""

    latent_channels = 16
    latent_dimensions = 3
    temporal_downscale_ratio = 4
    taesd_decoder_name = "lighttaew2_1"

    def __init__(self) -> None:
        self.latents_mean = self._per_channel(
            "-.7571 -.7089 -.9113 .1075 -.1745 .9653 -.1517 1.5508 .4134 -.0715 .5517 -.3632 -.1922 -.9497 .2503 -.2921"
        )
        self.latents_std = self._per_channel(
            "2.8184 1.4541 2.3275 2.6558 1.2196 1.7708 2.6052 2.0743 3.2687 2.1526 2.8652 1.5579 1.6382 1.1253 2.8251 1.916"
        )

        self.latent_rgb_factors = rgb_factors(
            "-1299 -1692 2932 671 406 442 3568 2548 1747 372 2344 1420 313 189 -328 296 -956 -665 -3477 -4059 -2925 166 "
            "1902 1975 -412 267 -1364 -1293 740 1636 680 3019 1128 32 581 639 -1251 927 1699 60 -633 5 3477 2275 2950 1984 "
            "913 1861"
        )
        self.latent_rgb_factors_bias = [-0.1835, -0.0868, -0.336]

    def _per_channel(self, numbers: str) -> torch.Tensor:
        return torch.tensor([float(number) for number in numbers.split()]).view(1, self.latent_channels, 1, 1, 1)


class Wan22(Wan21):
    """The video latents of Wan 2.2 5B: batch x 48 x frames x height x width, at a sixteenth of the picture's size."""

    latent_channels = 48
    spacial_downscale_ratio = 16
    taesd_decoder_name = "lighttaew2_2"

    def __init__(self) -> None:
        self.latents_mean = self._per_channel(
            "-.2289 -.0052 -.1323 -.2339 -.2799 .0174 .1838 .1557 -.1382 .0542 .2813 .0891 .157 -.0098 .0375 -.1825 -.2246 "
            "-.1207 -.0698 .5109 .2665 -.2108 -.2158 .2502 -.2055 -.0322 .1109 .1567 -.0729 .0899 -.2799 -.123 -.0313 "
            "-.1649 .0117 .0723 -.2839 -.2083 -.052 .3748 .0152 .1957 .1433 -.2944 .3573 -.0548 -.1681 -.0667"
        )
        self.latents_std = self._per_channel(
            ".4765 1.0364 .4514 1.1677 .5313 .499 .4818 .5013 .8158 1.0344 .5894 1.0901 .6885 .6165 .8454 .4978 .5759 "
            ".3523 .7135 .6804 .5833 1.4146 .8986 .5659 .7069 .5338 .4889 .4917 .4069 .4999 .6866 .4093 .5709 .6065 .6415 "
            ".4944 .5726 1.2042 .5458 1.6887 .3971 1.06 .3943 .5537 .5444 .4089 .7468 .7744"
        )
        self.latent_rgb_factors = rgb_factors(
            "119 103 46 -1062 -504 165 140 409 491 -813 -677 607 656 851 808 264 463 912 295 326 590 -244 -270 25 443 -102 "
            "288 -465 -90 -205 359 236 82 -776 854 1048 564 264 561 6 594 418 -319 -542 -637 -268 24 260 539 265 358 -359 "
            "-312 -287 -285 -1032 -1237 1041 537 622 -86 -374 -51 390 670 2863 69 144 82 6 -167 79 313 -574 -232 -1454 "
            "-902 -481 714 827 447 -304 -574 -196 401 384 204 -758 -297 -14 568 1307 1372 -55 -310 -380 239 -305 325 -663 "
            "-673 -140 -416 -47 -23 166 112 -93 -211 11 331 1833 1466 2250 -368 370 295 -3441 -3543 -2008 -479 -489 -420 "
            "-660 -153 800 -101 68 156 -690 -452 -927 -145 41 15 421 451 373 504 -483 -356 -837 168 55"
        )
        self.latent_rgb_factors_bias = [0.0317, -0.0878, -0.1388]


class QwenImage21(PerChannelFormat):
    """The latents of Qwen-Image 2.1: batch x 64 x height x width, at a sixteenth of the picture's size."""

    latent_channels = 64
    spacial_downscale_ratio = 16

    def __init__(self) -> None:
        means = (
            ".5126 .7721 -.0631 1.3506 -.7855 -2.1025 -.3458 1.3722 1.8873 -1.7177 -.651 .2732 .7562 -.6163 -1.0277 "
            "3.8363 2.021 .0472 .932 2.0087 2.4954 -.1391 -1.4249 1.8464 -.5236 1.2826 3.7046 -1.3035 2.7286 -1.4518 "
            "-1.9036 -1.9955 -.0342 -1.0265 -.7636 3.0555 .0746 -3.0751 -.1076 1.7376 -1.0914 -1.9435 -.2784 -1.368 .4809 "
            "-.4433 .3764 .5729 -2.0595 1.096 -1.326 -2.0211 -5.0179 .5275 4.0162 1.8505 .3026 1.9373 1.4937 .2632 .5547 "
            "-1.7121 -.1562 .0304"
        )
        deviations = (
            "3.2001 3.2936 3.4321 3.0091 3.1061 4.0379 4.0705 3.791 3.0785 3.65 3.9308 3.0904 2.8778 3.7675 3.732 5.0756 "
            "3.2864 4.0397 3.1317 4.0443 2.9249 3.9454 3.0988 4.2489 3.4896 3.8513 3.9323 3.4719 3.7498 4.283 3.5694 "
            "4.2467 3.9037 3.2947 5.077 3.5075 3.27 3.4767 2.8063 5.1125 3.5327 4.7833 3.1286 4.1819 3.8527 3.8312 3.5605 "
            "4.3875 3.9624 4.0168 3.5643 4.055 5.5614 4.2963 4.408 3.4959 3.8747 3.7608 3.5735 3.149 3.7662 3.6746 3.4563 "
            "3.8161"
        )
        numbers = (torch.tensor([float(number) for number in text.split()]) for text in (means, deviations))
        self.latents_mean, self.latents_std = (values.view(1, self.latent_channels, 1, 1) for values in numbers)


class MiniMaxH3Video(LatentFormat):
    """MiniMax H3's video latents: batch x 24 x frames x height x width, at a sixteenth of the picture's size."""

    latent_channels, latent_dimensions = 24, 3
    spacial_downscale_ratio, temporal_downscale_ratio = 16, 4
    taesd_decoder_name = "taeh3"

    def __init__(self) -> None:
        self.latent_rgb_factors = rgb_factors(
            "-186 243 -175 1502 1372 1292 274 -504 -2086 -8 -1646 -3232 -486 140 -743 117 142 -69 615 612 1100 353 869 1101 "
            "-174 30 354 5315 5488 6244 -250 -402 -343 -325 -291 -172 226 203 507 -840 -381 -208 -188 104 611 208 112 -310 "
            "-84 -122 -257 -133 -29 63 3 18 -110 1055 1005 1321 165 152 100 -140 -174 -191 -338 -100 -197 42 173 272"
        )
        self.latent_rgb_factors_bias = [0.0574, -0.0221, -0.0714]


class MiniMaxH3AV(MiniMaxH3Video):
    """MiniMax H3's videos with their sound, batch x 32 x 2 (left, right) x times; ``latent_channels`` is the larger number of channels."""

    latent_channels = 32
    frames_of_latents = (1, 4, 4, 4, 4)  # over and over
    audio_per_frame = 5.0 / 3.0

    def fix_empty_latent(self, latent: torch.Tensor) -> NestedTensor:
        """The video's channels of *latent*, and silence for as long."""
        video = latent[:, : MiniMaxH3Video.latent_channels].clone()
        frames = sum(self.frames_of_latents[number % len(self.frames_of_latents)] for number in range(video.shape[2]))
        silence = latent.new_zeros((len(latent), self.latent_channels, 2, round(frames * self.audio_per_frame)))
        return NestedTensor((video, silence))


class StableAudio1(LatentFormat):
    """Stable Audio's sound latents: batch x 64 x places, each of 2048 samples."""

    latent_channels, latent_dimensions = 64, 1
    temporal_downscale_ratio = 2048


class StableAudio3(LatentFormat):
    """Stable Audio 3's: batch x 256 x places, each of 4096 samples."""

    latent_channels, latent_dimensions = 256, 1
    temporal_downscale_ratio = 4096


class SeedVR2(LatentFormat):
    """SeedVR2's: batch x 16 x frames x height x width, a frame for the first of a video and for each four that follow, at an eighth of the
    picture's size; its autoencoder scales them.
    """

    latent_channels, latent_dimensions = 16, 3


class ACEAudio(LatentFormat):
    """ACE-Step 1's sound latents: batch x 8 x 16 rows x places."""

    latent_channels, latent_dimensions = 8, 2


class ACEAudio15(LatentFormat):
    """ACE-Step 1.5's sound latents: batch x 64 x places. The ratio is what ComfyUI's nodes say, though each place is of 1920 samples."""

    latent_channels, latent_dimensions = 64, 1
    temporal_downscale_ratio = 1764


class LTXV(LatentFormat):
    """LTX-Video's latents: batch x 128 x frames x height x width, at a thirty-second of the picture's size; its autoencoder scales them."""

    latent_channels, latent_dimensions = 128, 3
    spacial_downscale_ratio, temporal_downscale_ratio = 32, 8

    def __init__(self) -> None:
        self.latent_rgb_factors = rgb_factors(
            "112 -6 -100 860 658 10 -126 -76 -41 94 -22 26 38 128 92 210 -53 34 -89 -197 -188 -132 -105 20 -15 -70 -76 -17 5 -34 "
            "136 47 -20 103 77 139 -161 -62 12 73 156 4 10 -30 -148 191 109 123 45 0 -69 -5 33 78 339 334 375 -230 -25 -31 503 388 "
            "335 -41 -11 16 -1269 -1311 -2100 263 142 -36 -49 88 78 -17 -49 -52 -21 24 94 -225 -213 -151 -158 -106 -65 -47 50 -67 "
            "120 207 162 -64 -85 -95 73 -99 -230 -9 63 96 -372 -371 -567 -1337 -1072 -538 -54 81 88 -1525 -2144 -2184 314 70 -98 22 "
            "-90 -210 38 -59 -150 -43 -129 -160 -55 -108 -30 -65 31 -102 -50 -72 -9 -86 -24 11 -90 -96 16 51 121 200 138 117 82 "
            "-105 -116 -41 -284 -313 -221 29 365 187 -167 -167 -45 488 401 87 -151 -6 30 -176 -81 131 -93 108 -63 31 5 123 -228 "
            "-230 -260 -248 -154 -221 -236 11 124 -79 -12 -61 -115 -13 63 -542 266 63 44 -73 -105 -45 16 144 137 89 41 -101 90 157 "
            "-56 12 81 -37 -54 13 295 214 304 -349 -243 -253 -341 -224 -106 -173 -132 -107 -21 -86 -30 12 -42 -69 9 -67 -1 160 -101 "
            "-289 12 102 189 173 3 138 -135 -36 7 47 -52 24 -59 -62 -18 155 146 20 75 16 -82 191 16 -40 -57 -27 -41 17 146 258 -8 "
            "23 45 116 89 -73 76 27 114 52 37 140 -184 -225 -245 6 -58 -148 -161 -86 -145 205 207 64 34 -112 -164 -15 -105 17 281 "
            "235 328 -185 -128 -88 -81 -108 -175 -39 162 334 -75 -142 -62 35 -114 -106 115 39 28 72 -15 -38 22 -88 -96 241 217 281 "
            "-54 -243 -178 74 105 127 63 63 192 164 95 67 172 236 233 -146 -98 -116 144 144 66 -68 189 146 61 35 -27 -27 -59 -92 "
            "102 74 -76 -133 193 -9 24 -48 -158 262 260 202 157 185 27 -22 47 -224 -75 74 144 -84 -80 98 383 97 -193 -146 -67 40"
        )
        self.latent_rgb_factors_bias = [-0.0571, -0.1657, -0.2512]


class LTXAV(LTXV):
    """LTX 2's, of which the video's are shown; those of sound are batch x 8 x times x 16."""

    def __init__(self) -> None:
        self.latent_rgb_factors = rgb_factors(
            "11 -106 -49 -80 -62 -56 126 56 127 235 208 178 -119 -9 93 186 110 140 -364 -466 -579 -319 1 152 145 210 153 189 161 "
            "-28 -38 -61 -82 133 303 298 505 504 253 186 77 29 -157 -85 -7 -136 -126 -44 125 215 279 -182 -135 -110 138 126 220 179 "
            "66 56 268 68 -94 -68 -84 -139 297 187 228 -147 -192 9 196 326 534 -37 40 104 -202 -261 -361 -23 65 131 172 92 65 11 -6 "
            "1 -2 118 179 -153 -125 -62 -95 -87 -41 -56 -60 -15 95 88 132 -100 -80 -96 -15 -88 -68 11 90 91 259 164 80 63 7 -60 -19 "
            "-70 -96 -71 -26 -72 -52 48 82 -43 13 -49 -170 -127 -75 250 330 366 137 123 100 -138 -84 -154 -93 -10 76 -31 -34 -38 74 "
            "50 105 183 221 211 -56 -68 -82 -74 19 -12 -74 5 -60 -147 -72 65 138 142 82 602 698 728 99 49 12 -37 33 80 37 -37 -89 "
            "149 62 53 -67 -43 -67 206 152 124 -326 -61 104 -590 -302 -380 -356 -219 -111 -234 -113 -51 -27 -52 -41 146 153 140 83 "
            "25 -32 52 11 7 -216 -309 -447 75 39 6 -68 41 102 -865 -820 -834 42 8 -87 110 90 74 40 -67 -110 122 64 75 293 140 111 "
            "485 346 163 241 126 118 -132 -202 -198 -108 -85 -55 58 14 19 524 448 328 76 -81 -125 98 42 12 -259 -132 -106 85 31 8 "
            "40 -26 -102 65 83 208 -49 -134 -154 55 91 -37 -143 -159 -169 26 284 141 -277 -454 -650 92 155 106 -22 29 46 -203 -82 "
            "-5 193 37 -28 71 -28 0 573 733 744 -26 -17 -5 72 98 228 -26 -56 -4 -77 39 -41 -574 -455 -253 452 480 541 9 -89 -384 "
            "-102 -80 -54 -302 -275 -308 -84 132 109 41 21 69 395 273 83 -757 -763 -716 27 51 -22 -25 -28 -105 123 55 17 178 87 35 "
            "556 491 441 -259 -238 -188 -149 -108 -107 -173 -126 -87 -85 -62 -77 -402 -423 -481 -194 -211 -219"
        )
        self.latent_rgb_factors_bias = [-0.347892, -0.363814, -0.370287]


__getattr__, __dir__ = placeholders(
    __name__,
    "models of kinds that are not supported",
    "HunyuanVideo=comfy.ldm.hunyuan_video.latents HunyuanVideo15=comfy.ldm.hunyuan_video.latents "
    "Cosmos1CV8x8x8=comfy.ldm.cosmos.latents Mochi HunyuanImage21 HunyuanImage21Refiner Hunyuan3Dv2 Hunyuan3Dv2_1 "
    "Hunyuan3Dv2mini CogVideoX ChromaRadiance=comfy.pixel_space_convert PixelDiTPixel=comfy.pixel_space_convert",
    base="LatentFormat",
)
