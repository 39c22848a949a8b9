"""Every way of writing a change down, against its formula."""

import pytest
import torch

import comfy.lora
import comfy.model_patcher
from comfy.float import stochastic_rounding
from comfy.loading.lora import load_lora_for_models
from comfy.weight_adapter import LoRAAdapter, adapter_maps, adapters
from comfy.weight_adapter.lora import MAGNITUDES
from comfy.weight_files.state_dicts import FileTensors

OUT, INNER = 16, 8


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def change(file, weight, strength=1.0, **patch):
    """What the one change in *file* (keys start with "x") adds to *weight*."""
    patches = comfy.lora.load_lora({f"x{key}": value for key, value in file.items()}, {"x": "w.weight"})
    entry = (strength, patches["w.weight"], patch.get("model", 1.0), patch.get("part"), patch.get("function"))
    return comfy.lora.calculate_weight([entry], weight.clone(), "w.weight") - weight


up, down = numbers(OUT, 4, seed=1), numbers(4, INNER, seed=2)


@pytest.mark.parametrize(
    ("up_key", "down_key"),
    [
        (".lora_up.weight", ".lora_down.weight"),
        ("_lora.up.weight", "_lora.down.weight"),
        (".lora_B.weight", ".lora_A.weight"),
        (".lora.up.weight", ".lora.down.weight"),
        (".lora_B", ".lora_A"),
        (".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight"),
        (".lora_B.default.weight", ".lora_A.default.weight"),
    ],
)
def test_lora_is_up_times_down_in_every_naming(up_key, down_key):
    weight = numbers(OUT, INNER)
    torch.testing.assert_close(change({up_key: up, down_key: down}, weight), up @ down)
    torch.testing.assert_close(change({up_key: up, down_key: down, ".alpha": torch.tensor(2.0)}, weight, 0.7), 0.7 * 2 / 4 * up @ down)


def test_lora_on_convolutions_with_and_without_a_middle():
    weight = numbers(OUT, INNER, 3, 3)
    kernel = numbers(4, INNER, 3, 3, seed=3)
    expected = torch.einsum("or,rihw->oihw", up, kernel)
    torch.testing.assert_close(change({".lora_up.weight": up[..., None, None], ".lora_down.weight": kernel}, weight), expected)
    middle = numbers(4, 4, 3, 3, seed=4)
    file = {".lora_up.weight": up[..., None, None], ".lora_down.weight": down[..., None, None], ".lora_mid.weight": middle}
    torch.testing.assert_close(change(file, weight), torch.einsum("or,rshw,si->oihw", up, middle, down))


def test_loha_is_the_product_of_two_low_rank_changes():
    a, b = numbers(OUT, 4, seed=5), numbers(4, INNER, seed=6)
    file = {".hada_w1_a": up, ".hada_w1_b": down, ".hada_w2_a": a, ".hada_w2_b": b, ".alpha": torch.tensor(3.0)}
    torch.testing.assert_close(change(file, numbers(OUT, INNER), 0.5), 0.5 * 3 / 4 * (up @ down) * (a @ b))


def test_loha_tucker():
    core1, core2 = numbers(4, 4, 3, 3, seed=7), numbers(4, 4, 3, 3, seed=8)
    a, b = numbers(4, OUT, seed=5), numbers(4, INNER, seed=6)
    file = {".hada_w1_a": a, ".hada_w1_b": b, ".hada_w2_a": a + 1, ".hada_w2_b": b, ".hada_t1": core1, ".hada_t2": core2}

    def product(core, rows):
        return torch.einsum("xyhw,xo,yi->oihw", core, rows, b)

    torch.testing.assert_close(change(file, numbers(OUT, INNER, 3, 3)), product(core1, a) * product(core2, a + 1), rtol=1e-4, atol=1e-4)


