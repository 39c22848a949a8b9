"""The config of the manual: two checkpoints, CLIP-L with CLIP-G, a diffusion model in fp8 and an autoencoder, as small files.

The first prompt after the start makes three pictures from all of them, and reads no model file.
"""

import json
import sys

import pytest
from live_server import ROOT
from model_workflows import node
from opened_files import opened_files
from picture_prompts import text_to_picture

sys.path.insert(0, str(ROOT / "benchmarks"))

from make_checkpoint import checkpoint_layout, clip_layout, family, open_clip_layout, unet_layout, vae_layout, write_checkpoint  # noqa: E402

SD15, SDXL = family("sd15", 10), family("sdxl", 10)
FILES = {
    "checkpoints/sd15.safetensors": (checkpoint_layout(SD15), SD15),
    "checkpoints/sdxl.safetensors": (checkpoint_layout(SDXL), SDXL),
    "text_encoders/clip_l.safetensors": (clip_layout(SDXL.clip_l), SDXL),
    "text_encoders/clip_g.safetensors": (open_clip_layout(SDXL.clip_g), SDXL),
    "diffusion_models/unet.safetensors": (unet_layout(SDXL.unet), SDXL),
    "vae/vae.safetensors": (vae_layout(SDXL.vae), SDXL),
}
CONFIG = {
    "version": "1.0",
    "models": {
        "checkpoints": [{"name": "sd15.safetensors", "cache_key": "small"}, {"name": "sdxl.safetensors", "cache_key": "large"}],
        "text_encoders": [{"clip_names": ["clip_l.safetensors", "clip_g.safetensors"], "type": "sdxl", "cache_key": "texts"}],
        "diffusion_models": [
            {"model_name": "flux1-dev.safetensors", "weight_dtype": "fp8_e4m3fn"},
            {"model_name": "unet.safetensors", "weight_dtype": "fp8_e4m3fn", "cache_key": "unet"},
        ],
        "vaes": [{"vae_name": "vae.safetensors", "cache_key": "vae"}],
    },
    "settings": {"auto_gpu_load": True, "verbose": True},
}

pytestmark = pytest.mark.timeout(300)


def named(prefix, prompt):
    """*prompt* with *prefix* before the ids of its nodes."""
    return {
        prefix + node_id: {
            "class_type": one["class_type"],
            "inputs": {name: [prefix + value[0], value[1]] if isinstance(value, list) else value for name, value in one["inputs"].items()},
        }
        for node_id, one in prompt.items()
    }


def three_pictures():
    """One prompt: a picture from each checkpoint, one from the parts, and what the info node says."""
    parts = text_to_picture("", 3, "a house", "grey")
    parts["model"] = node("UNETLoader", unet_name="unet.safetensors", weight_dtype="fp8_e4m3fn")
    parts["clip"] = node("DualCLIPLoader", clip_name1="clip_l.safetensors", clip_name2="clip_g.safetensors", type="sdxl")
    parts["vae"] = node("VAELoader", vae_name="vae.safetensors")
    parts["positive"]["inputs"]["clip"] = parts["negative"]["inputs"]["clip"] = ["clip", 0]
    parts["decode"]["inputs"]["vae"] = ["vae", 0]
    whole = named("parts ", parts)
    for number, name in enumerate(("sd15", "sdxl")):
        whole |= named(f"{name} ", text_to_picture(f"{name}.safetensors", number, "a house", "grey"))
    return whole | {"info": node("KeepwarmCachedModelInfo"), "shown": node("PreviewAny", source=["info", 0])}


def read_bytes(server):
    """What the process has read through system calls."""
    with open(f"/proc/{server.process.pid}/io", encoding="ascii") as counters:
        return next(int(line.split()[1]) for line in counters if line.startswith("rchar"))


def test_the_first_prompt_of_all_kinds_of_models_reads_no_file(start_server, tmp_path):
    models = tmp_path / "server" / "models"
    for number, (name, (layout, sizes)) in enumerate(FILES.items()):
        (models / name).parent.mkdir(parents=True, exist_ok=True)
        write_checkpoint(str(models / name), layout, number, metadata=sizes.metadata())
    config = tmp_path / "preload.json"
    config.write_text(json.dumps(CONFIG))
    server = start_server("--ram-model-cache-mb", "1000", "--preload-config", str(config))
    listed = server.get("/keepwarm/preload")
    assert {model["cache_key"]: model["state"] for model in listed["models"]} == dict.fromkeys(
        ("small", "large", "texts", "unet", "vae"), "held"
    )
    assert [problem["path"] for problem in listed["problems"]] == ["models.diffusion_models[0]"]
    assert "models.diffusion_models[0]" in server.log() and "flux1-dev.safetensors" in server.log()

    before = read_bytes(server)
    with opened_files(*{(models / name).parent for name in FILES}) as opened:
        done = server.run(three_pictures(), timeout_s=200)
    assert done.history["status"]["status_str"] == "success", done.history["status"]
    # Code that is imported when it is first needed is read too, but that is less than the smallest model.
    assert opened == [] and read_bytes(server) - before < min((models / name).stat().st_size for name in FILES)
    receipts = done.history["models"]
    assert {receipt["tier"] for receipt in receipts} == {"ram"} and len(receipts) == 3 + 3 + 3
    assert len({done.file_bytes(number) for number in range(3)}) == 3
    assert json.loads(done.history["outputs"]["shown"]["text"][0])["models"] == listed["models"]
