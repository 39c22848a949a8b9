"""Text encoders give the tokens and the conditioning that ComfyUI's give.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest …/test_text_encoders_against_upstream.py
"""

import json
import os
import pathlib
import subprocess

import pytest
import safetensors
import safetensors.torch
import torch
from text_encoder_files import (
    CLIP_WIDTH,
    GEMMA3_LAYERS,
    GEMMA_HEADS,
    GEMMA_WIDTH,
    SIZES,
    T5_FEED_FORWARD,
    T5_HEAD_WIDTH,
    T5_HEADS,
    T5_WIDTH,
    sentence_piece_model,
    text_model,
)

import comfy.sd
from comfy.cli_args import args

CHECKOUT = os.environ.get("KEEPWARM_UPSTREAM_CHECKOUT")
PYTHON = os.environ.get("KEEPWARM_UPSTREAM_PYTHON")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHECKOUT and PYTHON), reason="KEEPWARM_UPSTREAM_CHECKOUT and KEEPWARM_UPSTREAM_PYTHON name no ComfyUI to test"),
]
pytest.importorskip("sentencepiece", reason="UMT5's tokenizer needs it, here and in ComfyUI")

PIECES, CARRY = 512, ("umt5xxl", "gemma2_2b", "gemma3_12b", "gemma3_4b")
KINDS = {**SIZES, **GEMMA3_LAYERS}
CASES = {
    "sd15": ("stable_diffusion", ["clip_l"]),
    "sdxl": ("sdxl", ["clip_l", "clip_g"]),
    "flux": ("flux", ["clip_l", "t5xxl"]),
    "sd3 l": ("sd3", ["clip_l"]),
    "sd3 g": ("sd3", ["clip_g"]),
    "sd3 t5": ("sd3", ["t5xxl"]),
    "sd3 l g": ("sd3", ["clip_g", "clip_l"]),
    "sd3 l t5": ("sd3", ["clip_l", "t5xxl"]),
    "sd3 g t5": ("sd3", ["t5xxl", "clip_g"]),
    "sd3 all": ("stable_diffusion", ["clip_l", "clip_g", "t5xxl"]),
    "hidream": ("hidream", ["t5xxl", "clip_g"]),
    "pixart": ("pixart", ["t5xxl"]),
    "chroma": ("chroma", ["t5xxl"]),
    "ltxv": ("ltxv", ["t5xxl"]),
    "mochi": ("mochi", ["t5xxl"]),
    "cogvideox": ("cogvideox", ["t5xxl"]),
    "wan": ("wan", ["umt5xxl"]),
    "cosmos": ("cosmos", ["t5xxl_old"]),
    "lumina2": ("lumina2", ["gemma2_2b"]),
    "gemma 3 large": ("ltxv", ["gemma3_12b"]),
    "gemma 3 small": ("lumina2", ["gemma3_4b"]),
    "stable audio": ("stable_audio", ["t5base"]),
}
PROMPTS = [
    "",
    "a red apple on a wooden table",
    "a (red:1.3) apple, ((two cats)) and a [bird] (in the rain:0.6) <extra> <pad> : \\(round\\)",
    "an oil painting of a castle at night, very detailed " * 60,
    "ünïcödé – 苹果  with   blanks\nand lines",
]
PARTS = {"t5xxl_old": "t5xxl", "gemma3_12b": ""}  # as ComfyUI's options name them


def upstream_config(kind):
    """The sizes as ComfyUI's own configurations name them."""
    if kind.startswith("clip"):
        return {
            "hidden_size": CLIP_WIDTH,
            "intermediate_size": 2 * CLIP_WIDTH,
            "num_attention_heads": 1,
            "num_hidden_layers": SIZES[kind],
            "projection_dim": CLIP_WIDTH,
        }
    vocabulary = {"vocab_size": PIECES} if kind in CARRY else {}
    if kind.startswith("gemma"):
        sizes = {"hidden_size": GEMMA_WIDTH, "intermediate_size": 2 * GEMMA_WIDTH, "num_hidden_layers": KINDS[kind]}
        return {**sizes, "num_attention_heads": GEMMA_HEADS, "num_key_value_heads": 1, **vocabulary}
    sizes = {"d_model": T5_WIDTH, "d_ff": T5_FEED_FORWARD, "d_kv": T5_HEAD_WIDTH, "num_heads": T5_HEADS, "num_layers": SIZES[kind]}
    return sizes | vocabulary


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    for number, kind in enumerate(KINDS):
        tensors = text_model(kind, seed=number, vocabulary=PIECES if kind in CARRY else None)
        if kind in CARRY:
            model = sentence_piece_model(begins=kind.startswith("gemma"))
            tensors["spiece_model"] = torch.frombuffer(bytearray(model), dtype=torch.uint8)
        safetensors.torch.save_file(tensors, folder / f"{kind}.safetensors")
    return folder


@pytest.fixture(scope="module")
def upstream(files):
    """(the tensors, the tokens) that ComfyUI makes."""
    cases = {}
    for name, (kind, parts) in CASES.items():
        configs = {PARTS.get(part, part): upstream_config(part) for part in parts}
        paths = [str(files / f"{part}.safetensors") for part in parts]
        cases[name] = {"type": kind, "files": paths, "configs": configs, "width": T5_WIDTH if "t5xxl" in parts else 4096}
    (files / "asked.json").write_text(json.dumps({"prompts": PROMPTS, "cases": cases}))
    script = pathlib.Path(__file__).with_name("upstream_text_encoders.py")
    subprocess.run([PYTHON, script, files / "asked.json", files / "out.safetensors"], cwd=CHECKOUT, check=True, timeout=600)
    with safetensors.safe_open(files / "out.safetensors", "pt") as out:
        tokens = json.loads(out.metadata()["tokens"])
    return safetensors.torch.load_file(files / "out.safetensors"), tokens


@pytest.fixture(autouse=True)
def same_tokenizer(monkeypatch, tmp_path):
    """T5's tokenizer is the one in the checkout; nothing is fetched."""
    (tmp_path / "t5").symlink_to(pathlib.Path(CHECKOUT) / "comfy/text_encoders/t5_tokenizer")
    monkeypatch.setattr(args, "tokenizer_directory", [str(tmp_path)])
    monkeypatch.setattr(args, "offline", True)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", CASES)
def test_conditioning_is_upstreams(files, upstream, case):
    kind, parts = CASES[case]
    clip_type = getattr(comfy.sd.CLIPType, kind.upper(), comfy.sd.CLIPType.STABLE_DIFFUSION)
    clip = comfy.sd.load_clip([str(files / f"{part}.safetensors") for part in parts], clip_type=clip_type)
    tensors, all_tokens = upstream
    for number, prompt in enumerate(PROMPTS):
        tokens = clip.tokenize(prompt)
        for name, chunks in tokens.items():
            if chunks:
                assert [[[token, weight] for token, weight in chunk] for chunk in chunks] == all_tokens[f"{case}/{number}"][name]
        with torch.inference_mode():
            encoded = clip.encode_from_tokens(tokens, return_pooled=True, return_dict=True)
        expected = {key.rpartition("/")[2]: value for key, value in tensors.items() if key.startswith(f"{case}/{number}/")}
        assert {key for key, value in encoded.items() if value is not None} == expected.keys()
        for key, value in expected.items():
            own = encoded[key]
            assert own.shape == value.shape, key
            assert (own.float() - value.float()).norm() <= 1e-3 * value.float().norm(), (key, prompt)
