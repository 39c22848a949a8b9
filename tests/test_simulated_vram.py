"""A simulated accelerator too small for the UNet, against the processor without a limit: same bits, and evictions that can be seen."""

import io
import json
import re
import subprocess
import sys
import urllib.parse

import pytest
from live_server import ROOT
from picture_prompts import text_to_picture
from PIL import Image

MIB = 2**20
SIMULATED_MIB = 16  # the checkpoint below has 12.5 MB of text model in fp32, 32.8 MB of UNet and 6.6 MB of autoencoder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """An SD 1.5 checkpoint with random weights, a tenth as wide."""
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    command = [sys.executable, str(ROOT / "benchmarks" / "make_checkpoint.py"), str(path), "--family", "sd15", "--shrink", "10"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return path


def workflow(seed):
    """Text to picture in two steps."""
    return text_to_picture(
        "small.safetensors", seed, f"a (red:1.3) house, number {seed}", "grey", sampler="euler_ancestral", scheduler="karras"
    )


def pictures(server, checkpoint, seeds):
    """The pixels of one picture per seed."""
    folder = server.base / "models" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / checkpoint.name).symlink_to(checkpoint)
    found = []
    for seed in seeds:
        run = server.run(workflow(seed), timeout_s=240)
        assert run.history["status"]["status_str"] == "success", json.dumps(run.history["status"])
        query = urllib.parse.urlencode(run.history["outputs"]["save"]["images"][0])
        with Image.open(io.BytesIO(server.get_bytes(f"/view?{query}"))) as image:
            found.append(image.convert("RGB").tobytes())
    return found


def test_pictures_are_bit_identical_and_models_make_room_when_the_unet_does_not_fit(start_server, checkpoint):
    one_thread = {"OMP_NUM_THREADS": "1"}
    unlimited = start_server("--fp32-text-enc", name="unlimited", environment=one_thread)
    reference = pictures(unlimited, checkpoint, (1, 2))
    unlimited.stop()
    assert reference[0] != reference[1]
    assert len(set(reference[0])) > 20  # not a flat picture

    limited = start_server(
        "--simulated-vram-mb", str(SIMULATED_MIB), "--fp32-text-enc", "--verbose", "DEBUG", name="limited", environment=one_thread
    )
    assert pictures(limited, checkpoint, (1, 2)) == reference

    log = limited.log()
    device = limited.get("/system_stats")["devices"][0]
    assert device["vram_total"] == SIMULATED_MIB * MIB
    assert 0 <= device["vram_free"] < SIMULATED_MIB * MIB
    loads = [float(megabytes) for megabytes in re.findall(r"BaseModel loaded partially: ([\d.]+) MB on cpu:0", log)]
    assert len(loads) == 2, log  # once per prompt, never whole
    assert all(0 < megabytes <= round(SIMULATED_MIB * MIB / 1e6, 1) for megabytes in loads), loads
    first, second = log.split("Prompt executed")[:2]
    # The text model leaves for the UNet, whole; of the UNet, the latest, only as much leaves as the autoencoder needs.
    assert "unloaded SD1ClipModel from cpu:0" in first
    assert re.search(r"BaseModel: [\d.]+ MB moved off cpu:0", first)
    assert "unloaded BaseModel" not in first
    # Then the text model needs room: the UNet goes first, as it has the most on the host already; of the autoencoder a part is enough.
    assert second.index("unloaded BaseModel from cpu:0") < second.index("KlAutoencoder: ")
    assert re.search(r"KlAutoencoder: [\d.]+ MB moved off cpu:0, [\d.]+ MB stay", second)
