"""Nodes that load image encoders, text encoders of several files and folders of the Diffusers library."""

import sys
from types import SimpleNamespace

import pytest

import comfy.diffusers_load
import folder_paths
import nodes
from comfy_extras.core_clip_vision import CLIPVisionEncode, CLIPVisionLoader
from comfy_extras.core_diffusers import DiffusersLoader
from comfy_extras.nodes_hidream import QuadrupleCLIPLoader
from comfy_extras.nodes_sd3 import TripleCLIPLoader


@pytest.fixture(autouse=True)
def files(monkeypatch):
    monkeypatch.setattr(folder_paths, "get_full_path_or_raise", lambda folder, name: f"{folder}/{name}")


def test_an_image_encoder_is_loaded_and_encodes(monkeypatch):
    made = SimpleNamespace(encode_image=lambda image, crop: (image, crop))
    monkeypatch.setitem(sys.modules, "comfy.clip_vision", SimpleNamespace(load=lambda path: made if path == "clip_vision/a" else None))
    assert CLIPVisionLoader().load_clip("a") == (made,)
    with pytest.raises(RuntimeError, match="b holds no image encoder"):
        nodes.CLIPVisionLoader().load_clip("b")
    assert CLIPVisionEncode().encode(made, "picture", "center") == (("picture", True),)
    assert nodes.CLIPVisionEncode().encode(made, "picture", "none") == (("picture", False),)
    assert CLIPVisionEncode.INPUT_TYPES()["required"]["crop"] == (["center", "none"],)


@pytest.mark.parametrize(("loader", "count"), [(TripleCLIPLoader, 3), (QuadrupleCLIPLoader, 4)])
def test_text_encoders_of_several_files(monkeypatch, loader, count):
    monkeypatch.setattr(folder_paths, "get_filename_list", lambda folder: [f"{folder}.safetensors"])
    fake = SimpleNamespace(load_clip=lambda ckpt_paths, **_: ckpt_paths, CLIPType=SimpleNamespace(STABLE_DIFFUSION=1))
    monkeypatch.setitem(sys.modules, "comfy.sd", fake)
    names = list("abcd"[:count])
    assert loader().load_clip(*names) == ([f"text_encoders/{name}" for name in names],)
    assert list(loader.INPUT_TYPES()["required"]) == [f"clip_name{number}" for number in range(1, count + 1)]


def test_a_folder_of_the_diffusers_library(monkeypatch, tmp_path, caplog):
    model = tmp_path / "group" / "model"
    for part, name in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model"), ("text_encoder_2", "model.fp16")):
        (model / part).mkdir(parents=True)
        (model / part / f"{name}.safetensors").touch()
    (model / "model_index.json").touch()
    monkeypatch.setattr(folder_paths, "get_folder_paths", lambda folder: [str(tmp_path / "missing"), str(tmp_path)])
    monkeypatch.setattr(comfy.diffusers_load.comfy.sd, "load_diffusion_model", lambda path: path)
    monkeypatch.setattr(comfy.diffusers_load.comfy.sd, "load_clip", lambda paths, embedding_directory: paths)
    assert DiffusersLoader.INPUT_TYPES() == {"required": {"model_path": (["group/model"],)}}
    assert not caplog.records, "a folder that is not there holds no models, and nothing is wrong"
    unet, clip, vae = nodes.DiffusersLoader().load_checkpoint("group/model", output_vae=False)
    assert unet == str(model / "unet" / "diffusion_pytorch_model.safetensors") and vae is None
    assert clip == [str(model / "text_encoder" / "model.safetensors"), str(model / "text_encoder_2" / "model.fp16.safetensors")]
    with pytest.raises(FileNotFoundError, match="vae holds no weights"):
        DiffusersLoader().load_checkpoint("group/model")
    with pytest.raises(FileNotFoundError, match="no folder 'other'"):
        DiffusersLoader().load_checkpoint("other")
