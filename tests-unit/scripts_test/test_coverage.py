"""``python -m scripts.coverage``: what it counts, on templates made here and, where the package is installed, on the official ones."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from scripts.coverage import offer, page, published, templates, verdicts

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "coverage.md"


def node(number, kind, values=(), models=(), inputs=(), outputs=()):
    return {
        "id": number,
        "type": kind,
        "pos": [0, 0],
        "size": [100, 100],
        "flags": {},
        "order": number,
        "mode": 0,
        "inputs": [{"name": name, "type": of, "link": link} for name, of, link in inputs],
        "outputs": [{"name": of, "type": of, "links": links} for of, links in outputs],
        "properties": {"Node name for S&R": kind, "models": list(models)},
        "widgets_values": list(values),
    }


def workflow(*nodes, links=()):
    return {
        "last_node_id": 9,
        "last_link_id": 9,
        "nodes": list(nodes),
        "links": list(links),
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def decoding(vae):
    """A workflow that decodes an empty latent by the autoencoder in the file *vae*."""
    return workflow(
        node(1, "VAELoader", [vae], [{"name": vae, "directory": "vae", "url": ""}], outputs=[("VAE", [1])]),
        node(2, "EmptyLatentImage", [64, 64, 1], outputs=[("LATENT", [2])]),
        node(3, "VAEDecode", inputs=[("samples", "LATENT", 2), ("vae", "VAE", 1)], outputs=[("IMAGE", [3])]),
        node(4, "SaveImage", ["x"], inputs=[("images", "IMAGE", 3)]),
        links=[[1, 1, 0, 3, 1, "VAE"], [2, 2, 0, 3, 0, "LATENT"], [3, 3, 0, 4, 0, "IMAGE"]],
    )


def encoding(file, kind, second=None):
    """A workflow that encodes a text by the text encoder in *file*, or in that and *second*, for the type *kind*."""
    loader = node(1, "CLIPLoader", [file, kind], outputs=[("CLIP", [1])])
    if second:
        loader = node(1, "DualCLIPLoader", [file, second, kind], outputs=[("CLIP", [1])])
    return workflow(
        loader,
        node(2, "CLIPTextEncode", ["x"], inputs=[("clip", "CLIP", 1)], outputs=[("CONDITIONING", [2])]),
        node(3, "PreviewAny", inputs=[("source", "*", 2)]),
        links=[[1, 1, 0, 2, 0, "CLIP"], [2, 2, 0, 3, 0, "CONDITIONING"]],
    )


@pytest.fixture
def folder(tmp_path):
    """Templates: one that runs, one of another family, one in a format that is not read, one with a class nobody has, one with a value
    that its node refuses, one with a text model that is not here, two with two of them, one that needs a paid service."""
    refused = decoding("vae-ft-mse-840000-ema-pruned.safetensors")
    refused["nodes"][1]["widgets_values"] = [64, 64, 1_000_000]
    made = {
        "runs": decoding("vae-ft-mse-840000-ema-pruned.safetensors"),
        "other_family": decoding("triposplat_vae.safetensors"),
        "other_format": decoding("sdxl_vae-gptq.safetensors"),
        "other_class": workflow(node(1, "NobodyHasThis")),
        "refused": refused,
        "text_model": encoding("gpt_oss_20b_nvfp4.safetensors", "stable_diffusion"),
        "two_text_models": encoding("clip_l.safetensors", "flux", "clip_g.safetensors"),
        "odd_pair": encoding("clip_l.safetensors", "flux", "umt5_xxl_fp16.safetensors"),
        "paid": decoding("vae-ft-mse-840000-ema-pruned.safetensors"),
    }
    for name, one in made.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(one), encoding="utf-8")
    entries = [{"name": name, "usage": 10 - number} for number, name in enumerate(made)]
    entries[-1] |= {"openSource": False}
    (tmp_path / "index.json").write_text(json.dumps([{"templates": entries}, {"templates": [{"name": "no_file"}]}]), encoding="utf-8")
    return tmp_path


def run_command(*arguments, **environment):
    command = [sys.executable, "-m", "scripts.coverage", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def test_templates_are_judged_by_classes_values_families_and_formats(folder, tmp_path):
    done = run_command(folder, "--output", tmp_path / "page.md")
    assert done.returncode == 0, done.stderr
    assert "2 of 8 templates covered (7 by node names)" in done.stdout
    rows = dict(re.findall(r"^\| (\w+) \| \d+ \| (.*) \|$", (tmp_path / "page.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert rows["runs"] == "covered"
    assert rows["other_family"] == "family TripoSplat"
    assert rows["other_format"] == "gptq weights"
    assert rows["other_class"] == "`NobodyHasThis`"
    assert "EmptyLatentImage" in rows["refused"] and "batch_size" in rows["refused"]
    assert rows["text_model"] == "text model GPT_OSS_20B" and rows["two_text_models"] == "covered"
    assert rows["odd_pair"] == "CLIP_L and UMT5_XXL make no text encoder for type 'flux'"
    assert "paid" not in rows and "no_file" not in rows


def test_without_templates_it_says_how_to_get_them(tmp_path):
    done = run_command(tmp_path, "--output", tmp_path / "page.md")
    assert done.returncode == 1 and "index.json" in done.stderr and not (tmp_path / "page.md").exists()


def test_classes_in_subgraphs_count_and_subgraphs_themselves_do_not():
    inner = {"id": "0f-1", "nodes": [node(5, "KSampler"), node(6, "Reroute")]}
    one = templates.Template("x", {**workflow(node(1, "0f-1"), node(2, "VAEDecode")), "definitions": {"subgraphs": [inner]}})
    assert one.classes() == {"KSampler", "VAEDecode"}


@pytest.mark.parametrize(
    ("folder", "name", "family"),
    [
        ("diffusion_models", "flux1-dev.safetensors", "Flux"),
        ("diffusion_models", "flux-2-klein-4b-fp8.safetensors", "Flux2"),
        ("diffusion_models", "FLUX1/flux1-schnell.safetensors", "FluxSchnell"),
        ("checkpoints", "sd_xl_refiner_1.0.safetensors", "SDXLRefiner"),
        ("vae", "ae.safetensors", "Flux"),
        ("diffusion_models", "somebody_elses.safetensors", None),
        ("loras", "flux1-dev.safetensors", None),
        ("text_encoders", "qwen_2.5_vl_7b_fp8_scaled.safetensors", "QWEN25_7B"),
        ("text_encoders", "qwen_2.5_vl_fp16.safetensors", "QWEN25_3B"),
        ("text_encoders", "qwen3.5_9b_int8_convrot.safetensors", "QWEN35_9B"),
    ],
)
def test_families_are_told_by_names(folder, name, family):
    assert published.family_of(folder, name) == family


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("a_int8_convrot.safetensors", "int8_tensorwise"),
        ("a_fp8_scaled.safetensors", "float8_e4m3fn"),
        ("a_nvfp4.safetensors", "nvfp4"),
        ("a_w4a8_gptq.safetensors", "asym_w4a8_int8"),
        ("a_bf16.safetensors", None),
    ],
)
def test_formats_are_told_by_names(name, stored):
    assert published.format_of(name) == stored


def test_the_page_counts_what_verdicts_say():
    one = templates.Template("a", workflow(), 5)
    two = templates.Template("b", workflow(), 3)
    names = offer.Names(frozenset({"A", "B"}), ("euler", "other"))
    here = offer.Offer(frozenset({"A", "OurOwn"}), frozenset(), frozenset(), frozenset({"euler", "ours"}))
    text = page.write_page([verdicts.Verdict(one), verdicts.Verdict(two, ("B",))], names, here)
    assert "| templates covered | 1 | 2 |" in text and "| use of the covered templates | 5 | 8 |" in text
    assert "| node classes | 1 (50%) | 2 |" in text and "| samplers | 1 | 2 |" in text
    assert "| a | 5 | covered |" in text and "| b | 3 | `B` |" in text


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_official_templates_are_converted_and_accepted_as_the_page_says(tmp_path):
    try:
        official = templates.find_folder(None)
    except templates.NoTemplatesError as error:
        pytest.skip(str(error))
    done = run_command(official, "--output", tmp_path / "page.md")
    assert done.returncode == 0, done.stderr
    claimed, found = (
        set(re.findall(r"^\| (\S+) \| \d+ \| covered \|$", text, re.MULTILINE))
        for text in (PAGE.read_text(encoding="utf-8"), (tmp_path / "page.md").read_text(encoding="utf-8"))
    )
    assert claimed and claimed <= found, "write the page anew: python -m scripts.coverage"
