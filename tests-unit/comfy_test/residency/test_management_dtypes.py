"""Which dtype is chosen on which card, with made-up cards."""

import types

import pytest
import torch
from residency_models import MIB, arguments

from comfy.residency.devices import Device
from comfy.residency.dtype_policy import DtypePolicy

CUDA = torch.device("cuda", 0)


class Card(Device):
    """A card with 8 GB."""

    def __init__(self, kind):
        super().__init__(CUDA)
        self.kind = kind

    def total_bytes(self):
        return 8192 * MIB


def policy(monkeypatch, name="", capability=(8, 0), kind="cuda", **flags):
    properties = types.SimpleNamespace(name=name, major=capability[0], minor=capability[1], gcnArchName=name)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    card = Card(kind)
    return DtypePolicy(types.SimpleNamespace(kind=kind, args=arguments(**flags), find=lambda device=None: card))


@pytest.mark.parametrize(
    ("name", "capability", "fp16", "fp16_kept", "bf16"),
    [
        ("NVIDIA H200", (9, 0), True, True, True),
        ("NVIDIA GeForce RTX 3060", (8, 6), True, True, True),
        ("Tesla T4", (7, 5), True, True, False),
        ("NVIDIA GeForce GTX 1660 Ti", (7, 5), False, False, False),
        ("NVIDIA GeForce GTX 1080", (6, 1), False, True, False),
        ("Quadro P5200", (6, 1), False, True, False),
        ("NVIDIA GeForce GTX 980", (5, 2), False, False, False),
    ],
)
def test_dtypes_on_nvidia_cards(name, capability, fp16, fp16_kept, bf16, monkeypatch):
    chosen = policy(monkeypatch, name, capability)
    assert chosen.should_use_fp16(CUDA) == fp16 and chosen.should_use_fp16(CUDA, manual_cast=True) == fp16_kept
    assert chosen.should_use_bf16(CUDA) == bf16
    assert chosen.supports_fp8_compute(CUDA) == (capability >= (8, 9))


def test_large_models_are_kept_in_half_precision_where_float32_would_not_fit(monkeypatch):
    chosen = policy(monkeypatch, "NVIDIA GeForce GTX 1660", (7, 5))
    every = (torch.float16, torch.bfloat16, torch.float32)
    assert chosen.unet_dtype(CUDA, 10**8, every, None) == torch.float32
    assert chosen.unet_dtype(CUDA, 10**10, every, None) == torch.float16
    assert chosen.unet_dtype(CUDA, 10**10, (torch.bfloat16, torch.float32), None) == torch.bfloat16


def test_dtypes_on_a_modern_card(monkeypatch):
    chosen = policy(monkeypatch, "NVIDIA RTX 4090", (8, 9))
    every = (torch.bfloat16, torch.float16, torch.float32)
    assert chosen.unet_dtype(CUDA, 1, every, torch.float32) == torch.bfloat16, "the family's first choice"
    assert chosen.unet_dtype(CUDA, 1, every, torch.float16) == torch.float16, "as the file has it"
    assert chosen.unet_dtype(CUDA, 1, every, torch.float8_e4m3fn) == torch.float8_e4m3fn
    assert chosen.unet_manual_cast(torch.float8_e4m3fn, CUDA, every) == torch.bfloat16
    assert chosen.unet_manual_cast(torch.float16, CUDA, every) is None and chosen.unet_manual_cast(torch.bfloat16, CUDA, every) is None
    assert chosen.vae_dtype(CUDA, [torch.bfloat16, torch.float32]) == torch.bfloat16
    assert chosen.pick_weight_dtype(torch.float32, torch.float16, CUDA) == torch.float16
    assert chosen.pick_weight_dtype(None, torch.bfloat16, CUDA) == torch.bfloat16
    assert chosen.pick_weight_dtype(torch.float8_e5m2, torch.bfloat16, CUDA) == torch.float8_e5m2


def test_flags_win_over_cards(monkeypatch):
    assert not policy(monkeypatch, "NVIDIA H200", (9, 0), force_fp32=True).should_use_bf16(CUDA)
    assert policy(monkeypatch, "NVIDIA GeForce GTX 980", (5, 2), force_fp16=True).should_use_fp16(CUDA)
    assert policy(monkeypatch, "NVIDIA GeForce GTX 980", (5, 2), supports_fp8_compute=True).supports_fp8_compute(CUDA)
    assert not policy(monkeypatch, force_fp16=True).should_use_fp16(torch.device("cpu"))


def test_dtypes_on_amd_and_apple(monkeypatch):
    old, new = policy(monkeypatch, "gfx1030", kind="rocm"), policy(monkeypatch, "gfx1030", kind="rocm")
    assert old.should_use_fp16(CUDA) and not old.should_use_bf16(CUDA) and new.should_use_bf16(CUDA, manual_cast=True)
    assert policy(monkeypatch, "gfx1100", (11, 0), kind="rocm").should_use_bf16(CUDA)
    apple = policy(monkeypatch, kind="mps")
    monkeypatch.setattr("platform.mac_ver", lambda: ("13.6", ("", "", ""), ""))
    assert apple.should_use_fp16(torch.device("mps")) and not apple.should_use_bf16(torch.device("mps"))
    assert not apple.supports_cast(torch.device("mps"), torch.float8_e5m2)
