"""The device that a server expects to have after a memory snapshot is restored. Asking it anything touches no accelerator.

In the first phase of such a start models are read into host RAM and built for this device; nothing may move to it. In the second one
:meth:`ProcessModels.meet_devices` puts the devices that are there in its place.
"""

from __future__ import annotations

from argparse import Namespace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module
from comfy.residency.device_table import DeviceTable
from comfy.residency.devices import Device
from comfy.units import GIB, MIB

if TYPE_CHECKING:
    from torch import Tensor, device

torch = lazy_module("torch")
EXPECTED_CARD_BYTES = 24 * GIB


class TooEarly(RuntimeError):
    """Something was to be computed, or moved, in the first phase."""


class ExpectedDevice(Device):
    """A card of *capability*, such as 8.9 for NVIDIA's Ada, or a simulated one. Nothing fits on it."""

    def __init__(self, torch_device: device, kind: str, total_bytes: int, capability: float) -> None:
        super().__init__(torch_device)
        self.kind = kind
        self._total_bytes = total_bytes
        major, _, minor = f"{capability:.1f}".partition(".")
        self._properties = SimpleNamespace(major=int(major), minor=int(minor), name="expected", gcnArchName="")

    def properties(self) -> Any:
        """What decides on dtypes."""
        return self._properties

    def total_bytes(self) -> int:
        """As expected."""
        return self._total_bytes

    def free_bytes(self) -> int:
        """Nothing, so that every weight is made on the host."""
        return 0

    def allocator_total_bytes(self) -> int:
        """Nothing."""
        return 0

    def receive(self, tensor: Tensor, non_blocking: bool = False) -> Tensor:
        """Raises :class:`TooEarly`."""
        raise TooEarly(
            "this server was started with --snapshot-start and has not been told that it was restored: send POST /keepwarm/restored first"
        )

    def keeps_host_copy(self) -> bool:
        """Nothing leaves the host."""
        return True

    def display_name(self) -> str:
        """Says that it is not there yet."""
        return f"{self.torch_device} expected after the restore"


class ExpectedTable(DeviceTable):
    """One card, expected by ``--snapshot-start CAPABILITY``; with ``--simulated-vram-mb`` a simulated one, with ``--cpu`` none."""

    def _find_accelerators(self) -> list[Device]:
        args = self.args
        if args.simulated_vram_mb:
            return [ExpectedDevice(torch.device("cpu", 0), "simulated", args.simulated_vram_mb * MIB, args.snapshot_start)]
        if args.cpu:
            return []
        kind = "rocm" if torch.version.hip else "cuda"
        return [ExpectedDevice(torch.device("cuda", 0), kind, EXPECTED_CARD_BYTES, args.snapshot_start)]

    def compute_device(self) -> device:
        """The expected one; torch is not asked which is current."""
        return (self.accelerators[0] if self.accelerators else self.host).torch_device


def first_table(args: Namespace) -> DeviceTable:
    """The table to begin with: what is expected in a start that waits for a restore, else what is there."""
    return ExpectedTable(args) if getattr(args, "snapshot_start", None) else DeviceTable(args)
