"""What files say about quantised weights: formats are read or refused by kind; without comfy-kitchen fp8 and int8 are multiplied out."""

import json

import pytest
import safetensors.torch
import torch
from quantised_files import KINDS, quantised, settings_for, text

import comfy.sd
from benchmarks.make_checkpoint import checkpoint_layout, family
from comfy.families.model_errors import IncompleteModelError, QuantisedModelError
from comfy.families.quantised_marks import read_marks
from comfy.families.quantised_weights import QuantisedSource, plain_weights
from comfy.families.weight_source import PrefixedSource, StateDictSource
from comfy.loading.components import kept_bytes
from comfy.quantisation import kitchen

FP8 = torch.float8_e4m3fn
MXFP8 = text({"format": "mxfp8"})


def numbers(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def packed(weight, per_row=False, dtype=FP8):
    """*weight* as fp8 and its scale."""
    limit = torch.finfo(dtype).max
    scale = weight.abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True) / limit if per_row else weight.abs().max() / limit
    return (weight / scale).to(dtype), scale


def coded(rows, columns, row_bytes=None):
    """A weight of codes, in groups of 16 that are rotated in groups of 16."""
    settings = {"format": "asym_w4a8_int8", "convrot": True, "convrot_groupsize": 16, "group_size": 16}
    return {
        "a.weight": torch.ones(rows, row_bytes or columns // 2, dtype=torch.int8),
        "a.weight_s_rel": torch.ones(rows, columns // 16).to(FP8),
        "a.weight_s_channel": torch.ones(rows),
        "a.comfy_quant": text(settings),
    }


@pytest.fixture(autouse=True)
def no_kitchen(monkeypatch):
    monkeypatch.setattr(kitchen, "is_installed", lambda: False)


def source(tensors, metadata=None, consume=False):
    return plain_weights(StateDictSource(dict(tensors), "models/odd.safetensors", metadata, consume))


@pytest.mark.parametrize("name", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize("dtype", [FP8, torch.float8_e5m2])
@pytest.mark.parametrize("kept", [None, torch.float32, torch.float16, torch.bfloat16, FP8])
def test_a_scaled_weight_is_its_numbers_times_its_scale(name, per_row, dtype, kept):
    stored, scale = packed(numbers(6, 4), per_row, dtype)
    tensors = {"scaled_fp8": torch.empty(2, dtype=FP8), "a.weight": stored, f"a.{name}": scale}
    tensors |= {"a.scale_input": torch.ones(1), "a.bias": scale}
    before = stored.clone().view(torch.uint8)
    plain = source(tensors, consume=True)
    assert set(plain.shapes()) == {"a.weight", "a.bias"} and plain.multiplied_count() == 1 and plain.dtype("a.weight") == torch.float32
    taken = plain.take(["a.bias", "a.weight"], kept)
    assert list(taken) == ["a.bias", "a.weight"] and taken["a.weight"].dtype == (kept or torch.float32)
    expected = (stored.float() * scale).to(kept or torch.float32)
    assert torch.equal(taken["a.weight"].float(), expected.float()) and torch.equal(stored.view(torch.uint8), before)


@pytest.mark.parametrize("shape", [(3,), (3, 1), (1, 1), (1,), ()])
def test_scales_may_be_written_in_any_shape(shape):
    scale = torch.full(shape, 0.5)
    taken = source({"a.weight": torch.ones(3, 2, 1, 1).to(FP8), "a.weight_scale": scale}).take(["a.weight"], torch.float32)
    assert torch.equal(taken["a.weight"], torch.full((3, 2, 1, 1), 0.5))


@pytest.mark.parametrize("marks", [{"a.comfy_quant": text({"format": "float8_e4m3fn"})}, {}])
def test_settings_in_tensors_and_in_metadata_are_read(marks):
    metadata = {} if marks else {"_quantization_metadata": json.dumps({"layers": {"a": {"format": "float8_e4m3fn"}}})}
    tensors = {"a.weight": torch.ones(2, 2).to(FP8), "a.weight_scale": torch.tensor(3.0), "a.input_scale": torch.tensor(1.0)} | marks
    plain = source(tensors, metadata)
    assert set(plain.shapes()) == {"a.weight"} and plain.take(["a.weight"], None)["a.weight"].unique().tolist() == [3.0]
    del tensors["a.weight_scale"]
    with pytest.raises(IncompleteModelError, match=r"odd\.safetensors.*a\.weight_scale is missing"):
        source(tensors, metadata)
    with pytest.raises(QuantisedModelError, match=r"odd\.safetensors: a\.weight is stored as float8_e4m3fn, which is not nvfp4"):
        source(tensors | {"a.comfy_quant": text({"format": "nvfp4"})}, metadata)
    with pytest.raises(QuantisedModelError, match=r"odd\.safetensors is quantised as int3 \(a\..*not supported"):
        source(tensors | {"a.comfy_quant": text({"format": "int3"})}, metadata)


@pytest.mark.parametrize("kind", KINDS)
def test_what_torch_alone_can_is_multiplied_out_and_the_rest_says_what_to_install(kind):
    stored, values = quantised(kind, numbers(32, 32))
    tensors = {f"a.{suffix}": tensor for suffix, tensor in stored.items()} | {"a.comfy_quant": text(settings_for(kind))}
    if kind in ("mxfp8", "nvfp4", "int8 convrot", "w4a8"):
        with pytest.raises(QuantisedModelError, match=r"odd\.safetensors: a\.weight is .*, which needs comfy-kitchen; install it: pip"):
            source(tensors)
    else:
        assert torch.allclose(source(tensors).take(["a.weight"], torch.float32)["a.weight"], values)
    marks = read_marks(StateDictSource(tensors, "odd"))
    assert marks["a.weight"].layer.format.name == settings_for(kind)["format"] and marks["a.weight"].shape == (32, 32)


@pytest.mark.parametrize("elements", [0, 2])
def test_the_old_marker_may_ask_for_full_precision(elements):
    tensors = {"u.scaled_fp8": torch.empty(elements, dtype=FP8)}
    tensors |= {key: torch.ones(2, 2).to(FP8) for key in ("u.a.weight", "v.a.weight")} | {"u.a.scale_weight": torch.ones(1)}
    tensors["v.a.scale_weight"] = torch.ones(1)
    marks = read_marks(StateDictSource(tensors, "odd"))
    assert [marks[f"{part}.a.weight"].layer.full_precision for part in "uv"] == [elements == 2, False]


def test_settings_of_fp8_on_weights_in_more_bits_mean_nothing():
    plain = source({"a.weight": torch.ones(2, 2), "a.comfy_quant": text({"format": "float8_e4m3fn"})})
    assert set(plain.shapes()) == {"a.weight"} and plain.multiplied_count() == 0


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("a.weight.absmax", "bitsandbytes"),
        ("a.weight.quant_map", "bitsandbytes"),
        ("a.weight.quant_state.bitsandbytes__nf4", "bitsandbytes"),
        ("a.SCB", "bitsandbytes"),
        ("a.qweight", "GPTQ"),
        ("a.qzeros", "GPTQ"),
        ("a.scales", "GPTQ"),
        ("a.wscales", "SVDQuant"),
        ("a.weight_scale_2", "NVFP4"),
        ("a.weight_scale_inv", "blocks"),
        ("a.weight_s_rel", "W4A8"),
        ("a.weight_packed", "compressed-tensors"),
        ("a.weight._scale", "Quanto"),
    ],
)
def test_other_kinds_are_refused_with_file_kind_and_advice(key, kind):
    said = rf"models/odd\.safetensors is quantised with .*{kind}.*{key}.*use the model's file in fp16"
    with pytest.raises(QuantisedModelError, match=said):
        source({"a.weight": numbers(2, 2), key: torch.ones(2)})


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"a.weight_scale": torch.ones(1)}, "a.weight_scale scales a.weight, which is missing"),
        ({"a.weight": torch.ones(2, 2, dtype=torch.int8), "a.weight_scale": torch.ones(1)}, "a.weight is stored as int8"),
        ({"a.weight": torch.ones(2, 2).to(FP8), "a.weight_scale": torch.ones(5)}, "one scale per tensor or per row"),
        ({"a.weight": torch.ones(2, 2).to(FP8), "a.comfy_quant": torch.ones(3, dtype=torch.uint8)}, "settings in a.comfy_quant"),
        (
            {"a.weight": torch.ones(2, 2).to(FP8), "a.comfy_quant": text({"format": "mxfp8"}), "a.weight_scale": torch.ones(1)},
            "a.weight of",
        ),
        ({**coded(16, 32), "a.weight_s_rel": torch.ones(16, 3).to(FP8)}, "a.weight of .* cannot be asym_w4a8_int8 with a.weight_s_rel"),
        ({**coded(16, 32), "a.weight_codebook": torch.ones(8)}, "a.weight_codebook has shape"),
        ({**coded(16, 32), "a.comfy_quant": text({"format": "asym_w4a8_int8"})}, "rotated in groups of 256 and scaled in groups of 16"),
        ({**coded(16, 32), "a.weight_s_rel": torch.ones(16, 2).half()}, "a.weight_s_rel is stored as torch.float16"),
        ({**coded(16, 32, 24), "a.weight_codebook": torch.ones(16)}, "codes of six bits"),
        ({key: value for key, value in coded(16, 32).items() if "s_channel" not in key}, "its scale a.weight_s_channel is missing"),
        (
            {"a.weight": torch.ones(32, 32).to(FP8), "a.comfy_quant": MXFP8, "a.weight_scale": torch.ones(1)},
            "mxfp8 has a scale of one byte per 32 numbers",
        ),
        (
            {
                "a.weight": torch.ones(2, 2, dtype=torch.int8),
                "a.comfy_quant": text({"format": "int8_tensorwise", "convrot": True}),
                "a.weight_scale": torch.ones(1),
            },
            "rotated in groups of 256, which do not fit",
        ),
    ],
)
def test_companions_that_do_not_fit_are_errors_of_the_file(tensors, said):
    with pytest.raises((QuantisedModelError, IncompleteModelError), match=rf"odd\.safetensors: .*{said}"):
        source(tensors)


