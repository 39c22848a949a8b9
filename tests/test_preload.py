"""Preloading in running servers: the first prompt reads no model file, and what is wrong in a config is said and passed over."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from live_server import ROOT, free_port, nursery
from model_workflows import STARTERS, node, run, with_starters
from safetensors.torch import load_file, save_file
from warm_start import ForkedServer

VAE = "first_stage_model."
STARTER_FOLDER = ROOT / "models" / "checkpoints"
CONFIG = {
    "version": "1.0",
    "description": "what the shop's workflows use",
    "models": {
        "checkpoints": [{"name": STARTERS[0], "cache_key": "digits"}, {"name": STARTERS[1]}, {"name": "gone.safetensors"}],
        "text_encoders": [{"clip_names": ["text.safetensors"], "type": "stable_diffusion", "cache_key": "text"}],
        "diffusion_models": [{"model_name": "unet.safetensors", "weight_dtype": "default", "cache_key": "unet"}, {"model_name": 3}],
        "vaes": [{"vae_name": "vae.safetensors", "cache_key": "vae"}, {"vae_name": "vae.safetensors", "enabled": False}],
    },
    "settings": {"auto_gpu_load": True, "verbose": True, "colour": "green"},
}


@pytest.fixture
def config(tmp_path):
    """The config's file; the base directory of the server that ``start_server`` starts has the starter models in every folder."""
    for folder, names in {
        "checkpoints": STARTERS,
        "text_encoders": ["text.safetensors"],
        "diffusion_models": ["unet.safetensors"],
        "vae": ["vae.safetensors"],
    }.items():
        place = tmp_path / "server" / "models" / folder
        place.mkdir(parents=True)
        for name in names:
            shutil.copy(STARTER_FOLDER / (name if name in STARTERS else STARTERS[0]), place / name)
    autoencoder = {
        name.removeprefix(VAE): tensor for name, tensor in load_file(STARTER_FOLDER / STARTERS[0]).items() if name.startswith(VAE)
    }
    save_file(autoencoder, place / "vae.safetensors")
    file = tmp_path / "preload.json"
    file.write_text(json.dumps(CONFIG))
    return str(file)


def test_the_first_prompts_read_no_model_file(config, start_server):
    server = start_server("--ram-model-cache-mb", "1000", "--preload-config", config)
    shown = server.get("/keepwarm/preload")
    assert [model["state"] for model in shown["models"]] == ["held"] * 5
    assert [problem["path"] for problem in shown["problems"]] == [
        "settings.colour",
        "models.diffusion_models[1].model_name",
        "models.checkpoints[2]",
    ]
    assert "gone.safetensors" in server.log() and "models.checkpoints[2]" in server.log()
    for seed, name in enumerate(STARTERS):
        assert {receipt["tier"] for receipt in run(server, name, seed)[1]} == {"ram"}
    parts = {
        "1": node("UNETLoader", unet_name="unet.safetensors", weight_dtype="default"),
        "2": node("CLIPLoader", clip_name="text.safetensors", type="stable_diffusion"),
        "3": node("VAELoader", vae_name="vae.safetensors"),
    }
    parts |= {f"o{key}": node("PreviewAny", source=[key, 0]) for key in list(parts)}
    done = server.run(parts)
    assert done.history["status"]["status_str"] == "success"
    assert {receipt["tier"] for receipt in done.history["models"]} == {"ram"}
    assert all(entry["held"] for entry in server.get("/caches")["models"]["entries"])