def test_lokr_is_a_kronecker_product_whole_or_factored():
    small, large = numbers(4, 2, seed=1), numbers(4, 4, seed=2)
    weight = numbers(OUT, INNER)
    file = {".lokr_w1": small, ".lokr_w2": large, ".alpha": torch.tensor(9.0)}
    torch.testing.assert_close(change(file, weight), torch.kron(small, large))
    a, b = numbers(4, 3, seed=3), numbers(3, 4, seed=4)
    file = {".lokr_w1": small, ".lokr_w2_a": a, ".lokr_w2_b": b, ".alpha": torch.tensor(1.0)}
    torch.testing.assert_close(change(file, weight, 0.5), 0.5 / 3 * torch.kron(small, a @ b))
    kernel = numbers(4, 4, 3, 3, seed=5)
    expected = torch.einsum("ab,cdhw->acbdhw", small, kernel).reshape(OUT, INNER, 3, 3)
    torch.testing.assert_close(change({".lokr_w1": small, ".lokr_w2": kernel}, numbers(OUT, INNER, 3, 3)), expected)
    core, rows, columns = numbers(2, 2, 3, 3, seed=6), numbers(2, 4, seed=7), numbers(2, 4, seed=8)
    file = {".lokr_w1": small, ".lokr_w2_a": rows, ".lokr_w2_b": columns, ".lokr_t2": core}
    kernel = torch.einsum("xyhw,xo,yi->oihw", core, rows, columns)
    expected = torch.einsum("ab,cdhw->acbdhw", small, kernel).reshape(OUT, INNER, 3, 3)
    torch.testing.assert_close(change(file, numbers(OUT, INNER, 3, 3)), expected)


def test_glora_depends_on_the_weight_in_both_conventions():
    weight = numbers(OUT, INNER)
    a1, a2, b1, b2 = numbers(INNER, 4, seed=1), numbers(4, INNER, seed=2), numbers(OUT, 4, seed=3), numbers(4, INNER, seed=4)
    newer = {".a1.weight": a1, ".a2.weight": a2, ".b1.weight": b1, ".b2.weight": b2}
    torch.testing.assert_close(change(newer, weight), weight @ a1 @ a2 + b1 @ b2, rtol=1e-4, atol=1e-4)
    older = {".a1.weight": a2, ".a2.weight": a1, ".b1.weight": b2, ".b2.weight": b1, ".alpha": torch.tensor(2.0)}
    torch.testing.assert_close(change(older, weight), 0.5 * (weight @ a1 @ a2 + b1 @ b2), rtol=1e-4, atol=1e-4)


def test_oft_turns_channels_and_keeps_lengths():
    weight = numbers(OUT, INNER)
    turned = weight + change({".oft_blocks": 0.3 * numbers(4, 4, 4)}, weight)
    assert not torch.allclose(turned, weight)
    torch.testing.assert_close(turned.reshape(4, 4, INNER).square().sum(1), weight.reshape(4, 4, INNER).square().sum(1))
    limited = change({".oft_blocks": 0.3 * numbers(4, 4, 4), ".alpha": torch.tensor(1e-4)}, weight)
    assert limited.abs().max() < 1e-3


def test_boft_turns_in_stages_and_keeps_lengths():
    weight = numbers(OUT, INNER)
    turned = weight + change({".oft_blocks": 0.3 * numbers(2, 4, 4, 4), ".alpha": torch.tensor(0.0)}, weight)
    torch.testing.assert_close(turned.square().sum(0), weight.square().sum(0))
    assert not torch.allclose(turned[:4].square().sum(0), weight[:4].square().sum(0)), "stages must mix blocks"


