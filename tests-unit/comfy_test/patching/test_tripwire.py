"""Un-patching that leaves something behind is noticed, once."""

import logging

import pytest
import torch
from residency_models import MIB, Layers, management, patcher_of

import comfy.model_management
from comfy.cli_args import args
from comfy.patching.tripwire import tripwire

DEVICES = {"processor": None, "simulated": MIB}


def write_weight(model):
    model.second.weight.data[0, 0] += 1


def write_buffer(model):
    model.shift.data[0] = 7


def exchange_buffer(model):
    model.register_buffer("shift", torch.zeros(32))


@pytest.mark.parametrize("vram_bytes", DEVICES.values(), ids=DEVICES)
@pytest.mark.parametrize("change", [write_weight, write_buffer, exchange_buffer])
def test_what_stays_behind_is_logged_and_counted_once(vram_bytes, change, caplog):
    with management(vram_bytes):
        base = patcher_of(Layers())
        clone = base.clone()
        clone.add_patches({"first.weight": (torch.ones(64, 32),)})
        clone.add_object_patch("norm", torch.nn.Identity())
        comfy.model_management.load_models_gpu([clone])
        clone.detach()
        assert tripwire().leaks == 0
        change(base.model)
        for _ in range(2):
            comfy.model_management.load_models_gpu([clone])
            clone.detach()
        (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert "left something behind" in record.message and ("second.weight" in record.message or "shift" in record.message)
        assert tripwire().leaks == 1
        tripwire().leaks = 0


def test_without_the_flag_nothing_is_looked_at(monkeypatch):
    monkeypatch.setattr(args, "verify_unpatch", False)
    with management():
        base = patcher_of(Layers())
        comfy.model_management.load_models_gpu([base])
        write_weight(base.model)
        base.detach()
        assert tripwire().leaks == 0