def test_plain_files_stay_as_they_are():
    plain = StateDictSource({"a.weight": torch.ones(2, 2).to(FP8), "logit_scale": torch.ones(())})
    assert plain_weights(plain) is plain
    scaled = plain_weights(StateDictSource({"x.a.weight": torch.ones(2, 2).to(FP8), "x.a.scale_weight": torch.ones(())}))
    part = PrefixedSource(scaled, "x.")
    assert isinstance(scaled, QuantisedSource) and plain_weights(scaled) is scaled and plain_weights(part) is part
    assert kept_bytes(scaled, "", torch.float16) == 8
    with pytest.raises(QuantisedModelError, match="metadata"):
        source({"a": torch.ones(1)}, {"_quantization_metadata": "no JSON"})


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A small SDXL checkpoint with every part's matrices as scaled fp8, and the same multiplied out."""
    folder, sizes = tmp_path_factory.mktemp("scaled"), family("sdxl", 10)
    scaled, plain = {"model.diffusion_model.scaled_fp8": torch.empty(2, dtype=FP8)}, {}
    for key, shape in checkpoint_layout(sizes).items():
        value = numbers(*shape) * 0.05
        scaled[key] = plain[key] = value
        if key.endswith(".weight") and len(shape) == 2 and "embedding" not in key:
            stored, scale = packed(value)
            scaled |= {key: stored, f"{key.removesuffix('weight')}scale_weight": scale}
            plain[key] = stored.float() * scale
    for name, tensors in (("scaled", scaled), ("plain", plain)):
        safetensors.torch.save_file(tensors, str(folder / f"{name}.safetensors"), metadata=sizes.metadata())
    return folder


