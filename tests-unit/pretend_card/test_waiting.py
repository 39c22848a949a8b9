"""What the host must not wait for: conditioning at each step, small buffers once patches are undone; and what it must leave room for."""

from __future__ import annotations

import pathlib
from collections import Counter

import pytest
import torch
from engine import FP32, engine, on_host

import comfy.model_management as management
from comfy import made_by
from comfy.ldm.wan.expressions import Blur
from comfy.patching.schedules import Schedules
from comfy.patching.tripwire import put_back


def test_conditioning_is_on_the_card_before_the_first_step(models: pathlib.Path) -> None:
    with engine(1, **FP32) as made:
        model, _, _, positive, negative = made.parts()
        made.sample(model, positive, negative, steps=1)
        counts = []
        for steps in (2, 4):
            before = Counter(made.card.counters)
            made.sample(model, positive, negative, steps=steps, scheduler="karras")
            counts.append(Counter(made.card.counters))
            counts[-1].subtract(before)
        more = {kind: counts[1][kind] - counts[0][kind] for kind in ("h2d blocking", "syncs")}
        assert more == {"h2d blocking": 0, "syncs": 0}


def test_small_buffers_on_a_card_are_looked_at_in_one_read(models: pathlib.Path) -> None:
    with engine(1, settle=False, gpu_only=True, **FP32) as made:
        model = made.parts()[0]
        module = model.model
        buffers = [path for path, buffer in module.named_buffers() if buffer.numel()]
        for path in buffers[:3]:
            module.get_submodule(path.rpartition(".")[0])._buffers[path.rpartition(".")[2]] = module.get_buffer(path).to("cuda")
        looked_after = Schedules()
        looked_after.note(model)
        before = made.card.counters["syncs"]
        assert looked_after.restore(model) == [] and made.card.counters["syncs"] - before == 1
        module.get_buffer(buffers[1]).add_(1)
        assert looked_after.restore(model) == [buffers[1]] and looked_after.restore(model) == []
        del module, looked_after
        assert not put_back(model)


def test_faces_are_blurred_without_a_number_from_the_host(models: pathlib.Path) -> None:
    with engine(1, settle=False, **FP32) as made:
        pictures = torch.rand(1, 2, 9, 7)
        on_card, blur = pictures.to("cuda"), Blur((1, 3, 3, 1), (2, 1))
        before = Counter(made.card.counters)
        blurred = blur(on_card)
        made_there = Counter(made.card.counters) - before
        assert not [kind for kind in made_there if kind.startswith(("h2d", "syncs"))]
        assert torch.equal(on_host(blurred), blur(pictures))
        line = torch.tensor((1.0, 3.0, 3.0, 1.0)) / 8
        square = torch.outer(line, line).expand(2, 1, -1, -1)
        expected = torch.nn.functional.conv2d(torch.nn.functional.pad(pictures, (2, 1, 2, 1)), square, groups=2)
        assert torch.allclose(blur(pictures), expected, atol=1e-6)


def test_a_latent_keeps_the_note_of_its_maker_where_a_card_made_it(models: pathlib.Path) -> None:
    with engine(1, **FP32) as made:
        model, _, _, positive, negative = made.parts()
        noise, guider = made.first("RandomNoise", noise_seed=1), made.first("BasicGuider", model=model, conditioning=positive)
        sampler = made.first("KSamplerSelect", sampler_name="euler")
        sigmas = made.first("BasicScheduler", model=model, scheduler="normal", steps=1, denoise=1.0)
        made_latent = made.first(
            "SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=made.latent()
        )["samples"]
        assert made_latent.device.type == "cpu" and "starter-digits" in made_by.said(made_latent)
        del noise, guider, sampler, sigmas, negative


@pytest.mark.parametrize("lora", [None, "starter-plain.safetensors"])
def test_room_for_patching_at_each_call_is_part_of_the_budget(models: pathlib.Path, lora: str | None) -> None:
    with engine(1, card_mib=9, working_mib=0.5, **FP32) as made:
        model, _, _, positive, negative = made.parts()
        if lora is not None:
            model = made.first("LoraLoaderModelOnly", model=model, lora_name=lora, strength_model=1.0)
        made.sample(model, positive, negative, steps=1)
        largest = max(weight.nbytes for weight in model.pristine_weights())
        buffers = management.manager().devices.find().stream_buffer_bytes(largest)
        assert model.model.model_lowvram
        assert (model.model.model_offload_buffer_memory > buffers) is (lora is not None)
        assert torch.isfinite(on_host(made.sample(model, positive, negative, steps=1))).all()
        del model
