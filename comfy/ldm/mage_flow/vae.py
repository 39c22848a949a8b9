"""Mage-Flow's autoencoder, in ComfyUI's tree and published weight names: both ways are one step of a diffusion model, at time 0.

Shapes: B batch, R rows and K columns of cells, P pixels along a side of a cell, N = B·R·K cells, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ops
from comfy.families.timestep_embedding import timestep_embedding
from comfy.ldm.modules.diffusionmodules.model import vae_attention

ops = comfy.ops.disable_weight_init

CELL = 16
TIME_CHANNELS = 256
EPS = 1e-6
WINDOW = 32  # cells along a side of what attends to itself
GROUPS = 32
WAVES = 8  # along each axis of a cell


@dataclass(frozen=True, slots=True)
class MageSizes:
    """Sizes of one such autoencoder: of the encoder's first blocks and of the others, of a pixel, and how many blocks there are."""

    latent: int = 128
    head: int = 768
    width: int = 384
    pixel: int = 32
    colours: int = 3
    head_blocks: int = 2
    encoder_blocks: int = 21
    decoder_blocks: int = 21
    pixel_blocks: int = 3


class LayerNorm2d(ops.LayerNorm):
    """A norm of each place's channels."""

    def __init__(self, num_channels: int, affine: bool = True) -> None:
        super().__init__(num_channels, eps=EPS, elementwise_affine=affine)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x R x K to the same."""
        normal: torch.Tensor = super().forward(x.movedim(1, -1))
        return normal.movedim(-1, 1).contiguous()


class TimestepEmbedder(torch.nn.Module):
    """The embedded time."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.mlp = torch.nn.Sequential(ops.Linear(TIME_CHANNELS, hidden_size), torch.nn.SiLU(), ops.Linear(hidden_size, hidden_size))

    def forward(self, t: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """B times to B x C."""
        embedded: torch.Tensor = self.mlp(timestep_embedding(t, TIME_CHANNELS).to(dtype))
        return embedded


class EncoderDiCoBlock(torch.nn.Module):
    """Convolutions weighed by the channels' means, and a wider layer, each beside what goes in."""

    affine = True

    def __init__(self, hidden_size: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        inner = int(mlp_ratio * hidden_size)
        self.conv1, self.conv3 = (ops.Conv2d(hidden_size, hidden_size, 1) for _ in range(2))
        self.conv2 = ops.Conv2d(hidden_size, hidden_size, 3, padding=1, groups=hidden_size)
        self.ca = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), ops.Conv2d(hidden_size, hidden_size, 1), torch.nn.Sigmoid())
        self.conv4, self.conv5 = ops.Conv2d(hidden_size, inner, 1), ops.Conv2d(inner, hidden_size, 1)
        self.norm1, self.norm2 = (LayerNorm2d(hidden_size, self.affine) for _ in range(2))

    def forward(self, inp: torch.Tensor) -> torch.Tensor:
        """B x C x R x K to the same."""
        x = inp + self.near(self.norm1(inp))
        return x + self.wide(self.norm2(x))

    def near(self, x: torch.Tensor) -> torch.Tensor:
        """What each place makes of those around it."""
        x = F.gelu(self.conv2(self.conv1(x)))
        result: torch.Tensor = self.conv3(x * self.ca(x))
        return result

    def wide(self, x: torch.Tensor) -> torch.Tensor:
        """What each place makes of itself."""
        result: torch.Tensor = self.conv5(F.gelu(self.conv4(x)))
        return result


