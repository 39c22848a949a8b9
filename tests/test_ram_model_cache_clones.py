"""A running server whose prompts patch cached models: plain pictures stay bit-identical to those of a server without the cache."""

import json
import pathlib
import shutil
import struct

import pytest
import torch
from live_server import LiveServer
from model_workflows import STARTERS, checkpoints, models, node, result, run, with_starters, workflow
from safetensors.torch import save_file

pytestmark = pytest.mark.timeout(120)
DIGITS = STARTERS[0]
LORA = "changes.safetensors"
RANK = 2


def header(path):
    """The tensors' names and shapes."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return {name: entry["shape"] for name, entry in json.loads(file.read(length)).items() if name != "__metadata__"}


def lora_for(checkpoint):
    """Random factors for every linear layer of the UNet's transformers and of the text model."""
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for key, shape in header(checkpoint).items():
        name = key.removesuffix(".weight").replace(".", "_")
        for prefix, alias in (("model_diffusion_model_", "lora_unet_"), ("cond_stage_model_transformer_", "lora_te_")):
            if len(shape) == 2 and name.startswith(prefix) and ("attn" in name or "mlp" in name):
                place = alias + name.removeprefix(prefix)
                tensors[f"{place}.lora_down.weight"] = torch.randn(RANK, shape[1], generator=generator) * shape[1] ** -0.5
                tensors[f"{place}.lora_up.weight"] = torch.randn(shape[0], RANK, generator=generator) * 0.5
    return tensors


def with_lora(server):
    """*server*, with the checkpoints and a LoRA for them."""
    with_starters(server)
    folder = server.base / "models" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(lora_for(checkpoints(server) / DIGITS), folder / LORA)
    return server


def patched_workflow(seed, strength=1.0):
    """The workflow with model and text encoder through a LoRA, and the model's schedule exchanged."""
    prompt = workflow(DIGITS, seed)
    prompt["lora"] = node(
        "LoraLoader", model=["model", 0], clip=["model", 1], lora_name=LORA, strength_model=strength, strength_clip=strength
    )
    prompt["sampling"] = node("ModelSamplingDiscrete", model=["lora", 0], sampling="x0", zsnr=False)
    prompt["sample"]["inputs"]["model"] = ["sampling", 0]
    for name in ("positive", "negative"):
        prompt[name]["inputs"]["clip"] = ["lora", 1]
    return prompt


STEPS = [
    ("patched", 1, 1.0),
    ("plain", 1, 0.0),
    ("patched", 1, 0.5),
    ("patched", 2, 1.0),
    ("plain", 2, 0.0),
    ("plain", 3, 0.0),
    ("patched", 1, 1.0),
]


def picture_of(server, step):
    """The pixels and the receipts of one step."""
    kind, seed, strength = step
    return run(server, DIGITS, seed) if kind == "plain" else result(server.run(patched_workflow(seed, strength), timeout_s=120))


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The pictures of the steps from a server without the cache that forgets all between prompts."""
    server = with_lora(LiveServer(tmp_path_factory.mktemp("plain"), "--no-ram-model-cache", "--cache-none"))
    pictures = {step: picture_of(server, step)[0] for step in STEPS}
    server.stop()
    assert len(set(pictures.values())) == len(pictures)
    return pictures


MODES = {"classic": (), "none": ("--cache-none",), "none, small accelerator": ("--cache-none", "--simulated-vram-mb", "24")}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_plain_pictures_after_patched_ones_match_a_server_without_the_cache_and_the_file_is_read_once(start_server, expected, mode):
    server = with_lora(start_server("--ram-model-cache-mb", "1000", *mode))
    for number, step in enumerate(STEPS):
        picture, receipts = picture_of(server, step)
        assert picture == expected[step], f"{step} differs"
        assert {receipt["tier"] for receipt in receipts} <= ({"disk"} if number == 0 else {"ram", "vram"}), receipts
    stats, counters, entries = models(server)
    patched = [step[2] for step in STEPS if step[0] == "patched"]
    # How often the LoRA's node ran again: its call is remembered while the model it took lives.
    patched_again = len(patched if mode else set(patched)) - 1
    assert counters["misses"] == len(entries) == 4 and counters["failures"] == counters["refusals"] == 0 and not counters["evictions"]
    assert counters["hits"] == (0 if mode == () else 3 * (len(STEPS) - 1)) + patched_again
    files = (checkpoints(server) / DIGITS, checkpoints(server).parent / "loras" / LORA)
    assert counters["read_bytes"] <= sum(path.stat().st_size for path in files)
    patches = server.get("/caches")["patches"]
    built = 3 * len({strength for kind, _, strength in STEPS if kind == "patched"})  # model, text encoder, schedule
    assert (patches["misses"], patches["hits"]) == (built, 3 * (patched_again + 1) - built) and not patches["reasons"]
    assert stats["lent_bytes"] == 0 and "could not be restored" not in server.log()


def test_a_pack_that_writes_to_weights_in_place_is_caught_and_the_next_picture_is_right(start_server, tmp_path, expected):
    packs = tmp_path / "server" / "custom_nodes"
    packs.mkdir(parents=True)
    shutil.copy(pathlib.Path(__file__).parent / "writes_in_place.py", packs)
    server = with_lora(start_server("--ram-model-cache-mb", "1000", "--cache-none"))
    assert run(server, DIGITS, 1)[0] == expected["plain", 1, 0.0]
    prompt = workflow(DIGITS, 1)
    prompt["written"] = node("WriteInPlace", model=["model", 0])
    prompt["sample"]["inputs"]["model"] = ["written", 0]
    assert result(server.run(prompt, timeout_s=120))[0] != expected["plain", 1, 0.0]
    picture, receipts = run(server, DIGITS, 1)
    assert picture == expected["plain", 1, 0.0]
    read_again = [receipt["model"] for receipt in receipts if receipt["tier"] == "disk"]
    assert read_again == [f"model of {DIGITS}"]
    assert "a node pack has written to weights in place" in server.log()
    assert models(server)[1]["evictions"] == {"not restored": 1}
