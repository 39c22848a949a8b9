"""Weights that stay on the host are fetched ahead of their use, while the card computes, and nobody waits for anything."""

from __future__ import annotations

import copy
import pathlib
import pickle
from collections import Counter
from typing import Any

import pytest
import torch
from engine import FP32, NO_MEMORY, Engine, engine, no_memory, on_host

import comfy.model_management as management
import comfy.residency.arena_pinner as arena_pinner
from comfy.cli_args import args
from comfy.ops import _fetched, disable_weight_init
from comfy.residency.fetching import WeightFetcher

NOVRAM = {"novram": True, **FP32}
SETTINGS = {
    "all streamed": NOVRAM,
    "a part streamed": {"card_mib": 12, "working_mib": 0.5, **FP32},
    "fp8": {"novram": True, "fp8_e4m3fn_unet": True},
}


@pytest.fixture(autouse=True)
def small_blocks_are_locked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena_pinner, "SMALLEST_BYTES", 1 << 20)


class Run:
    """A model that was sampled once, so that its memory is page-locked and the order of its layers known."""

    def __init__(self, made: Engine, lora: str | None = None) -> None:
        self.engine = made
        self.model, _, _, self.positive, self.negative = made.parts()
        if lora is not None:
            self.model = made.first("LoraLoaderModelOnly", model=self.model, lora_name=lora, strength_model=0.8)
        self.steps(1)
        assert management.manager().pinner.settle(60)

    def steps(self, count: int, **settings: Any) -> torch.Tensor:
        settings = {"scheduler": "karras"} | settings
        return on_host(self.engine.sample(self.model, self.positive, self.negative, steps=count, **settings)).clone()

    def per_step(self, **settings: Any) -> Counter[str]:
        """What one more step adds to the card's counters."""
        counts = []
        for steps in (2, 4):
            before = Counter(self.engine.card.counters)
            self.steps(steps, **settings)
            counts.append(Counter(self.engine.card.counters))
            counts[-1].subtract(before)
        more = Counter(counts[1])
        more.subtract(counts[0])
        return Counter({kind: count // 2 for kind, count in more.items()})


@pytest.mark.parametrize("setting", ["all streamed", pytest.param("a part streamed", marks=pytest.mark.long), "fp8"])
def test_no_step_waits_for_a_copy(models: pathlib.Path, setting: str) -> None:
    with engine(1, **SETTINGS[setting]) as made:
        run = Run(made)
        step = run.per_step()
        assert step["h2d locked bytes"] > 100_000, "weights are fetched"
        assert step["h2d blocking"] <= 2 and step["syncs"] == 0 and step["h2d bytes converted on the host"] == 0
        del run


def test_copies_run_while_the_card_computes(models: pathlib.Path) -> None:
    with engine(1, **NOVRAM) as made:
        run, machine = Run(made), made.machine
        assert machine is not None
        machine.scheduler.trace = []
        run.steps(2)
        trace = machine.scheduler.trace
        computing = {made.card.default.number}
        copying = {span.queue for span in trace if span.what == "h2d"} - computing
        assert len(copying) == 2, "two streams fetch"
        busy = sum(span.end_us - span.start_us for span in trace if span.queue in copying)
        assert machine.scheduler.overlap_us(copying, computing) > 0.3 * busy
        del run


@pytest.mark.parametrize("lora", [pytest.param(None, marks=pytest.mark.long), "starter-dora.safetensors"])
def test_results_are_those_of_weights_on_the_card(models: pathlib.Path, lora: str | None) -> None:
    with engine(1, **FP32) as made:
        expected = Run(made, lora).steps(1)
    with engine(1, **NOVRAM) as made:
        assert torch.equal(Run(made, lora).steps(1), expected)


def test_patches_at_each_call_do_not_wait_either(models: pathlib.Path) -> None:
    with engine(1, **NOVRAM) as made:
        run = Run(made, "starter-plain.safetensors")
        step = run.per_step()
        assert run.model.lowvram_patch_counter() > 0 and step["syncs"] == 0
        del run


@pytest.mark.parametrize(
    ("flags", "streams"),
    [
        ({"async_offload": 3}, 3),
        pytest.param({"async_offload": 1}, 1, marks=pytest.mark.long),
        pytest.param({"disable_async_offload": True}, 0, marks=pytest.mark.long),
    ],
)
def test_flags_say_how_many_streams_fetch(models: pathlib.Path, flags: dict[str, Any], streams: int) -> None:
    with engine(1, **NOVRAM) as made:
        expected = Run(made).steps(2)
    with engine(1, **flags, **NOVRAM) as made:
        run, machine = Run(made), made.machine
        assert machine is not None
        machine.scheduler.trace = []
        assert torch.equal(run.steps(2), expected)
        copying = {span.queue for span in machine.scheduler.trace if span.what == "h2d"} - {made.card.default.number}
        assert len(copying) == streams
        del run


def test_streaming_takes_no_more_than_its_buffers(models: pathlib.Path) -> None:
    peaks = []
    for flags in ({"disable_async_offload": True}, {}):
        with engine(1, **flags, **NOVRAM) as made:
            run = Run(made)
            made.card.forget_peak()
            run.steps(2)
            peaks.append(made.card.peak_bytes)
            largest = max(weight.nbytes for weight in run.model.pristine_weights())
            del run
    assert peaks[1] <= peaks[0] + 2 * largest + 4096


@pytest.mark.long
@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "ddim", "lcm"])
def test_samplers_do_not_wait_within_a_step(models: pathlib.Path, sampler: str) -> None:
    with engine(1, **FP32) as made:
        run = Run(made)
        assert run.per_step(sampler_name=sampler)["syncs"] <= 1
        del run


