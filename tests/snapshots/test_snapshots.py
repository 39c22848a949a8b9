"""Servers frozen between the two phases by CRIU and restored: they serve right, also ten at once from one image, and under other limits.

Needs root and a CRIU that the kernel suits: ``KEEPWARM_CRIU=/path/criu pytest tests/snapshots`` (some minutes). The same without it:
servers forked off a process that has done the first phase.
"""

import base64
import io
import json
import os
import shutil

import pytest
from forked_image import ForkedImage
from live_server import ROOT
from model_workflows import STARTERS, run, with_starters, workflow
from PIL import Image
from snapshot_images import GROUPS, Snapshot, limited_group, why_not

from comfy.units import GIB

STARTER_FOLDER = ROOT / "models" / "checkpoints"
WHY_NOT = why_not()
needs_criu = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
needs_groups = pytest.mark.skipif(
    not (os.access(GROUPS, os.W_OK) and (GROUPS / "memory.limit_in_bytes").exists()), reason="needs memory control groups of version 1"
)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def base_with(tmp_path, names):
    """(base directory, preload config) with the checkpoints *names*, copies of the starters in turn."""
    base = tmp_path / "base"
    folder = base / "models" / "checkpoints"
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        shutil.copy(STARTER_FOLDER / STARTERS[number % len(STARTERS)], folder / name)
    config = tmp_path / "preload.json"
    config.write_text(json.dumps({"models": {"checkpoints": [{"name": name} for name in names]}, "settings": {"auto_gpu_load": True}}))
    return base, str(config)


def all_held(shown):
    return bool(shown["models"]) and {model["state"] for model in shown["models"]} == {"held"}


def pixels(done):
    """The picture of a prompt that succeeded."""
    assert done["status"] == "success", done
    with Image.open(io.BytesIO(base64.b64decode(done["pictures"][0]))) as image:
        return image.convert("RGB").tobytes()


def check_ten(answers, asked, plain, untold):
    """Each of *answers* holds the picture that the *plain* server makes of what was *asked*, from models in memory."""
    with_starters(plain)
    assert [pixels(answer["runs"][0]) for answer in answers] == [run(plain, *what)[0] for what in asked]
    for number, answer in enumerate(answers):
        assert {receipt["tier"] for receipt in answer["runs"][0]["models"]} <= {"ram", "vram"}
        assert answer["stats"]["counters"]["evictions"] == {} and answer["stats"]["under_pressure"] is False
        if number != untold:  # that one was not told, and the prompt began the second phase
            assert answer["restored"]["restored"] == 1 and answer["restored"]["read_again"] == []
            assert answer["restored"]["device_as_expected"]


@needs_criu
@pytest.mark.parametrize("device", [("--cpu",), ("--simulated-vram-mb", "100")], ids=["cpu", "simulated"])
def test_ten_restores_of_one_image_serve_ten_prompts_at_once(tmp_path, start_server, device):
    count = 10 if device == ("--cpu",) else 2
    base, config = base_with(tmp_path, STARTERS)
    flags = (*device, "--ram-model-cache-mb", "400", "--preload-config", config, "--snapshot-start")
    snapshot = Snapshot(tmp_path / "snapshot", base, *flags, loaded=all_held)
    asked = [(STARTERS[number % 2], number) for number in range(count)]
    restored = [snapshot.restore(f"restored{number}", workflow(*what), tell=number != 1) for number, what in enumerate(asked)]
    answers = [one.answer() for one in restored]
    check_ten(answers, asked, start_server(name="plain"), untold=1)
    if device != ("--cpu",):
        assert answers[0]["runs"][0]["models"] and all(receipt["tier"] == "vram" for receipt in answers[0]["runs"][0]["models"])


@pytest.mark.parametrize(
    "device", [pytest.param(("--cpu",), marks=pytest.mark.long), ("--simulated-vram-mb", "100")], ids=["cpu", "simulated"]
)
def test_ten_forks_between_the_phases_serve_ten_prompts_at_once(tmp_path, start_server, device):
    count = 10 if device == ("--cpu",) else 2
    base, config = base_with(tmp_path, STARTERS)
    flags = (*device, "--ram-model-cache-mb", "400", "--preload-config", config, "--snapshot-start")
    asked = [(STARTERS[number % 2], number) for number in range(count)]
    with ForkedImage(tmp_path, base, *flags, count=count) as image:
        answers = image.answers([[workflow(*what)] for what in asked], untold=[1])
    plain = start_server(name="plain", environment={"OMP_NUM_THREADS": "1"})  # as the forks have: more threads add in another order
    check_ten(answers, asked, plain, untold=1)
    if device != ("--cpu",):
        assert answers[0]["runs"][0]["models"] and all(receipt["tier"] == "vram" for receipt in answers[0]["runs"][0]["models"])


MANY = [f"{number}.safetensors" for number in range(40)]  # of 22 MB each


def check_half(roomy, tight, group, limit_bytes):
    """*tight* was restored with *limit_bytes*, half of what *roomy* had, in *group*, and kept under it, with the usual 2 GiB to spare."""
    assert int((group / "memory.max_usage_in_bytes").read_text()) < limit_bytes
    assert "oom_kill 0" in (group / "memory.oom_control").read_text()
    assert roomy["stats"]["kept"] == 3 * len(MANY) and roomy["restored"]["read_again"] == []
    assert tight["stats"]["cap_bytes"] <= limit_bytes - 2 * GIB < roomy["stats"]["cap_bytes"]
    assert 0 < tight["stats"]["kept_bytes"] <= tight["stats"]["cap_bytes"]
    states = {model["state"] for model in tight["preload"]["models"]}
    assert states == {"held", "not held"}
    assert all("RAM model cache" in model["why"] for model in tight["preload"]["models"] if model["state"] == "not held")
    assert [pixels(done) for done in tight["runs"]] == [pixels(done) for done in roomy["runs"]]


@needs_criu
@needs_groups
def test_restored_with_half_the_limit_it_keeps_under_it(tmp_path):
    """What the process takes without models counts too, as it does not where a fork shares it: so there must be room for that."""
    base, config = base_with(tmp_path, MANY)
    flags = ("--cpu", "--ram-model-cache-mb", "1400", "--preload-config", config, "--snapshot-start")
    snapshot = Snapshot(tmp_path / "snapshot", base, *flags, loaded=all_held)
    prompts = [workflow(name, seed) for seed, name in enumerate(MANY[::8])]
    with limited_group("keepwarm-6g", 6 * GIB) as group:
        roomy = snapshot.restore("roomy", *prompts, cgroup=group).answer()
    with limited_group("keepwarm-half", 3 * GIB) as group:
        tight = snapshot.restore("tight", *prompts, cgroup=group).answer()
        check_half(roomy, tight, group, 3 * GIB)


@pytest.mark.long
@needs_groups
def test_forked_with_half_the_limit_it_keeps_under_it(tmp_path):
    base, config = base_with(tmp_path, MANY)
    flags = ("--cpu", "--ram-model-cache-mb", "900", "--preload-config", config, "--snapshot-start")
    prompts = [workflow(name, seed) for seed, name in enumerate(MANY[::8])]
    with limited_group("keepwarm-fork-5g", 5 * GIB) as wide, limited_group("keepwarm-fork-half", int(2.5 * GIB)) as half:
        with ForkedImage(tmp_path, base, *flags, groups=[str(wide), str(half)], count=2) as image:
            roomy, tight = image.answers([prompts, prompts])
        check_half(roomy, tight, half, 2.5 * GIB)
