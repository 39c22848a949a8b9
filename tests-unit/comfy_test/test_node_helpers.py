"""The functions node authors import as node_helpers."""

import hashlib

import PIL.ImageFile
import pytest
import torch

import comfy.model_management
import node_helpers
from comfy.cli_args import args


def test_conditioning_is_copied_and_values_set_or_added():
    original = [["tensor", {"a": 1}]]
    assert node_helpers.conditioning_set_values(original, {"a": 2, "b": 3}) == [["tensor", {"a": 2, "b": 3}]]
    assert node_helpers.conditioning_set_values(original, {"a": 2, "b": 3}, append=True) == [["tensor", {"a": 3, "b": 3}]]
    assert original == [["tensor", {"a": 1}]]


def test_values_for_a_part_of_the_sampling_split_entries():
    split = node_helpers.conditioning_set_values_with_timestep_range([["t", {}]], {"a": 1}, 0.2, 0.6)
    ranges = [(options["start_percent"], options["end_percent"], options.get("a")) for _, options in split]
    assert ranges == [(0.0, pytest.approx(0.2, abs=1e-4), None), (0.2, 0.6, 1), (pytest.approx(0.6, abs=1e-4), 1.0, None)]
    late = [["t", {"start_percent": 0.7}]]
    assert node_helpers.conditioning_set_values_with_timestep_range(late, {"a": 1}, 0.2, 0.6) == late
    assert node_helpers.conditioning_set_values_with_timestep_range(late, {"a": 1}, 0.6, 0.2) is late


def test_second_try_tolerates_truncated_files_and_restores_the_setting():
    calls = []

    def open_picture(name):
        calls.append(PIL.ImageFile.LOAD_TRUNCATED_IMAGES)
        if not calls[-1]:
            raise OSError("truncated")
        return name

    assert node_helpers.pillow(open_picture, "x") == "x"
    assert calls == [False, True] and PIL.ImageFile.LOAD_TRUNCATED_IMAGES is False

    def fail(_name):
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        node_helpers.pillow(fail, "x")
    assert PIL.ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_small_lookups(monkeypatch):
    monkeypatch.setattr(args, "default_hashing_function", "md5")
    assert node_helpers.hasher() is hashlib.md5
    assert node_helpers.string_to_torch_dtype("bf16") is torch.bfloat16 and node_helpers.string_to_torch_dtype("int4") is None
    assert (
        comfy.model_management.intermediate_device() == torch.device("cpu") and comfy.model_management.intermediate_dtype() is torch.float32
    )


def test_what_nodes_pass_on_follows_the_accelerator_only_with_gpu_only(monkeypatch):
    monkeypatch.setattr(args, "gpu_only", True)
    monkeypatch.setattr(comfy.model_management, "get_torch_device", lambda: torch.device("meta"))
    assert comfy.model_management.intermediate_device() == torch.device("meta")


@pytest.mark.parametrize("channels, given", [(3, 4), (4, 3), (3, 3)])
def test_source_gets_the_channels_of_the_destination(channels, given):
    destination, source = node_helpers.image_alpha_fix(torch.zeros(1, 2, 2, channels), torch.zeros(1, 2, 2, given))
    assert source.shape == destination.shape
    assert source[..., -1].unique().tolist() == [1.0 if channels > given else 0.0]
