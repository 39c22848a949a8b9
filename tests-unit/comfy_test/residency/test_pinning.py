"""The books of page-locked memory, and what they ask of the runtime."""

import types

import pytest
import torch

from comfy.ram_model_cache.host_memory import HostMemory
from comfy.residency import pinning
from comfy.residency.devices import CudaDevice, HostDevice
from comfy.residency.pinning import LONGEST_BYTES, CudaPins, PinLedger, default_pin_budget_bytes


class FakePins:
    """Memory as the runtime sees it: refuses what overlaps what is registered, and what is told to."""

    def __init__(self):
        self.ranges, self.refuse, self.keep = {}, False, False

    def pin(self, address, size_bytes):
        assert size_bytes > 0
        pages = range(address // 4096, -(-(address + size_bytes) // 4096))
        if self.refuse or any(not (pages.stop <= other.start or other.stop <= pages.start) for other in self.ranges.values()):
            return False
        self.ranges[address] = pages
        return True

    def unpin(self, address):
        return not self.keep and self.ranges.pop(address, None) is not None


@pytest.fixture(autouse=True)
def pageable(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: False)


def test_ranges_count_against_the_budget_until_they_are_given_back():
    backend = FakePins()
    ledger = PinLedger(100_000, backend)
    assert ledger.ensure_pin_budget(100_000) and not ledger.ensure_pin_budget(100_001)
    assert ledger.pin_range(4096, 60_000) and not ledger.pin_range(1 << 20, 60_000) and not ledger.pin_range(4096, 1)
    assert ledger.total_bytes() == 60_000
    assert ledger.unpin_range(4096) and not ledger.unpin_range(4096) and not ledger.unpin_range(5)
    assert ledger.total_bytes() == 0 and not backend.ranges


def test_the_accounts_are_right_when_the_runtime_fails(caplog):
    backend = FakePins()
    ledger = PinLedger(1 << 30, backend)
    backend.refuse = True
    assert not ledger.pin_range(4096, 4096) and ledger.total_bytes() == 0 and "could not page-lock" in caplog.text
    backend.refuse = False
    assert ledger.pin_range(4096, 4096)
    backend.keep = True
    assert not ledger.unpin_range(4096) and ledger.total_bytes() == 0 and "could not be given back" in caplog.text


@pytest.mark.parametrize(("error", "raised"), [(RuntimeError("no driver"), None), (MemoryError(), MemoryError)])
def test_an_exception_from_the_runtime_leaves_nothing_counted(error, raised):
    def pin(address, size_bytes):
        raise error

    ledger = PinLedger(1 << 30, types.SimpleNamespace(pin=pin))
    if raised:
        with pytest.raises(raised):
            ledger.pin_range(4096, 4096)
    else:
        assert ledger.pin_range(4096, 4096) is False
    assert ledger.total_bytes() == 0


def test_memory_that_is_pinned_in_part_is_refused_before_the_runtime_is_asked(caplog):
    backend = FakePins()
    ledger = PinLedger(1 << 30, backend)
    assert ledger.pin_range(8192, 8192)
    backend.refuse = True
    assert not ledger.pin_range(4096, 8192) and not ledger.pin_range(12288, 100) and not ledger.pin_range(4096, 1 << 20)
    assert ledger.total_bytes() == 8192 and not caplog.text


def test_one_call_registers_less_than_512_gib():
    ledger = PinLedger(1 << 50, FakePins())
    assert ledger.ensure_pin_registerable(LONGEST_BYTES) and not ledger.ensure_pin_registerable(512 << 30)
    assert not ledger.ensure_pin_registerable(0) and not ledger.pin_range(4096, 512 << 30)


def test_a_tensor_that_begins_a_pinned_block_does_not_unpin_it():
    ledger, tensor = PinLedger(1 << 30, FakePins()), torch.zeros(100)
    assert ledger.pin_range(tensor.data_ptr(), tensor.nbytes) and not ledger.pin(tensor) and not ledger.unpin(tensor)
    assert ledger.unpin_range(tensor.data_ptr()) and ledger.pin(tensor) and not ledger.unpin_range(tensor.data_ptr())
    assert ledger.unpin(tensor) and ledger.total_bytes() == 0


def test_the_cuda_runtime_is_called_as_it_wants(monkeypatch):
    calls, launched = [], []
    runtime = types.SimpleNamespace(
        cudaHostRegister=lambda *arguments: calls.append(arguments) or len(calls) % 2 - 1,
        cudaHostUnregister=lambda *arguments: calls.append(arguments) or 0,
    )
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    plain_zeros = torch.zeros

    def zeros(*shape, device):
        launched.append(device)
        if len(launched) > 1:
            raise RuntimeError("CUDA error: the one from before")
        return plain_zeros(*shape)

    monkeypatch.setattr(pinning.torch, "zeros", zeros, raising=False)  # the module's own view of torch, which remembers
    pins = CudaPins()
    assert pins.pin(4096, 10) and not launched
    assert not pins.pin(8192, 10) and launched == ["cuda"], "the error that a failure leaves behind is used up"
    assert pins.unpin(4096) and not pins.pin(8192, 10) and launched == ["cuda"] * 2
    assert calls == [(4096, 10, 1), (8192, 10, 1), (4096,), (8192, 10, 1)]


def test_devices_pin_where_it_helps(monkeypatch):
    asked = []
    monkeypatch.setattr(CudaPins, "pin", lambda self, *arguments: asked.append(arguments) or True)
    monkeypatch.setattr(CudaPins, "unpin", lambda self, *arguments: asked.append(arguments) or True)
    card, host = CudaDevice(torch.device("cuda", 0)), HostDevice(torch.device("cpu"))
    assert card.pin(4096, 10) and card.unpin(4096) and asked == [(4096, 10), (4096,)]
    assert not host.pin(4096, 10) and not host.unpin(4096)


def test_the_budget_is_half_of_what_the_process_may_use(monkeypatch):
    monkeypatch.setattr(pinning, "HostMemory", lambda: types.SimpleNamespace(total_bytes=lambda: 1000))
    assert default_pin_budget_bytes("cuda", False) == default_pin_budget_bytes("rocm", False) == 500
    assert [default_pin_budget_bytes(*which) for which in (("cuda", True), ("cpu", False), ("simulated", False))] == [0, 0, 0]
    monkeypatch.undo()
    assert default_pin_budget_bytes("cuda", False) == HostMemory().total_bytes() // 2
