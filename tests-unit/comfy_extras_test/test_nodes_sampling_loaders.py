import sys
from types import SimpleNamespace

import pytest

import folder_paths
import nodes


@pytest.fixture
def loaded(monkeypatch):
    """Replaces ``comfy.sd`` and file look-up; returns the calls."""
    calls = []

    def record(name, result):
        def function(*arguments, **named):
            calls.append((name, arguments, named))
            return result

        return function

    fake = SimpleNamespace(
        load_checkpoint_guess_config=record("guess", ("m", "c", "v", "vision")),
        load_checkpoint=record("config", "mcv"),
        load_diffusion_model=record("unet", "unet"),
        load_clip=record("clip", "clip"),
        load_vae=record("vae", "vae"),
        load_lora_for_models=record("lora", ("m2", "c2")),
        CLIPType=SimpleNamespace(STABLE_DIFFUSION="sd", SDXL="xl"),
    )
    monkeypatch.setitem(sys.modules, "comfy.sd", fake)
    monkeypatch.setattr(folder_paths, "get_full_path_or_raise", lambda folder, name: f"{folder}/{name}")
    monkeypatch.setattr(folder_paths, "get_folder_paths", lambda folder: [folder])
    return calls


def test_checkpoints_give_model_clip_and_vae(loaded):
    assert nodes.CheckpointLoaderSimple().load_checkpoint("a.safetensors") == ("m", "c", "v")
    assert loaded[0][1:] == (
        ("checkpoints/a.safetensors",),
        {"output_vae": True, "output_clip": True, "embedding_directory": ["embeddings"]},
    )


@pytest.mark.parametrize(
    ("choice", "options"),
    [("default", {}), ("fp8_e5m2", {"dtype": "float8_e5m2"}), ("fp8_e4m3fn_fast", {"dtype": "float8_e4m3fn", "fp8_optimizations": True})],
)
def test_diffusion_models_can_be_kept_in_eight_bits(loaded, choice, options):
    assert nodes.UNETLoader().load_unet("u", choice) == ("unet",)
    given = loaded[0][2]["model_options"]
    assert {name: str(value).removeprefix("torch.") if name == "dtype" else value for name, value in given.items()} == options


def test_text_encoders_know_their_type_and_device(loaded):
    assert nodes.CLIPLoader().load_clip("a", "unknown_type", "cpu") == ("clip",)
    assert nodes.DualCLIPLoader().load_clip("a", "b", "sdxl") == ("clip",)
    single, dual = (call[2] for call in loaded)
    assert single["clip_type"] == "sd"
    assert single["model_options"]["load_device"].type == "cpu"
    assert (dual["ckpt_paths"], dual["clip_type"], dual["model_options"]) == (["text_encoders/a", "text_encoders/b"], "xl", {})


def test_vaes_come_from_their_folder(loaded):
    assert nodes.VAELoader().load_vae("v") == ("vae",)
    assert loaded[0][1] == ("vae/v",)


@pytest.fixture
def lora_files(monkeypatch):
    """Replaces reading of LoRA files; returns (path, what the node had before) of each call."""
    asked = []

    def load_lora_file(path, before):
        asked.append((path, before))
        return SimpleNamespace(path=path, metadata={"meta": 1})

    monkeypatch.setattr("comfy.loading.lora_files.load_lora_file", load_lora_file)
    return asked


def test_a_lora_file_is_offered_again_for_the_next_run(loaded, lora_files):
    node = nodes.LoraLoader()
    for _ in range(2):
        assert node.load_lora("m", "c", "style", 0.5, 0.25) == ("m2", "c2")
    assert [path for path, _ in lora_files] == ["loras/style"] * 2
    assert lora_files[0][1] is None and lora_files[1][1] is loaded[0][1][2]
    assert loaded[0][1] == ("m", "c", loaded[0][1][2], 0.5, 0.25) and loaded[0][2] == {"lora_metadata": {"meta": 1}}


def test_no_strength_loads_nothing(loaded):
    assert nodes.LoraLoader().load_lora("m", "c", "style", 0, 0) == ("m", "c")
    assert loaded == []


def test_the_model_alone_can_get_a_lora(loaded, lora_files):
    assert nodes.LoraLoaderModelOnly().load_lora_model_only("m", "style", 0.5) == ("m2",)
    assert loaded[0][1][:2] == ("m", None) and loaded[0][1][3:] == (0.5, 0)


def test_replaced_loading_functions_are_used(loaded, monkeypatch):
    monkeypatch.setattr(sys.modules["comfy.sd"], "load_vae", lambda path: "a pack's")
    assert nodes.VAELoader().load_vae("v") == ("a pack's",)