class Layers:
    """Four layers that a fetcher with two buffers brings to the first card."""

    def __init__(self) -> None:
        self.fetcher = WeightFetcher(torch.device("cuda", 0), 2)
        self.layers = [disable_weight_init.Linear(64, 64) for _ in range(4)]
        for number, layer in enumerate(self.layers):
            layer.weight = torch.nn.Parameter(torch.full((64, 64), number + 1.0), requires_grad=False)
            layer.bias = torch.nn.Parameter(torch.arange(64.0) * number, requires_grad=False)
            layer.fetcher, layer.comfy_cast_weights = self.fetcher, True

    def check(self, number: int) -> None:
        layer, ones = self.layers[number], torch.ones(1, 64)
        result = on_host(layer(ones.to("cuda")))
        assert torch.equal(result, torch.nn.functional.linear(ones, on_host(layer.weight), on_host(layer.bias)))


def test_a_network_that_changes_its_order_is_computed_right() -> None:
    with engine(1), torch.no_grad():
        layers = Layers()
        for number in (0, 1, 2, 3, 0, 1, 2, 3, 3, 1, 0, 0, 2, 1, 3, 0):
            layers.check(number)
        layers.layers[1].weight = torch.nn.Parameter(torch.zeros(64, 64), requires_grad=False)
        for number in (0, 1):  # the buffer has, or is getting, the weight that was there before
            layers.check(number)
        del layers


def test_weights_written_to_in_place_are_fetched_anew() -> None:
    with engine(1), torch.no_grad():
        with torch.inference_mode(False):  # torch counts no changes of what is made in that mode
            layers = Layers()
        for number in (0, 1, 2, 3, 2, 3):
            layers.check(number)
        torch.cuda.synchronize()
        for number in range(4):
            layers.layers[number].weight.mul_(2)
        layers.check(3)
        layers.layers[2].weight.data.mul_(3)  # torch does not count this
        layers.fetcher.forget()
        layers.check(2)
        del layers


def test_weights_written_to_between_two_prompts_are_fetched_anew(models: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(args, "verify_unpatch", False)  # it finds what is written here on purpose
    with engine(1, **NOVRAM) as made:
        run = Run(made)
        plain = run.steps(1)
        torch.cuda.synchronize()
        first = run.model.model.diffusion_model.time_embed[0]  # sent for when the last one was computed
        first.weight.data.mul_(2)
        found = run.steps(1)
        assert not torch.equal(found, plain)
        management.unload_all_models()
        assert torch.equal(run.steps(1), found), "as after everything was unloaded"
        first.weight.data.mul_(0.5)
        del run, first


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: type(error).__name__)
def test_without_room_for_two_buffers_one_is_used(caplog: pytest.LogCaptureFixture, error: RuntimeError) -> None:
    caplog.set_level("INFO")
    with engine(1) as made, torch.no_grad():
        layers, asked = Layers(), []

        def refuse(size: int, serial: int) -> bool:
            asked.extend([size] if size > 16384 else [])
            return size > 16384 and len(asked) == 2 and no_memory(error)

        made.card.refuses = refuse
        for number in (0, 1, 2, 3, 0, 1, 2, 3):
            layers.check(number)
        made.card.refuses = None
        assert "one less is used" in caplog.text
        del layers


def test_gradients_get_weights_of_their_own() -> None:
    with engine(1), torch.inference_mode(False), torch.enable_grad():
        layers = Layers()
        assert all(_fetched(layer, torch.ones(1, 64, device="cuda")) is None for layer in layers.layers)
        del layers


def test_copies_of_a_layer_have_no_part_in_it() -> None:
    with engine(1):
        layers = Layers()
        twin = copy.deepcopy(layers.layers[0])
        assert twin.fetcher is None and pickle.loads(pickle.dumps(layers.fetcher)) is None  # noqa: S301 - made right here
        del layers, twin