class DiCoBlock(EncoderDiCoBlock):
    """The same, shifted, scaled and gated by the time."""

    affine = False

    def __init__(self, hidden_size: int, mlp_ratio: float = 4.0) -> None:
        super().__init__(hidden_size, mlp_ratio)
        self.adaLN_modulation = torch.nn.Sequential(torch.nn.SiLU(), ops.Linear(hidden_size, 6 * hidden_size))

    def forward(self, inp: torch.Tensor, c: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """B x C x R x K to the same, at the time *c* (B x C)."""
        shift, scale, gate, wide_shift, wide_scale, wide_gate = self.adaLN_modulation(c)[..., None, None].chunk(6, dim=1)
        x = inp + gate * self.near(self.norm1(inp) * (1 + scale) + shift)
        return x + wide_gate * self.wide(self.norm2(x) * (1 + wide_scale) + wide_shift)


class DConvEncoder(torch.nn.Module):
    """From a picture to what latents there may be: their means, then the logarithms of their variances."""

    def __init__(self, sizes: MageSizes) -> None:
        super().__init__()
        width = sizes.width
        self.z_ch = sizes.latent
        self.patch_cond_embed = ops.Conv2d(sizes.colours, sizes.head, kernel_size=CELL, stride=CELL)
        self.head_blocks = torch.nn.ModuleList(EncoderDiCoBlock(sizes.head) for _ in range(sizes.head_blocks))
        self.proj_down, self.z_proj = ops.Conv2d(sizes.head, width, 1), ops.Conv2d(sizes.latent, width, 1)
        self.fuse_proj = ops.Conv2d(2 * width, width, 1)
        self.t_embedder = TimestepEmbedder(width)
        self.blocks = torch.nn.ModuleList(DiCoBlock(width) for _ in range(sizes.encoder_blocks))
        self.norm_out = LayerNorm2d(width)
        self.proj_out = ops.Conv2d(width, 2 * sizes.latent, 1)

    def forward_pred(self, z_t: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """B x 2C x R x K of pictures *y*, from latents *z_t* at the times *t*."""
        seen = self.patch_cond_embed(y)
        for block in self.head_blocks:
            seen = block(seen)
        x = self.fuse_proj(torch.cat((self.proj_down(seen), self.z_proj(z_t)), dim=1))
        time = self.t_embedder(t, y.dtype)
        for block in self.blocks:
            x = block(x, time)
        result: torch.Tensor = self.proj_out(self.norm_out(x))
        return result


class ResnetBlock(torch.nn.Module):
    """Two convolutions, each after a norm and SiLU, beside what goes in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (ops.GroupNorm(GROUPS, channels, eps=EPS) for _ in range(2))
        self.conv1, self.conv2 = (ops.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x R x K to the same."""
        inner = self.conv1(F.silu(self.norm1(x)))
        result: torch.Tensor = x + self.conv2(F.silu(self.norm2(inner)))
        return result


class AttnBlock(torch.nn.Module):
    """Attention of cells to those of their window; windows at the edges are filled up with their last cells."""

    def __init__(self, in_channels: int, patch_size: int = WINDOW) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.norm = ops.GroupNorm(GROUPS, in_channels, eps=EPS)
        self.q, self.k, self.v, self.proj_out = (ops.Conv2d(in_channels, in_channels, 1) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """B x C x R x K to the same."""
        normal, side = self.norm(x), self.patch_size
        rows, columns = x.shape[-2:]
        missing = (0, -columns % side, 0, -rows % side)
        filled = (F.pad(layer(normal), missing, mode="replicate") for layer in (self.q, self.k, self.v))
        windows = [one.unflatten(3, (-1, side)).unflatten(2, (-1, side)).permute(0, 2, 4, 1, 3, 5) for one in filled]  # B rows columns C …
        attended = vae_attention()(*(one.flatten(0, 2) for one in windows)).reshape(windows[0].shape)
        attended = attended.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
        result: torch.Tensor = x + self.proj_out(attended[..., :rows, :columns])
        return result


class CoDDecoder(torch.nn.Module):
    """From a latent to what the denoiser is told of the picture."""

    def __init__(self, out_ch: int, z_ch: int) -> None:
        super().__init__()
        self.conv_in = ops.Conv2d(z_ch, out_ch, 3, padding=1)
        kinds = (ResnetBlock, AttnBlock, ResnetBlock, AttnBlock, ResnetBlock)
        self.block = torch.nn.Sequential(*(kind(out_ch) for kind in kinds))
        self.norm_out = ops.GroupNorm(GROUPS, out_ch, eps=EPS)
        self.conv_out = ops.Conv2d(out_ch, out_ch, 3, padding=1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """B x latent channels x R x K to B x C x R x K."""
        result: torch.Tensor = self.conv_out(F.silu(self.norm_out(self.block(self.conv_in(z)))))
        return result


class YEmbedder(torch.nn.Module):
    """Holds the decoder of latents."""

    def __init__(self, ch: int, z_ch: int) -> None:
        super().__init__()
        self.decoder = CoDDecoder(ch, z_ch)


class BottleneckPatchEmbed(torch.nn.Module):
    """A picture's cells with what is told of them."""

    def __init__(self, in_chans: int, pca_dim: int, embed_dim: int) -> None:
        super().__init__()
        self.proj1 = ops.Conv2d(in_chans, pca_dim, kernel_size=CELL, stride=CELL, bias=False)
        self.proj2 = ops.Conv2d(pca_dim + embed_dim, embed_dim, 1)

    def forward(self, x: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        """*x* (B x colours x pixels) and *cond* (B x C x R x K): B x C x R x K."""
        result: torch.Tensor = self.proj2(torch.cat((self.proj1(x), cond), dim=1))
        return result


class NerfEmbedder(torch.nn.Module):
    """Pixels with where in their cell they stand."""

    def __init__(self, in_channels: int, hidden_size_input: int) -> None:
        super().__init__()
        self.embedder = torch.nn.Sequential(ops.Linear(in_channels + WAVES**2, hidden_size_input))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """N x P² x values to N x P² x values."""
        side = round(x.shape[1] ** 0.5)
        place = torch.linspace(0, 1, side, device=x.device, dtype=x.dtype)
        waves = torch.linspace(0, WAVES, WAVES, device=x.device, dtype=x.dtype)
        along = torch.cos(place[:, None] * waves * torch.pi)  # place x wave, across and down alike
        both = along[None, :, :, None] * along[:, None, None, :] / (1 + waves[:, None] * waves)  # down, across, wave across, wave down
        known = both.reshape(1, side * side, -1).expand(len(x), -1, -1)
        result: torch.Tensor = self.embedder(torch.cat((x, known), dim=-1))
        return result


class MLPResBlock(torch.nn.Module):
    """A small network for each pixel, shifted, scaled and gated by what is told of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.in_ln = ops.LayerNorm(channels, eps=EPS)
        self.mlp = torch.nn.Sequential(ops.Linear(channels, channels), torch.nn.SiLU(), ops.Linear(channels, channels))
        self.adaLN_modulation = torch.nn.Sequential(torch.nn.SiLU(), ops.Linear(channels, 3 * channels))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """N x P² x values to the same."""
        shift, scale, gate = self.adaLN_modulation(y).chunk(3, dim=-1)
        result: torch.Tensor = x + gate * self.mlp(self.in_ln(x) * (1 + scale) + shift)
        return result


class SimpleMLPAdaLN(torch.nn.Module):
    """From cells to their pixels."""

    def __init__(self, channels: int, z_channels: int, num_res_blocks: int) -> None:
        super().__init__()
        self.cond_embed = ops.Linear(z_channels, CELL**2 * channels)
        self.input_proj = ops.Linear(channels, channels)
        self.res_blocks = torch.nn.ModuleList(MLPResBlock(channels) for _ in range(num_res_blocks))

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """N x P² x values to the same, of cells *c* (N x C)."""
        x, told = self.input_proj(x), self.cond_embed(c).unflatten(1, (CELL**2, -1))
        for block in self.res_blocks:
            x = block(x, told)
        return x


class NerfFinalLayer(torch.nn.Module):
    """From a pixel's values to its colours."""

    def __init__(self, hidden_size: int, out_channels: int) -> None:
        super().__init__()
        self.norm = ops.RMSNorm(hidden_size, eps=EPS)
        self.linear = ops.Linear(hidden_size, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """N x P² x values to N x P² x colours."""
        result: torch.Tensor = self.linear(self.norm(x))
        return result


class DConvDenoiser(torch.nn.Module):
    """From a noisy picture and what is told of it to a picture."""

    def __init__(self, sizes: MageSizes) -> None:
        super().__init__()
        width, pixel = sizes.width, sizes.pixel
        self.colours = sizes.colours
        self.t_embedder = TimestepEmbedder(width)
        self.y_embedder_x = ops.Conv2d(width, pixel * CELL**2, 1)
        self.x_embedder = NerfEmbedder(sizes.colours + pixel, pixel)
        self.s_embedder = BottleneckPatchEmbed(sizes.colours, sizes.latent, width)
        self.blocks = torch.nn.ModuleList(DiCoBlock(width) for _ in range(sizes.decoder_blocks))
        self.dec_net = SimpleMLPAdaLN(pixel, width, sizes.pixel_blocks)
        self.final_layer = NerfFinalLayer(pixel, sizes.colours)
        self.y_embedder = YEmbedder(width, sizes.latent)

    def forward(self, x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        """B x colours x R·P x K·P, of *x* of that shape, *cond* (B x C x R x K) and times *t*."""
        time = self.t_embedder(t, x.dtype)
        cells = self.s_embedder(x, cond)
        for block in self.blocks:
            cells = block(cells, time)
        told = torch.cat((F.pixel_unshuffle(x, CELL), self.y_embedder_x(cond)), dim=1)  # B x (values, pixel in its cell) x R x K
        pixels = self.x_embedder(told.unflatten(1, (-1, CELL**2)).permute(0, 3, 4, 2, 1).flatten(0, 2))
        made = self.final_layer(self.dec_net(pixels, cells.movedim(1, -1).flatten(0, 2)))
        grid = made.transpose(1, 2).flatten(1).unflatten(0, (len(x), *cells.shape[-2:])).movedim(-1, 1)
        return F.pixel_shuffle(grid, CELL)


class MageVAE(torch.nn.Module):
    """Turns pictures (B x 3 x height x width, -1 to 1) into latents (B x 128 x height / 16 x width / 16) and back."""

    def __init__(self, sizes: MageSizes | None = None) -> None:
        super().__init__()
        sizes = sizes or MageSizes()
        self.latent_channels, self.downsample_factor = sizes.latent, CELL
        self.dconv_encoder = DConvEncoder(sizes)
        self.decoder_model = DConvDenoiser(sizes)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """The mean of the latent distribution."""
        nothing = x.new_zeros((len(x), self.latent_channels, x.shape[-2] // CELL, x.shape[-1] // CELL))
        return self.dconv_encoder.forward_pred(nothing, x.new_zeros(len(x)), x)[:, : self.latent_channels]

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """The picture of a latent."""
        told = self.decoder_model.y_embedder.decoder(z)
        nothing = z.new_zeros((len(z), self.decoder_model.colours, z.shape[-2] * CELL, z.shape[-1] * CELL))
        result: torch.Tensor = self.decoder_model(nothing, z.new_zeros(len(z)), told)
        return result
