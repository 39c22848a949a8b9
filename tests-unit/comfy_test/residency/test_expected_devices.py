"""The first phase of a start for snapshots: models are built for a card that nobody asks, and the second takes what is there."""

import argparse
import pathlib

import pytest
import torch

import comfy.model_management
from comfy.cli_flags import build_parser
from comfy.loading.checkpoint import load_checkpoint_guess_config
from comfy.residency.device_table import DeviceTable
from comfy.residency.expected_devices import ExpectedTable, TooEarly, first_table
from comfy.residency.manager import ModelManager
from comfy.residency.process_models import ProcessModels

STARTER = pathlib.Path(__file__).resolve().parents[3] / "models" / "checkpoints" / "starter-digits.safetensors"
ASKED = (
    "is_available",
    "device_count",
    "current_device",
    "get_device_properties",
    "mem_get_info",
    "memory_stats",
    "is_bf16_supported",
    "init",
)


def flags(*given):
    return build_parser().parse_args(list(given))


@pytest.fixture
def questions(monkeypatch):
    """Counts what torch's interface to cards is asked; it answers that there is none."""
    asked = []

    def counting(name):
        def ask(*_, **__):
            asked.append(name)
            if name in ("is_available", "is_bf16_supported"):
                return False
            if name == "device_count":
                return 0
            raise RuntimeError("there is no card")

        return ask

    for name in (*ASKED, "_lazy_init"):
        monkeypatch.setattr(torch.cuda, name, counting(name))
    return asked


def test_loading_for_an_expected_card_asks_no_card(questions):
    args = flags("--snapshot-start", "9.0", "--ram-model-cache-mb", "200")
    models = ProcessModels(args)
    manager = models.manager()
    before = comfy.model_management.process_models().use(manager)
    try:
        patcher, clip, vae, _ = load_checkpoint_guess_config(str(STARTER))
        assert patcher.load_device == torch.device("cuda", 0) and vae.patcher.load_device == patcher.load_device
        assert {parameter.device.type for parameter in patcher.model.parameters()} == {"cpu"}
        assert comfy.model_management.get_torch_device() == torch.device("cuda", 0)
        assert questions == []
        with pytest.raises(TooEarly, match="POST /keepwarm/restored"):
            manager.devices.find().receive(torch.zeros(1))
    finally:
        comfy.model_management.process_models().use(before)
    kept = manager.ram_cache.stats().kept
    assert kept == 3
    assert not models.meet_devices()
    assert "is_available" in questions and models.devices().kind == "cpu"
    assert manager.ram_cache.stats().kept == 0, "what was built for the card is of no use without one"


def test_a_card_that_decides_alike_keeps_what_was_built(monkeypatch):
    models = ProcessModels(flags("--snapshot-start", "8.6", "--ram-model-cache-mb", "200"))
    models.manager()
    found = ExpectedTable(flags("--snapshot-start", "8.0"))
    monkeypatch.setattr("comfy.residency.process_models.DeviceTable", lambda args: found)
    assert models.meet_devices() and models.devices() is found
    other = ExpectedTable(flags("--snapshot-start", "9.0"))
    monkeypatch.setattr("comfy.residency.process_models.DeviceTable", lambda args: other)
    assert not models.meet_devices(), "a card that computes in float8 decides otherwise"


def test_simulated_and_no_accelerators_are_expected_as_such():
    table = ExpectedTable(flags("--snapshot-start", "--simulated-vram-mb", "100"))
    assert table.kind == "simulated" and table.compute_device() == torch.device("cpu", 0) and table.find().free_bytes() == 0
    assert ExpectedTable(flags("--snapshot-start", "--cpu")).all_devices() == [torch.device("cpu")]
    assert type(first_table(flags("--cpu"))) is DeviceTable
    assert type(first_table(flags("--cpu", "--snapshot-start"))) is ExpectedTable
    assert isinstance(ModelManager(flags("--cpu")).devices, DeviceTable)


def test_before_anything_was_loaded_the_second_phase_only_looks_later():
    models = ProcessModels(flags("--cpu", "--snapshot-start"))
    assert models.meet_devices() and not models.has_manager()
    assert type(models.devices()) is DeviceTable


@pytest.mark.parametrize("value", ["7.5", "none", "-9"])
def test_only_capabilities_from_eight_on_can_be_expected(value):
    with pytest.raises((argparse.ArgumentError, SystemExit)):
        flags("--snapshot-start", value)
