"""What nodes for sound share: the type of their values, and checks with one clear error each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from comfy.ram_model_cache.host_memory import HostMemory
from comfy.units import MIB

if TYPE_CHECKING:
    from torch import Tensor

# An AUDIO: "waveform" (float tensor batch×channels×samples, -1…1) and "sample_rate" in Hz.
Audio = Mapping[str, Any]

# The share of the RAM that is free which one sound may take; the rest is for what is computed from it.
SHARE_OF_FREE_RAM = 0.75
BYTES_PER_SAMPLE = 4


def audio_of(waveform_BCT: Tensor, sample_rate_hz: int) -> dict[str, Any]:
    """The value that nodes exchange."""
    return {"waveform": waveform_BCT, "sample_rate": sample_rate_hz}


def required(audio: Audio | None, node_id: str) -> Audio:
    """*audio*, or ``ValueError`` where a node that needs sound, *node_id*, gets none: a video without a sound track has None."""
    if audio is None:
        raise ValueError(f"{node_id}: there is no sound; the video that it was to come from probably has no sound track")
    return audio


def allowed_bytes() -> int:
    """The bytes that one sound may take of the RAM that is free now."""
    return int(HostMemory().available_bytes() * SHARE_OF_FREE_RAM)


def check_fits(samples: int, what: str) -> None:
    """Raise ``ValueError`` when *samples* of all channels together are more than fit into the free RAM; *what* begins the message."""
    needed, allowed = samples * BYTES_PER_SAMPLE, allowed_bytes()
    if needed > allowed:
        raise ValueError(
            f"{what} takes {needed // MIB:,} MiB, and it may take {allowed // MIB:,} MiB of the memory that is free; make it shorter"
        )


def check_alike(first_BCT: Tensor, second_BCT: Tensor, node_id: str) -> None:
    """Raise ``ValueError`` unless two waveforms have as many sounds and channels, or one of either where the other has more."""
    for axis, things in ((0, "sounds in a batch"), (1, "channels")):
        counts = first_BCT.shape[axis], second_BCT.shape[axis]
        if counts[0] != counts[1] and 1 not in counts:
            raise ValueError(
                f"{node_id}: the two inputs have {counts[0]} and {counts[1]} {things}, which do not go together; make them as many"
            )