def test_the_nodes_take_what_is_held_and_say_when_it_is_not(config, start_server):
    server = start_server("--ram-model-cache-mb", "1000", "--preload-config", config)

    def said(prompt):
        done = server.run({"1": prompt, "2": node("PreviewAny", source=["1", prompt.pop("said")])})
        assert done.history["status"]["status_str"] == "success", done.history["status"]
        return done.history["outputs"]["2"]["text"][0]

    def loaded(class_type, said=3, /, **inputs):
        return {**node(class_type, **inputs), "said": said}

    assert said(loaded("KeepwarmPreloadedCheckpoint", cache_key="digits")) == "preloaded"
    assert said(loaded("KeepwarmCheckpointLoader", name=STARTERS[1])) == "preloaded"
    assert said(loaded("KeepwarmPreloadedVAE", 1, cache_key="vae")) == "preloaded"
    assert said(loaded("KeepwarmDiffusionModelLoader", 1, model_name="unet.safetensors", weight_dtype="default")) == "preloaded"
    text = {"clip_name1": "text.safetensors", "clip_name2": "none", "clip_name3": "none", "type": "stable_diffusion", "device": "default"}
    assert said(loaded("KeepwarmTextEncoderLoader", 1, **text)) == "preloaded"
    assert json.loads(said(loaded("KeepwarmCachedModelInfo", 0)))["models"] == server.get("/keepwarm/preload")["models"]
    assert json.loads(said(loaded("KeepwarmCacheStatus", 1, cache_key="text")))["state"] == "held"
    server.post("/keepwarm/preload/let-go/vae", {})
    assert said(loaded("KeepwarmCacheStatus", 0, cache_key="vae")) == "False"
    assert said(loaded("KeepwarmVAELoader", 1, vae_name="vae.safetensors")) == "not preloaded: loaded the standard way"
    server.post("/keepwarm/preload/hold/vae", {})
    assert said(loaded("KeepwarmPreloadedVAE", 1, cache_key="vae")) == "preloaded"
    assert server.post("/keepwarm/preload/hold/nothing", {})[0] == 404
    status, after = server.post("/keepwarm/restored", {})
    assert status == 200 and after["restored"] == 1 and {model["state"] for model in after["models"]} == {"held"}


# Without reading ahead, which would hold the new file, too, as soon as it had read it.
@pytest.mark.parametrize("flags", [("--ram-model-cache-mb", "1000", "--no-read-ahead"), ("--no-ram-model-cache",)], ids=["cache", "pack"])
def test_a_replaced_file_is_no_longer_held_and_gives_its_own_picture(config, start_server, flags):
    server = start_server(*flags, "--preload-config", config)
    digits, outlines = (server.base / "models" / "checkpoints" / name for name in STARTERS)
    expected = run(server, outlines.name, 3)[0]
    assert run(server, digits.name, 3)[0] != expected
    shutil.copy(outlines, digits)
    assert run(server, digits.name, 3)[0] == expected
    states = {model["cache_key"]: model["state"] for model in server.get("/keepwarm/preload")["models"]}
    assert states["digits"] == "not held" and list(states.values()).count("held") == 4
    if "--no-ram-model-cache" not in flags:
        held = [entry["held"] for entry in server.get("/caches")["models"]["entries"] if entry["model"].endswith(digits.name)]
        assert True not in held


def test_what_does_not_fit_is_said_and_not_read(config, start_server):
    server = start_server("--ram-model-cache-mb", "32", "--preload-config", config)
    states = {model["cache_key"]: model for model in server.get("/keepwarm/preload")["models"]}
    assert states["digits"]["state"] == "held"
    refused = [model for model in states.values() if model["state"] == "not held"]
    assert len(refused) >= 2 and all("would take" in model["why"] and "--ram-model-cache-mb" in model["why"] for model in refused)
    assert "By the sizes of the files there is no room in" in server.log()
    entries = server.get("/caches")["models"]["entries"]
    assert all(entry["held"] and entry["state"] == "kept" for entry in entries)
    assert not any(STARTERS[1] in entry["model"] for entry in entries)


def test_a_warm_up_loads_and_computes_and_leaves_no_output(config, start_server, tmp_path):
    warmup, shared = ROOT / "examples" / "starter.json", f"file://{tmp_path}/shared"
    server = start_server("--ram-model-cache-mb", "1000", "--warmup-prompt", str(warmup), "--cache-provider", shared)
    assert f"Warmed up with {warmup}" in server.log()
    assert server.get("/history") == {} and not any((server.base / "output").iterdir())
    (provider,) = server.get("/keepwarm/caches")["providers"]
    assert provider["hits"] == provider["misses"] == provider["stores"] == 0
    assert "disk" not in {receipt["tier"] for receipt in run(server, STARTERS[0], 3)[1]}
    assert server.get("/keepwarm/caches")["providers"][0]["misses"] > 0