@pytest.mark.parametrize("over_output", [True, False])
def test_dora_gives_the_changed_weight_new_norms(over_output):
    weight = numbers(OUT, INNER)
    scale = numbers(OUT, 1, seed=9).abs() if over_output else numbers(1, INNER, seed=9).abs()
    file = {".lora_B.weight": up, ".lora_A.weight": down, ".dora_scale": scale}
    changed = weight + up @ down
    norm = weight.norm(dim=1, keepdim=True) if over_output else changed.norm(dim=0, keepdim=True)
    expected = changed * scale / norm
    torch.testing.assert_close(weight + change(file, weight), expected)
    torch.testing.assert_close(change(file, weight, 0.25), 0.25 * (expected - weight))


@pytest.mark.parametrize("scale", [numbers(OUT, seed=9).abs(), numbers(1, OUT, seed=9).abs()], ids=["list", "row"])
def test_norms_of_outputs_may_be_written_in_any_form(scale):
    weight = numbers(OUT, INNER)
    expected = (weight + up @ down) * scale.reshape(OUT, 1) / weight.norm(dim=1, keepdim=True)
    if scale.ndim == 1:
        torch.testing.assert_close(weight + change({".lora_B.weight": up, ".lora_A.weight": down, ".dora_scale": scale}, weight), expected)
    peft = {".lora_B.weight": up, ".lora_A.weight": down, ".lora_magnitude_vector": scale}
    changed = weight + up @ down
    torch.testing.assert_close(weight + change(peft, weight), changed * scale.reshape(OUT, 1) / changed.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("name", MAGNITUDES)
@pytest.mark.parametrize("kernel", [(), (3, 3)])
def test_magnitudes_are_the_lengths_of_the_changed_weights_rows(name, kernel):
    weight, inner = numbers(OUT, INNER, *kernel), numbers(4, INNER, *kernel, seed=2)
    magnitudes = numbers(OUT, seed=9).abs()
    file = {".lora_up.weight": up.reshape(OUT, 4, *[1] * len(kernel)), ".lora_down.weight": inner, name: magnitudes}
    changed = weight + change(file | {".alpha": torch.tensor(2.0)}, weight)
    torch.testing.assert_close(changed.flatten(1).norm(dim=1), magnitudes)
    direction = weight + 0.5 * torch.einsum("or,r...->o...", up, inner)
    torch.testing.assert_close(torch.cosine_similarity(changed.flatten(1), direction.flatten(1)), torch.ones(OUT))
    torch.testing.assert_close(change(file | {".alpha": torch.tensor(2.0)}, weight, 0.25), 0.25 * (changed - weight))


KINDS = {
    "kohya": {".lora_up.weight": up, ".lora_down.weight": down},
    "peft": {".lora_B.weight": up, ".lora_A.weight": down},
    "dora": {".lora_B.weight": up, ".lora_A.weight": down, ".dora_scale": numbers(1, INNER, seed=9).abs()},
    "peft dora": {".lora_B.weight": up, ".lora_A.weight": down, ".lora_magnitude_vector": numbers(OUT, seed=9).abs()},
    "loha": {".hada_w1_a": up, ".hada_w1_b": down, ".hada_w2_a": up + 1, ".hada_w2_b": down + 1},
    "loha with norms": {
        ".hada_w1_a": up,
        ".hada_w1_b": down,
        ".hada_w2_a": up,
        ".hada_w2_b": down,
        ".dora_scale": numbers(1, INNER, seed=9).abs(),
    },
    "lokr": {".lokr_w1": numbers(4, 2, seed=1), ".lokr_w2": numbers(4, 4, seed=2)},
    "lokr factored": {".lokr_w1": numbers(4, 2, seed=1), ".lokr_w2_a": numbers(4, 3, seed=3), ".lokr_w2_b": numbers(3, 4, seed=4)},
    "glora": {".a1.weight": down.T, ".a2.weight": down, ".b1.weight": up, ".b2.weight": down},
    "full": {".diff": numbers(OUT, INNER, seed=3)},
    "norm": {".w_norm": numbers(OUT, INNER, seed=3)},
    "set": {".set_weight": numbers(OUT, INNER, seed=3)},
    "oft": {".oft_blocks": 0.3 * numbers(4, 4, 4)},
    "boft": {".oft_blocks": 0.3 * numbers(2, 4, 4, 4), ".rescale": numbers(OUT, 1, seed=5)},
}
RANKS = {"kohya": 4, "peft": 4, "dora": 4, "peft dora": 4, "loha": 4, "loha with norms": 4, "lokr factored": 3, "glora": 4}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_factors_of_any_dtype_count_by_their_values(kind, dtype):
    weight = numbers(OUT, INNER)
    stored = {name: tensor.to(dtype) for name, tensor in KINDS[kind].items()}
    values = {name: tensor.float() for name, tensor in stored.items()}
    changed = change(stored, weight, 0.5)
    torch.testing.assert_close(changed, change(values, weight, 0.5))
    assert changed.abs().max() > 0
    if kind in RANKS:
        stored[".alpha"], values[".alpha"] = torch.tensor(2.0).to(dtype), torch.tensor(2.0)
        torch.testing.assert_close(change(stored, weight), change(values, weight))


@pytest.mark.parametrize("kind", KINDS)
def test_without_alpha_a_change_counts_as_it_is(kind):
    weight = numbers(OUT, INNER)
    if kind in RANKS:
        as_it_is = {**KINDS[kind], ".alpha": torch.tensor(float(RANKS[kind]))}
        torch.testing.assert_close(change(KINDS[kind], weight), change(as_it_is, weight))
        assert not torch.allclose(change(KINDS[kind], weight), change({**as_it_is, ".alpha": torch.tensor(1.0)}, weight))
    elif kind == "lokr":  # of two whole factors there is no rank to divide by
        torch.testing.assert_close(change({**KINDS[kind], ".alpha": torch.tensor(3.0)}, weight), change(KINDS[kind], weight))


DAMAGED = {
    "up alone": {".lora_up.weight": up},
    "down alone": {".lora_down.weight": down},
    "ranks differ": {".lora_up.weight": up, ".lora_down.weight": numbers(3, INNER)},
    "rank 0": {".lora_up.weight": numbers(OUT, 0), ".lora_down.weight": numbers(0, INNER), ".alpha": torch.tensor(1.0)},
    "no matrix": {".lora_up.weight": up[0], ".lora_down.weight": down},
    "number": {".lora_up.weight": torch.tensor(1.0), ".lora_down.weight": torch.tensor(1.0)},
    "other size": {".lora_up.weight": up[1:], ".lora_down.weight": down},
    "alpha of three": {".lora_up.weight": up, ".lora_down.weight": down, ".alpha": torch.ones(3)},
    "complex alpha": {".lora_up.weight": up, ".lora_down.weight": down, ".alpha": torch.tensor(1j)},
    "wrong norms": {".lora_up.weight": up, ".lora_down.weight": down, ".dora_scale": torch.ones(5, 1)},
    "wrong magnitudes": {".lora_up.weight": up, ".lora_down.weight": down, ".magnitude": torch.ones(INNER)},
    "wrong middle": {".lora_up.weight": up, ".lora_down.weight": down, ".lora_mid.weight": numbers(3)},
    "smaller shape": {".lora_up.weight": up, ".lora_down.weight": down, ".reshape_weight": torch.tensor([1, 1])},
    "no shape": {".lora_up.weight": up, ".lora_down.weight": down, ".reshape_weight": torch.tensor(7)},
    "half a LoKr": {".lokr_w1": torch.ones(4, 4)},
    "half a factor": {".lokr_w1": torch.ones(4, 4), ".lokr_w2_a": torch.ones(4, 4)},
    "other LoKr": {".lokr_w1": torch.ones(4, 4), ".lokr_w2": torch.ones(4, 4)},
    "half a LoHa": {".hada_w1_a": up, ".hada_w1_b": down},
    "other LoHa": {".hada_w1_a": up, ".hada_w1_b": down, ".hada_w2_a": up, ".hada_w2_b": down[:, 1:]},
    "half a GLoRA": {".a1.weight": up},
    "other GLoRA": {".a1.weight": up, ".a2.weight": up, ".b1.weight": up, ".b2.weight": up},
    "other OFT": {".oft_blocks": numbers(3, 4, 4)},
    "no rotations": {".oft_blocks": numbers(4, 4, 3)},
    "other BOFT": {".oft_blocks": numbers(9, 4, 4, 4)},
    "other difference": {".diff": torch.ones(3)},
    "other value": {".set_weight": torch.ones(3)},
    "other bias": {".diff_b": torch.ones(3)},
}


class Layer(torch.nn.Module):
    """A module with one layer that LoRA files call ``lora_unet_x``."""

    def __init__(self):
        super().__init__()
        self.diffusion_model = torch.nn.Module()
        self.diffusion_model.x = torch.nn.Linear(INNER, OUT)


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_change_is_left_out_with_file_and_key_when_it_is_loaded(kind, caplog):
    layer = Layer().requires_grad_(False)
    patcher = comfy.model_patcher.ModelPatcher(layer, torch.device("cpu"), torch.device("cpu"))
    file = FileTensors({f"lora_unet_x{key}": value for key, value in DAMAGED[kind].items()}, "loras/odd.safetensors")
    new, _ = load_lora_for_models(patcher, None, file, 1.0, 1.0)
    assert not new.patches
    (record,) = caplog.records
    assert "loras/odd.safetensors" in record.message and "x" in record.message and "left out" in record.message


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_change_that_was_added_by_hand_does_no_harm(kind, caplog):
    weight = numbers(OUT, INNER)
    file = {f"x{key}": value for key, value in DAMAGED[kind].items() if key != ".diff_b"}
    for patch in comfy.lora.load_lora(file, {"x": "some.weight"}).values():
        assert torch.equal(comfy.lora.calculate_weight([(1.0, patch, 1.0, None, None)], weight.clone(), "some.weight"), weight)
    assert caplog.records or not file


def test_strengths_slices_and_functions_of_a_patch():
    weight, part = numbers(3 * OUT, INNER), slice(OUT, 2 * OUT)
    file = {".lora_up.weight": up, ".lora_down.weight": down}
    added = change(file, weight, 0.5, model=0.25, part=(0, OUT, OUT), function=lambda x: 3 * x)
    torch.testing.assert_close(added[part], -0.75 * weight[part] + 1.5 * up @ down)
    assert not added[:OUT].any() and not added[2 * OUT :].any()


def test_plain_changes_are_read_from_every_key():
    file = {
        "x.diff": numbers(4, 4),
        "x.diff_b": numbers(4),
        "y.set_weight": numbers(4, 4, seed=1),
        "z.w_norm": numbers(4),
        "z.b_norm": numbers(4, seed=2),
    }
    patches = comfy.lora.load_lora(file, {name: f"{name}.weight" for name in "xyz"})
    assert patches["x.weight"] == ("diff", (file["x.diff"],)) and patches["x.bias"] == ("diff", (file["x.diff_b"],))
    assert patches["z.bias"] == ("diff", (file["z.b_norm"],)) and len(patches) == 5
    weight = torch.zeros(4, 4)
    assert torch.equal(comfy.lora.calculate_weight([(0.5, patches["y.weight"], 1.0, None, None)], weight, "y"), file["y.set_weight"])


def test_a_change_may_make_a_weight_larger():
    file = {"x.lora_up.weight": numbers(20, 4), "x.lora_down.weight": numbers(4, 10), "x.reshape_weight": torch.tensor([20, 10])}
    patch = (1.0, comfy.lora.load_lora(file, {"x": "w"})["w"], 1.0, None, None)
    weight = numbers(OUT, INNER)
    changed = comfy.lora.calculate_weight([patch], weight.clone(), "w")
    expected = numbers(20, 4) @ numbers(4, 10)
    expected[:OUT, :INNER] += weight
    torch.testing.assert_close(changed, expected)
    assert comfy.lora.calculate_shape([patch], weight, "w") == (20, 10)
    padded = (1.0, ("diff", (torch.ones(20, INNER), {"pad_weight": True})), 1.0, None, None)
    assert comfy.lora.calculate_weight([padded], weight.clone(), "w").shape == comfy.lora.calculate_shape([padded], weight, "w")


@pytest.mark.parametrize(
    "patch",
    [("diff", (torch.ones(3, 3),)), ("what", (1,)), LoRAAdapter(set(), (torch.ones(3, 1), torch.ones(1, 3), None, None, None, None))],
)
def test_what_does_not_fit_is_logged_and_left_out(patch, caplog):
    weight = numbers(OUT, INNER)
    assert torch.equal(comfy.lora.calculate_weight([(1.0, patch, 1.0, None, None)], weight.clone(), "some.key"), weight)
    assert "some.key" in caplog.text


def test_moving_towards_another_model_needs_the_own_weights():
    weight, other = numbers(OUT, INNER), numbers(OUT, INNER, seed=1)
    patch = [(0.5, ("model_as_lora", (other,)), 1.0, None, None)]
    moved = comfy.lora.calculate_weight(patch, weight.clone(), "w", original_weights={"w": [(weight, None)]})
    torch.testing.assert_close(moved, (weight + other) / 2)
    with pytest.raises(ValueError, match="get_key_patches"):
        comfy.lora.calculate_weight(patch, weight.clone(), "w")


def test_unused_keys_are_named_in_one_line(caplog):
    comfy.lora.load_lora({f"nobody{index}.lora_up.weight": up for index in range(50)}, {"x": "w"})
    (record,) = caplog.records
    assert "50 of 50" in record.message and "nobody0" in record.message
    caplog.clear()
    comfy.lora.load_lora({"nobody": up}, {}, log_missing=False)
    assert not caplog.records


def test_the_kinds_node_packs_look_for_are_there():
    assert {kind.name for kind in adapters} == {"lora", "loha", "lokr", "glora", "oft", "boft"}
    assert adapter_maps["LoRA"] is LoRAAdapter


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_rounding_by_chance_is_right_on_average_and_repeatable(dtype):
    value = torch.full((64, 1024), 1.0 + 0.3 / 8)
    rounded = stochastic_rounding(value, dtype, seed=3).float()
    step = 1 / 8 if dtype == torch.float8_e4m3fn else 1 / 4
    assert set(rounded.unique().tolist()) == {1.0, 1.0 + step}
    assert abs(rounded.mean().item() - value[0, 0].item()) < step / 50
    assert torch.equal(rounded, stochastic_rounding(value, dtype, seed=3).float())
    assert not torch.equal(rounded, stochastic_rounding(value, dtype, seed=4).float())


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_rounding_by_chance_picks_a_neighbour(dtype):
    values = torch.cat([numbers(4000) * scale for scale in (1e-4, 1e-2, 1, 100, 1e6)]).reshape(-1, 10)
    every = torch.arange(256, dtype=torch.uint8).view(dtype).float()
    every = every[every.isfinite()].unique()
    limit = torch.finfo(dtype)
    clamped = values.half().float().clamp(limit.min, limit.max)
    below = every[(torch.searchsorted(every, clamped, right=True) - 1).clamp(min=0)]
    above = every[torch.searchsorted(every, clamped).clamp(max=len(every) - 1)]
    rounded = stochastic_rounding(values, dtype).float()
    assert ((rounded == below) | (rounded == above)).all()
    assert stochastic_rounding(values, torch.bfloat16).equal(values.bfloat16())
    assert not stochastic_rounding(torch.zeros(3), dtype).float().any()
