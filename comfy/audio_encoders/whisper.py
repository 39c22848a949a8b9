"""Whisper's encoder, built from transformers' layers under their names, which are the published ones.

Shapes: B sounds, T samples, M rows of a picture of sound, N tokens (50 to a second), C width of a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

import comfy.ops
from comfy.families.sd_unet_config import count_blocks

Shape = tuple[int, ...]

MARK = "encoder.embed_positions.weight"
HEAD = 64
RATE_HZ, WINDOW, HOP = 16000, 400, 160
HIGHEST_HZ = 8000
SAMPLES = 30 * RATE_HZ  # it hears so many: longer sounds are cut, shorter ones followed by silence
QUIETEST, RANGE = 1e-10, 8.0  # of loudness, and what counts of its logarithm (base 10)


@dataclass(frozen=True, slots=True)
class WhisperSizes:
    """Sizes of one such network."""

    width: int
    inner: int
    layers: int
    rows: int
    places: int

    def transformers_arguments(self) -> dict[str, Any]:
        """Constructor arguments of transformers' ``WhisperConfig``."""
        return {
            "d_model": self.width,
            "encoder_ffn_dim": self.inner,
            "encoder_layers": self.layers,
            "encoder_attention_heads": self.width // HEAD,
            "num_mel_bins": self.rows,
            "max_source_positions": self.places,
        }


def read_whisper_sizes(shapes: Mapping[str, Shape]) -> WhisperSizes | None:
    """The sizes that *shapes* (no prefix) show, or None where they show none. Raises ``KeyError`` for missing tensors."""
    if MARK not in shapes:
        return None
    return WhisperSizes(
        width=shapes[MARK][1],
        inner=shapes["encoder.layers.0.fc1.weight"][0],
        layers=count_blocks(shapes, "encoder.layers.{}."),
        rows=shapes["encoder.conv1.weight"][1],
        places=shapes[MARK][0],
    )


class WhisperLargeV3(torch.nn.Module):
    """Sound at 16 kHz to states. Parameters are on the meta device until weights are assigned."""

    def __init__(self, sizes: WhisperSizes, operations: type[comfy.ops.disable_weight_init]) -> None:
        from transformers import WhisperConfig
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        super().__init__()
        self.sizes = sizes
        config = WhisperConfig(**{**sizes.transformers_arguments(), "attn_implementation": "sdpa"})
        with torch.device("meta"):
            self.encoder: Any = WhisperEncoder(config)
        comfy.ops.adopt_layers(self, operations)
        self.eval().requires_grad_(False)

    def forward(self, audio: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """*audio* B x channels x T: (states B x N x C, those before each layer and after the last)."""
        encoder = self.encoder
        x = F.gelu(encoder.conv2(F.gelu(encoder.conv1(log_mel(audio.mean(dim=1), self.sizes.rows))))).transpose(1, 2)
        tokens = x + comfy.ops.cast_to_input(encoder.embed_positions.weight, x, copy=False)
        states = []
        for layer in encoder.layers:
            states.append(tokens)
            tokens = layer(tokens, None)
        tokens = encoder.layer_norm(tokens)
        return tokens, (*states, tokens)


def log_mel(sound: torch.Tensor, rows: int) -> torch.Tensor:
    """Pictures (B x M x columns) of *sound* (B x T): the logarithm of its loudness by pitch, of which the loudest part counts."""
    from transformers.audio_utils import mel_filter_bank

    sound = F.pad(sound[:, :SAMPLES], (0, max(0, SAMPLES - sound.shape[1])))
    window = torch.hann_window(WINDOW, device=sound.device)
    waves: Any = torch.stft(sound.float(), WINDOW, HOP, WINDOW, window, return_complex=True)
    bank = mel_filter_bank(WINDOW // 2 + 1, rows, 0, HIGHEST_HZ, RATE_HZ, norm="slaney", mel_scale="slaney")
    loudness = torch.from_numpy(bank).T.to(sound.device, torch.float32) @ waves[..., :-1].abs().square()
    logarithm = loudness.clamp(min=QUIETEST).log10()
    return ((torch.maximum(logarithm, logarithm.max() - RANGE) + 4.0) / 4.0).to(sound.dtype)
