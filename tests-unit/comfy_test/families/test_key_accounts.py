"""Tensors that nothing uses are named, in one line, by every loader."""

import pytest
import safetensors.torch
import torch
from control_files import HEADS, published_names
from safetensors import safe_open
from small_models import small_checkpoint

import comfy.controlnet
import comfy.sd
from comfy.families.key_accounts import is_harmless, outside, say_unused


@pytest.mark.parametrize(
    "key", ["model_ema.decay", "alphas_cumprod", "text_model.embeddings.position_ids", "logit_scale", "loss.discriminator.main.0.weight"]
)
def test_what_training_leaves_behind_does_no_harm(key):
    assert is_harmless(key)


def test_only_what_is_neither_used_nor_harmless_is_named(caplog):
    say_unused("a.safetensors", "the VAE", ["used", "betas", *(f"odd.{number}" for number in range(9))], {"used"})
    (record,) = caplog.records
    assert record.message == "a.safetensors: 9 tensors are not used (the VAE), such as odd.0, odd.1, odd.2"
    say_unused("a.safetensors", "the VAE", ["used", "betas"], {"used"})
    assert len(caplog.records) == 1 and outside(["x.a", "first_stage_model.b", "y"], ("x.",)) == ["y"]


@pytest.fixture(scope="module")
def tensors():
    with safe_open(small_checkpoint(), "pt") as opened:
        return {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata()  # noqa: SIM118


SURPLUS = (
    "model.diffusion_model.surplus.weight",
    "cond_stage_model.transformer.text_model.surplus.weight",
    "first_stage_model.surplus.weight",
    "first_stage_model.decoder.surplus.weight",
    "surplus.weight",
)


def test_a_checkpoint_accounts_for_every_tensor(tensors, tmp_path, caplog):
    content, metadata = tensors
    path = str(tmp_path / "whole.safetensors")
    extra = dict.fromkeys((*SURPLUS, "betas", "model_ema.num_updates"), torch.ones(2, 2))
    safetensors.torch.save_file(content | {key: value.clone() for key, value in extra.items()}, path, metadata=metadata)
    comfy.sd.load_checkpoint_guess_config(path)
    said = [record.message for record in caplog.records if "not used" in record.message]
    assert len(said) == 4 and all("whole.safetensors" in line for line in said)
    assert sum(int(line.split(": ")[1].split()[0]) for line in said) == len(SURPLUS) and not any("betas" in line for line in said)


@pytest.mark.parametrize(
    ("prefix", "load"),
    [
        ("model.diffusion_model.", comfy.sd.load_diffusion_model),
        ("cond_stage_model.transformer.", lambda path: comfy.sd.load_clip([path])),
        ("first_stage_model.", comfy.sd.load_vae),
    ],
    ids=["unet", "clip", "vae"],
)
def test_loaders_of_one_part_account_for_every_tensor(tensors, prefix, load, tmp_path, caplog):
    content, metadata = tensors
    part = {key.removeprefix(prefix): value for key, value in content.items() if key.startswith(prefix)}
    path = str(tmp_path / "part.safetensors")
    safetensors.torch.save_file(part | {"surplus.weight": torch.ones(2)}, path, metadata=metadata)
    load(path)
    (said,) = [record.message for record in caplog.records if "not used" in record.message]
    assert "part.safetensors: 1 tensors are not used" in said and "surplus.weight" in said
    caplog.clear()
    load(small_checkpoint()) if prefix != "first_stage_model." else None
    assert "not used" not in caplog.text


def test_a_controlnet_accounts_for_every_tensor(tmp_path, caplog):
    path = str(tmp_path / "control.safetensors")
    extra = {"control_model.surplus.weight": torch.ones(1), "first_stage_model.x": torch.ones(1), "surplus": torch.ones(1)}
    safetensors.torch.save_file(published_names() | extra, path, metadata=HEADS)
    comfy.controlnet.load_controlnet(path)
    said = [record.message for record in caplog.records if "not used" in record.message]
    assert len(said) == 2 and all("surplus" in line and "control.safetensors" in line for line in said)