def test_a_scaled_checkpoint_is_the_same_multiplied_out(checkpoints, caplog):
    with caplog.at_level("INFO"):
        loaded = [comfy.sd.load_checkpoint_guess_config(str(checkpoints / f"{name}.safetensors")) for name in ("scaled", "plain")]
    assert caplog.text.count("are multiplied out as they are read") == 1 and "not used" not in caplog.text
    for own, other in zip(*[(model.model, clip.cond_stage_model, vae.first_stage_model) for model, clip, vae, _ in loaded]):
        values = other.state_dict()
        assert all(torch.equal(value, values[key]) for key, value in own.state_dict().items())


def test_scaled_weights_without_scales_are_not_loaded_by_any_loader(checkpoints, tmp_path):
    from safetensors import safe_open

    with safe_open(str(checkpoints / "scaled.safetensors"), "pt") as opened:
        tensors, metadata = {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata()  # noqa: SIM118
    lost = next(key for key in tensors if key.endswith("to_q.scale_weight"))
    layer = lost.removesuffix(".scale_weight")
    tensors[f"{layer}.comfy_quant"] = text({"format": "float8_e4m3fn"})
    del tensors[lost]
    path = str(tmp_path / "lost.safetensors")
    safetensors.torch.save_file(tensors, path, metadata=metadata)
    for load in (
        comfy.sd.load_checkpoint_guess_config,
        comfy.sd.load_diffusion_model,
        comfy.sd.load_vae,
        lambda path: comfy.sd.load_clip([path]),
    ):
        with pytest.raises(IncompleteModelError, match=rf"lost\.safetensors: {layer}\.weight is scaled fp8, but its scale"):
            load(path)
