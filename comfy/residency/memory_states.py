"""How much device memory the process believes it has, and which kind of processor computes."""

from enum import Enum


class VRAMState(Enum):
    """The policy for what stays on the accelerator."""

    SHARED = 5
    HIGH_VRAM = 4
    NORMAL_VRAM = 3
    LOW_VRAM = 2
    NO_VRAM = 1
    DISABLED = 0


class CPUState(Enum):
    """What computes: an accelerator with memory of its own, the processor, or Apple's unified memory."""

    GPU = 0
    CPU = 1
    MPS = 2
