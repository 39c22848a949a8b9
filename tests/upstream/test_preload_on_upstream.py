"""Preloading by the pack in an unpatched ComfyUI: the first prompt opens no model file. Skipped unless a ComfyUI of 0.28 or later is named.

    KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream

Nothing in the checkout is changed: pack and models lie in the server's base directory. The own server has tests/test_preload.py.
"""

import json
import os
import pathlib
import subprocess

import pytest
from live_server import ROOT
from model_workflows import node
from opened_files import opened_files

CHECKOUT = os.environ.get("KEEPWARM_UPSTREAM_CHECKOUT")
PYTHON = os.environ.get("KEEPWARM_UPSTREAM_PYTHON")
START_TIMEOUT_S = 400  # ComfyUI alone takes a minute where others compute
FOLDERS = ("checkpoints", "text_encoders", "diffusion_models", "vae")
CONFIG = {
    "version": "1.0",
    "models": {
        "checkpoints": [{"name": "first.safetensors", "cache_key": "first"}, {"name": "second.safetensors"}, {"name": "gone.safetensors"}],
        "text_encoders": [{"clip_names": ["clip_l.safetensors", "clip_l_too.safetensors"], "type": "sd3"}],
        "diffusion_models": [{"model_name": "unet.safetensors", "weight_dtype": "default"}],
        "vaes": [{"vae_name": "vae.safetensors", "cache_key": "vae"}],
    },
    "settings": {"auto_gpu_load": True, "verbose": True},
}
LOADERS = {
    "1": node("CheckpointLoaderSimple", ckpt_name="first.safetensors"),
    "2": node("CheckpointLoaderSimple", ckpt_name="second.safetensors"),
    "3": node("DualCLIPLoader", clip_name1="clip_l.safetensors", clip_name2="clip_l_too.safetensors", type="sd3"),
    "4": node("UNETLoader", unet_name="unet.safetensors", weight_dtype="default"),
    "5": node("VAELoader", vae_name="vae.safetensors"),
    "6": node("KeepwarmCachedModelInfo"),
}
WARM_UP = {"1": LOADERS["5"], "2": node("EmptyLatentImage", width=64, height=64, batch_size=1)} | {
    "3": node("VAEDecode", samples=["2", 0], vae=["1", 0]),
    "4": node("SaveImage", images=["3", 0], filename_prefix="warm"),
}

pytestmark = [
    pytest.mark.skipif(not (CHECKOUT and PYTHON), reason="KEEPWARM_UPSTREAM_CHECKOUT and KEEPWARM_UPSTREAM_PYTHON name no ComfyUI to test"),
    pytest.mark.timeout(900),
]


def test_the_first_prompt_opens_no_model_file(start_server, tmp_path):
    base = tmp_path / "server"
    subprocess.run([PYTHON, str(ROOT / "tests" / "upstream" / "upstream_models.py"), str(base / "models")], cwd=CHECKOUT, check=True)
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / "keepwarm").symlink_to(ROOT / "custom_nodes" / "keepwarm")
    config, warmup, saved = (tmp_path / name for name in ("preload.json", "warmup.json", "saved.json"))
    config.write_text(json.dumps(CONFIG))
    warmup.write_text(json.dumps(WARM_UP))
    environment = {
        "KEEPWARM_PRELOAD_CONFIG": str(config),
        "KEEPWARM_WARMUP_PROMPT": str(warmup),
        "KEEPWARM_SAVE_PRELOAD_CONFIG": str(saved),
    }
    server = start_server(
        "--disable-api-nodes", environment=environment, root=pathlib.Path(CHECKOUT), python=PYTHON, start_timeout_s=START_TIMEOUT_S
    )
    shown = server.get("/keepwarm/preload")
    assert [model["state"] for model in shown["models"]] == ["held"] * 5, server.log()
    assert [problem["path"] for problem in shown["problems"]] == ["models.checkpoints[2]"]
    assert "models.checkpoints[2]" in server.log() and "gone.safetensors" in server.log()
    assert f"Warmed up with {warmup}" in server.log() and not list((base / "output").glob("*.png"))
    prompt = LOADERS | {f"o{key}": node("PreviewAny", source=[key, 0]) for key in LOADERS}
    with opened_files(*(base / "models" / folder for folder in FOLDERS)) as opened:
        done = server.run(prompt, 120)
    assert done.history["status"]["status_str"] == "success", done.history["status"]
    assert {"1", "2", "3", "4"} <= set(done.executed) and opened == []  # what loader 5 gave is known from the warm-up
    assert json.loads(done.history["outputs"]["o6"]["text"][0])["models"] == shown["models"]
    refused = server.post("/keepwarm/preload/let-go/nothing", {})
    assert refused[0] == 404
    assert server.post("/keepwarm/restored", {})[1]["restored"] == 1
    server.stop()
    names = [entry["name"] for entry in json.loads(saved.read_text())["models"]["checkpoints"]]
    assert sorted(names) == ["first.safetensors", "second.safetensors"]
