"""What a preload config may say, what is told of mistakes, and that the published schema says the same."""

import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from custom_nodes.keepwarm.preload.config import KINDS, ConfigUnreadable, parse_config, read_config, schema

SCHEMA_FILE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "preload-config.schema.json"
MANUAL = {
    "version": "1.0",
    "description": "the manual's example",
    "models": {
        "checkpoints": [{"name": "sd_xl_base_1.0.safetensors", "cache_key": "sdxl_base", "enabled": True, "description": "base"}],
        "text_encoders": [{"clip_names": ["clip_l.safetensors", "clip_g.safetensors"], "type": "sdxl", "device": "default"}],
        "diffusion_models": [{"model_name": "flux1-dev.safetensors", "weight_dtype": "fp8_e4m3fn", "cache_key": ""}],
        "vaes": [{"vae_name": "sdxl_vae.safetensors"}],
    },
    "settings": {"auto_gpu_load": False, "verbose": True},
}


def test_the_example_in_the_manual_holds():
    config = parse_config(MANUAL)
    assert config.problems == () and (config.auto_gpu_load, config.verbose) == (False, True)
    assert [(wanted.kind, wanted.files, dict(wanted.options), wanted.cache_key) for wanted in config.models] == [
        ("checkpoints", ("sd_xl_base_1.0.safetensors",), {}, "sdxl_base"),
        (
            "text_encoders",
            ("clip_l.safetensors", "clip_g.safetensors"),
            {"type": "sdxl", "device": "default"},
            "text encoder: clip_l.safetensors + clip_g.safetensors device=default type=sdxl",
        ),
        (
            "diffusion_models",
            ("flux1-dev.safetensors",),
            {"weight_dtype": "fp8_e4m3fn"},
            "diffusion model: flux1-dev.safetensors weight_dtype=fp8_e4m3fn",
        ),
        ("vaes", ("sdxl_vae.safetensors",), {}, "VAE: sdxl_vae.safetensors"),
    ]


@pytest.mark.parametrize(
    ("change", "path", "text"),
    [
        ({"version": "2.0"}, "version", "'2.0' is not known"),
        ({"extra": 1}, "extra", "is not a field here"),
        ({"models": []}, "models", "must be an object"),
        ({"models": {"loras": []}}, "models.loras", "allowed: checkpoints, diffusion_models, text_encoders, vaes"),
        ({"models": {"vaes": {}}}, "models.vaes", "must be a list"),
        ({"models": {"vaes": ["a"]}}, "models.vaes[0]", "must be an object"),
        ({"models": {"vaes": [{}]}}, "models.vaes[0].vae_name", "is missing"),
        ({"models": {"vaes": [{"vae_name": 1}]}}, "models.vaes[0].vae_name", "must be a file name, not 1"),
        ({"models": {"vaes": [{"vae_name": "a", "enabled": "yes"}]}}, "models.vaes[0].enabled", 'must be true or false, not "yes"'),
        ({"models": {"text_encoders": [{"clip_names": ["a"] * 4}]}}, "models.text_encoders[0].clip_names", "one to three"),
        ({"settings": {"verbose": 1}}, "settings.verbose", "must be true or false, not 1"),
    ],
)
def test_mistakes_are_reported_with_their_place(change, path, text):
    (problem,) = parse_config({**MANUAL, **change}).problems
    assert problem.path == path and text in problem.text
    assert list(jsonschema.Draft202012Validator(schema()).iter_errors({**MANUAL, **change}))


def test_the_rest_of_a_file_with_mistakes_counts():
    entries = [
        {"vae_name": "a"},
        {"vae_name": 2},
        {"vae_name": "b", "colour": "red"},
        {"vae_name": "c", "enabled": False},
        {"vae_name": "a"},
    ]
    config = parse_config({"models": {"vaes": entries}})
    assert [wanted.files for wanted in config.models] == [("a",), ("b",)]
    assert [problem.path for problem in config.problems] == ["models.vaes[1].vae_name", "models.vaes[2].colour", "models.vaes[4].cache_key"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*KINDS, "models", "name", "vae_name", "settings"]), inner),
    max_leaves=12,
)


@given(json_values)
def test_any_json_is_read_and_what_the_schema_refuses_is_reported(data):
    config = parse_config(data)
    if list(jsonschema.Draft202012Validator(schema()).iter_errors(data)):
        assert config.problems


def test_a_file_that_is_not_json_is_named(tmp_path):
    for content in (b"{", b"\xff", b"[" * 200_000):
        (tmp_path / "preload.json").write_bytes(content)
        with pytest.raises(ConfigUnreadable, match="preload.json"):
            read_config(tmp_path / "preload.json")
    with pytest.raises(ConfigUnreadable, match="gone.json"):
        read_config(tmp_path / "gone.json")
    (tmp_path / "preload.json").write_text("\ufeff" + json.dumps(MANUAL))
    assert len(read_config(tmp_path / "preload.json").models) == 4


def test_the_published_schema_is_this_one():
    assert json.loads(SCHEMA_FILE.read_text()) == schema(), "write json.dumps(schema(), indent=2) there"
