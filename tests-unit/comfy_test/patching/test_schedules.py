"""A node that writes its schedule into the module does not change later pictures: it is put back when patches are undone."""

import logging

import pytest
import torch
from residency_models import MIB, Layers, management, patcher_of

import comfy.model_management
import comfy.model_sampling
from comfy.cli_args import args
from comfy.patching.base_weights import BaseWeights
from comfy.patching.schedules import Schedules
from comfy.patching.tripwire import tripwire

DEVICES = pytest.mark.parametrize("vram_bytes", [None, MIB], ids=["processor", "simulated"])


class Sampled(Layers):
    def __init__(self):
        super().__init__()
        self.model_sampling = comfy.model_sampling.ModelSamplingDiscrete()
        self.model_sampling.shift = 1.5


def other_sigmas(module):
    module.model_sampling.set_sigmas(module.model_sampling.sigmas * 2)


def sigmas_in_place(module):
    module.model_sampling.sigmas.mul_(2)


def other_number(module):
    module.model_sampling.shift = 3.0


def no_number(module):
    del module.model_sampling.shift


def other_schedule(module):
    module.model_sampling = comfy.model_sampling.ModelSamplingDiscrete()


def other_buffer(module):
    module.register_buffer("shift", torch.zeros(32))


CHANGES = pytest.mark.parametrize("change", [other_sigmas, sigmas_in_place, other_number, no_number, other_schedule, other_buffer])


def state(module):
    return (module.model_sampling, dict(vars(module.model_sampling)), {name: buffer.clone() for name, buffer in module.named_buffers()})


def assert_as_before(module, before):
    sampling, numbers, buffers = before
    assert module.model_sampling is sampling and sampling.shift == numbers["shift"]
    found = dict(module.named_buffers())
    assert found.keys() == buffers.keys() and all(torch.equal(found[name], values) for name, values in buffers.items())


@CHANGES
@DEVICES
def test_what_was_written_while_patched_is_put_back(vram_bytes, change, monkeypatch, caplog):
    monkeypatch.setattr(args, "verify_unpatch", False)
    with management(vram_bytes):
        base = patcher_of(Sampled())
        before, leaks = state(base.model), tripwire().leaks
        clone = base.clone()
        clone.add_patches({"first.weight": (torch.ones(64, 32),)})
        comfy.model_management.load_models_gpu([clone])
        change(base.model)
        clone.detach()
        assert_as_before(base.model, before)
        on_device = vram_bytes is not None and change is sigmas_in_place  # a copy on the device was written to, and is gone with it
        told = [record.message for record in caplog.records if record.levelno == logging.ERROR]
        assert len(told) == (0 if on_device else 1)
        assert all("left something behind" in message and "put back" in message for message in told)
        clone.detach()
        comfy.model_management.load_models_gpu([clone])
        clone.detach()
        assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == len(told) and tripwire().leaks == leaks


@CHANGES
@DEVICES
def test_a_cached_model_is_handed_out_with_its_own_schedule(vram_bytes, change, monkeypatch):
    monkeypatch.setattr(args, "verify_unpatch", False)
    with management(vram_bytes):
        base, weights = patcher_of(Sampled()), BaseWeights()
        weights.note(base)
        before = state(base.model)
        clone = base.clone()
        comfy.model_management.load_models_gpu([clone])
        change(base.model)
        del clone
        weights.restore(base)
        comfy.model_management.unload_all_models()
        assert_as_before(base.model, before)


@DEVICES
def test_schedules_that_are_patched_are_left_alone(vram_bytes, caplog):
    with management(vram_bytes):
        base = patcher_of(Sampled())
        before = state(base.model)
        clone, patched = base.clone(), comfy.model_sampling.ModelSamplingDiscrete()
        patched.set_sigmas(patched.sigmas * 2)
        clone.add_object_patch("model_sampling", patched)
        for patcher in (clone, base, clone):
            comfy.model_management.load_models_gpu([patcher])
            assert patcher.model.model_sampling is (patched if patcher is clone else before[0])
        comfy.model_management.unload_all_models()
        assert_as_before(base.model, before)
        assert not [record for record in caplog.records if record.levelno == logging.ERROR]


def test_nothing_is_known_of_modules_that_were_not_noted():
    with management():
        base = patcher_of(Sampled())
        base.model.model_sampling.shift = 2.0
        kept = Schedules()
        assert kept.restore(base) == [] and base.model.model_sampling.shift == 2.0
        kept.note(base)
        base.model.model_sampling.shift = 3.0
        kept.note(base)
        assert kept.restore(base) == ["model_sampling.shift"] and base.model.model_sampling.shift == 2.0
