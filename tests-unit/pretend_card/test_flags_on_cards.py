"""Flags that change how a card computes."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Iterator
from typing import ClassVar
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as functional
from engine import FP32, differences, engine, tensors_in

import comfy.ldm.flux.math as flux_math
import comfy.ldm.modules.attention as attention
import comfy.model_management as management
from comfy.cli_args import PerformanceFeature
from comfy.residency.torch_settings import apply_torch_settings


@pytest.fixture(autouse=True)
def torch_is_as_before() -> Iterator[None]:
    deterministic, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = benchmark


def test_deterministic_reaches_torch_before_anything_is_computed(models: pathlib.Path) -> None:
    with engine(1, deterministic=True, **FP32) as made:
        made.parts()
        assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()


@pytest.mark.parametrize(("fast", "expected"), [(set(), False), ({PerformanceFeature.AutoTune}, True)])
def test_autotune_tries_algorithms_out_on_cards(fast: set[PerformanceFeature], expected: bool) -> None:
    torch.backends.cudnn.benchmark = not expected
    with engine(1, fast=fast):
        apply_torch_settings(management.args, management.manager().devices.kind)
        assert torch.backends.cudnn.benchmark is expected


@pytest.mark.parametrize(("flags", "expected"), [({}, torch.float16), ({"force_upcast_attention": True}, torch.float32)])
def test_attention_is_computed_in_float32_when_asked_for(flags: dict[str, bool], expected: torch.dtype) -> None:
    seen = []

    def spy(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: object) -> torch.Tensor:
        seen.append((q.dtype, k.dtype, v.dtype))
        return v

    with engine(1, **flags), patch.object(functional, "scaled_dot_product_attention", spy):
        q = torch.randn(1, 8, 32, device="cuda", dtype=torch.float16)
        assert attention.optimized_attention(q, q, q, 2).dtype == torch.float16
        del q
    assert seen == [(expected,) * 3]


def test_rotations_by_position_use_comfy_kitchens_kernel_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    turned = []

    def fused(x: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
        turned.append((tuple(x.shape), tuple(rotations.shape)))
        return x

    monkeypatch.setattr(flux_math.kitchen, "fused_rope", lambda: fused)
    with engine(1):
        rotations = flux_math.rope(torch.arange(9)[None], 16, 10000.0)[:, None]
        on_host, on_card = torch.randn(1, 2, 6, 16), torch.randn(1, 2, 6, 16, device="cuda")
        assert flux_math.apply_rope1(on_host, rotations).shape == on_host.shape and turned == []
        flux_math.apply_rope(on_card, on_card, rotations.to("cuda"))
        del on_card
    assert turned == [((1, 2, 6, 16), (1, 1, 6, 8, 2, 2))] * 2


@pytest.mark.parametrize(("version", "used"), [("12.8", ["eager"]), ("13.0", ["cuda", "eager"])])
def test_kernels_of_comfy_kitchen_are_chosen_by_flags_and_by_torchs_cuda(
    monkeypatch: pytest.MonkeyPatch, version: str, used: list[str]
) -> None:
    class Package:
        kernels: ClassVar = {name: {"available": True, "disabled": False} for name in ("cuda", "eager", "triton")}

        def disable_backend(self, name: str) -> None:
            self.kernels[name]["disabled"] = True

        def list_backends(self) -> dict[str, dict[str, bool]]:
            return self.kernels

    monkeypatch.setattr(torch.version, "cuda", version)
    for asked, extra in (({}, []), ({"enable_triton_backend": True}, ["triton"])):
        for known in Package.kernels.values():
            known["disabled"] = False
        flux_math.kitchen.choose_kernels(
            Package(), argparse.Namespace(**{"enable_triton_backend": False, "disable_triton_backend": False} | asked)
        )
        assert [name for name, known in Package.kernels.items() if not known["disabled"]] == used + extra


def test_convolutions_have_their_weights_in_channels_last_order_on_the_card_when_asked_for(models: pathlib.Path) -> None:
    found = []
    for flags in ({}, {"force_channels_last": True}):
        with engine(1, **flags, **FP32) as made:
            model, _, vae, positive, negative = made.parts()
            found.append(tensors_in(made.sample(model, positive, negative, steps=1)))
            weights = [weight for weight in model.model.diffusion_model.parameters() if weight.ndim == 4 and 1 not in weight.shape[1:]]
            assert weights and all(weight.device.type == "cuda" for weight in weights)
            assert all(weight.is_contiguous(memory_format=torch.channels_last) is bool(flags) for weight in weights)
            assert all(weight.is_contiguous() for weight in model.pristine_weights()), "the host keeps them as the file has them"
            del model, vae, weights
    assert differences(*found, 1e-4) == []


@pytest.mark.parametrize(
    ("flags", "left_mib"), [({}, 400), ({"reserve_vram": 0.5}, 512), ({"reserve_vram": 0.5, "vram_headroom": 0.25}, 768)]
)
def test_flags_say_how_much_of_a_card_is_left_to_others(flags: dict[str, float], left_mib: int) -> None:
    with engine(1, **flags):
        assert management.extra_reserved_memory() == left_mib << 20


def test_fp8_weights_cross_as_fp8_and_are_converted_on_the_card(models: pathlib.Path) -> None:
    flags = {"fp8_e4m3fn_unet": True, "novram": True}
    with engine(1, **flags) as made:
        model, _, _, positive, negative = made.parts()
        made.sample(model, positive, negative, steps=1)
        management.manager().pinner.settle(30)
        before = made.card.counters["h2d bytes converted on the host"]
        streamed = tensors_in(made.sample(model, positive, negative, steps=2))
        assert made.card.counters["h2d bytes converted on the host"] - before < 4096
    with engine(1, fp8_e4m3fn_unet=True) as made:
        model, _, _, positive, negative = made.parts()
        assert differences(tensors_in(made.sample(model, positive, negative, steps=2)), streamed, 1e-6) == []