@pytest.mark.parametrize("content", ['{"1": {"class_type": "NoSuchNode", "inputs": {}}}', "[]"])
def test_a_warm_up_that_fails_is_said_and_the_server_starts(content, start_server, tmp_path):
    file = tmp_path / "warmup.json"
    file.write_text(content)
    server = start_server("--warmup-prompt", str(file))
    assert f"Not warmed up: {file}" in server.log()


def test_what_was_used_is_saved_and_is_the_next_start(config, start_server, tmp_path):
    saved = tmp_path / "saved.json"
    server = start_server("--ram-model-cache-mb", "1000", "--save-preload-config", str(saved), "--preload-config", config)
    run(server, STARTERS[1], 3)
    assert server.stop() == 0
    document = json.loads(saved.read_text())
    assert [entry["name"] for entry in document["models"]["checkpoints"]] == [STARTERS[1]]
    assert document["settings"] == {"auto_gpu_load": True, "verbose": True} and "used 1 times" in saved.read_text()
    again = start_server("--ram-model-cache-mb", "1000", "--preload-config", str(saved), "--save-preload-config", str(saved), name="server")
    assert {receipt["tier"] for receipt in run(again, STARTERS[1], 3)[1]} == {"ram"}
    before = saved.read_text()
    unused = start_server(
        "--ram-model-cache-mb", "1000", "--preload-config", str(saved), "--save-preload-config", str(saved), name="server"
    )
    assert unused.stop() == 0 and saved.read_text() == before


def ended(tmp_path, document, *flags):
    """(status, log) of a server with *document* as its preload config, which ends by itself."""
    file, log = tmp_path / "only.json", tmp_path / "only.log"
    file.write_text(json.dumps(document))
    log.write_bytes(b"")
    arguments = ["--cpu", "--base-directory", str(tmp_path / "server"), "--port", str(free_port()), "--preload-config", str(file), *flags]
    process = ForkedServer(nursery(), ROOT / "main.py", arguments, log, dict(os.environ))
    try:
        return process.wait(110), log.read_text()
    finally:
        process.kill()


def test_only_loading_ends_with_what_came_of_it(config, tmp_path):
    flags = ("--preload-only", "--ram-model-cache-mb", "500")
    status, said = ended(tmp_path, CONFIG, *flags)
    assert status == 1 and "Preloaded 5 of 5 models" in said and "Traceback" not in said
    status, said = ended(tmp_path, {"models": {"checkpoints": CONFIG["models"]["checkpoints"][:2]}}, *flags)
    assert status == 0 and "Preloaded 2 of 2 models" in said


def test_without_a_model_cache_the_pack_holds_the_models_itself(config, start_server):
    server = start_server("--no-ram-model-cache", "--preload-config", config)
    assert [model["state"] for model in server.get("/keepwarm/preload")["models"]] == ["held"] * 5
    before = read_bytes(server)
    pictures = [run(server, name, seed)[0] for seed, name in enumerate(STARTERS)]
    assert read_bytes(server) - before < (STARTER_FOLDER / STARTERS[0]).stat().st_size
    plain = start_server("--no-ram-model-cache", name="plain")
    assert [run(with_starters(plain), name, seed)[0] for seed, name in enumerate(STARTERS)] == pictures


def read_bytes(server):
    """What the process has read through system calls."""
    with open(f"/proc/{server.process.pid}/io") as counters:
        return next(int(line.split()[1]) for line in counters if line.startswith("rchar"))


def test_a_check_says_what_would_be_loaded_and_ends(config, tmp_path):
    command = [
        sys.executable,
        "main.py",
        "--cpu",
        "--base-directory",
        str(tmp_path / "server"),
        "--preload-config",
        config,
        "--preload-check",
    ]
    ended = subprocess.run([*command, "--port", str(free_port())], cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert ended.returncode == 1 and "models.checkpoints[2]" in ended.stdout and "together" in ended.stdout
    assert not ended.stderr.count("Traceback")
