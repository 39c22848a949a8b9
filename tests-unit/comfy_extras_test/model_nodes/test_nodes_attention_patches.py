"""Nodes that change attention and blocks of a UNet, or leave blocks of a transformer out."""

from types import SimpleNamespace

import pytest
import torch

import comfy.samplers
import folder_paths
from comfy.families.model_errors import ModelFileError
from comfy.patching.model_options import ModelOptions
from comfy_extras import (
    nodes_attention_multiply,
    nodes_hypernetwork,
    nodes_hypertile,
    nodes_model_downscale,
    nodes_pag,
    nodes_rope,
    nodes_sag,
    nodes_sd3,
    nodes_slg,
    nodes_tomesd,
    nodes_torch_compile,
)


class Patched(ModelOptions):
    """A model that keeps its options, and the patches of weights by their factors."""

    def __init__(self):
        super().__init__()
        self.weights, self.compiled = {}, []
        self.model_options = self.values
        for name in (
            "attn1_patch",
            "attn2_patch",
            "attn1_output_patch",
            "input_block_patch",
            "input_block_patch_after_skip",
            "output_block_patch",
        ):
            setattr(self, f"set_model_{name}", lambda patch, name=name: self.set_patch(patch, name))
        self.set_model_attn1_replace = lambda patch, *block: self.set_patch_replace(patch, "attn1", *block)
        self.set_model_sampler_post_cfg_function = self.set_post_cfg_function
        self.set_model_sampler_calc_cond_batch_function = self.set_calc_cond_batch_function
        self.set_model_rope_options = self.set_rope_options

    def clone(self, disable_dynamic=False):
        return Patched()

    def get_model_object(self, name):
        return SimpleNamespace(percent_to_sigma=lambda share: 10.0 * (1 - share))

    def model_state_dict(self):
        names = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_q", "attn2.to_out.0", "time_stack.0.attn1.to_out.0")
        return dict.fromkeys([f"block.{name}.weight" for name in names] + ["block.attn1.to_out.0.bias", "block.norm.weight"])

    def add_patches(self, patches, strength, own):
        assert strength == 0.0 and set(patches.values()) == {(None,)}
        self.weights |= dict.fromkeys(patches, own)


@pytest.fixture(autouse=True)
def unremembered(monkeypatch):
    """Models are patched anew."""

    class Registry:
        def patched(self, model, params, build):
            clone = model.clone()
            build(clone)
            return clone

    monkeypatch.setattr("comfy.patching.patched_models.patched_models", Registry)


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def patches_of(clone, name):
    return clone.values["transformer_options"]["patches"][name]


def test_weights_of_attentions_are_multiplied():
    clone = nodes_attention_multiply.UNetSelfAttentionMultiply.execute(Patched(), 2.0, 3.0, 4.0, 5.0).args[0]
    assert clone.weights == {
        "block.attn1.to_q.weight": 2.0,
        "block.attn1.to_k.weight": 3.0,
        "block.attn1.to_v.weight": 4.0,
        "block.attn1.to_out.0.weight": 5.0,
        "block.attn1.to_out.0.bias": 5.0,
        "block.time_stack.0.attn1.to_out.0.weight": 5.0,
    }
    clone = nodes_attention_multiply.UNetCrossAttentionMultiply.execute(Patched(), 2.0, 3.0, 4.0, 5.0).args[0]
    assert clone.weights == {"block.attn2.to_q.weight": 2.0, "block.attn2.to_out.0.weight": 5.0}
    clone = nodes_attention_multiply.UNetTemporalAttentionMultiply.execute(Patched(), 2.0, 3.0, 4.0, 5.0).args[0]
    assert clone.weights["block.attn1.to_out.0.weight"] == 2.0 and clone.weights["block.time_stack.0.attn1.to_out.0.weight"] == 3.0
    assert clone.weights["block.attn2.to_out.0.weight"] == 4.0 and len(clone.weights) == 4


def test_weights_of_a_text_encoder_are_multiplied():
    class Encoder(Patched):
        def clone(self):
            return Encoder()

        def model_state_dict(self):
            return dict.fromkeys(f"l.self_attn.{name}_proj.bias" for name in ("q", "k", "v", "out"))

    encoder = Encoder()
    encoder.patcher = encoder
    Encoder.patcher = property(lambda self: self, lambda self, value: None)
    clone = nodes_attention_multiply.CLIPAttentionMultiply.execute(encoder, 2.0, 3.0, 4.0, 5.0).args[0]
    assert clone.weights == {f"l.self_attn.{name}_proj.bias": factor for name, factor in zip(("q", "k", "v", "out"), (2.0, 3.0, 4.0, 5.0))}


@pytest.mark.parametrize(("length", "smallest"), [(64, 8), (60, 7), (5, 8), (1, 1)])
def test_sides_are_cut_into_equal_parts(length, smallest):
    counts = {nodes_hypertile.random_divisor(length, smallest, 3) for _ in range(30)}
    assert all(length % count == 0 and length // count >= min(smallest, length) for count in counts)


def test_tiles_come_back_where_they_were():
    clone = nodes_hypertile.HyperTile.execute(Patched(), 32, 1, 1, True).args[0]
    cut, join = patches_of(clone, "attn1_patch")[0], patches_of(clone, "attn1_output_patch")[0]
    options = {"original_shape": [2, 4, 16, 16]}
    q = numbers(2, 256, 8)
    tiles, k, v = cut(q, "keys", "values", options)
    assert tiles.shape == (2 * 16, 16, 8) and (k, v) == ("keys", "values")
    assert tiles[0].equal(q[0].view(16, 16, 8)[:4, :4].reshape(16, 8))
    assert join(tiles, options).equal(q) and join(q, options) is q
    deeper = numbers(2, 64, 8)
    assert cut(deeper, "k", "v", options)[0].shape == (2, 64, 8), "by depth, tiles are twice as long there"
    assert cut(numbers(2, 16, 8), "k", "v", options)[0].shape == (2, 16, 8)


def test_merged_tokens_are_copies_of_their_mean():
    torch.manual_seed(0)
    x = numbers(2, 24, 8)
    merge, unmerge = nodes_tomesd.bipartite_soft_matching_random2d(x, 6, 4, 2, 2, 10)
    fewer = merge(x)
    assert fewer.shape == (2, 14, 8)
    back = unmerge(fewer)
    assert back.shape == x.shape and torch.allclose(unmerge(merge(back)), back, atol=1e-5)
    assert sum(row.tolist() in x[0].tolist() for row in back[0]) >= 24 - 2 * 10
    assert merge(x, mode="amax").shape == (2, 14, 8)


def test_tokens_are_merged_at_full_size_and_alike_ones_first():
    x = numbers(1, 36, 8)
    x[:, 1] = x[:, 0]
    merge, unmerge = nodes_tomesd.bipartite_soft_matching_random2d(x, 6, 6, 2, 2, 1, no_rand=True)
    assert torch.allclose(unmerge(merge(x)), x, atol=1e-6), "the two equal tokens are merged"
    merge, _ = nodes_tomesd.get_functions(numbers(1, 9, 8), 0.5, [1, 4, 6, 6])
    assert merge is nodes_tomesd.do_nothing
    assert nodes_tomesd.bipartite_soft_matching_random2d(x, 36, 1, 2, 2, 5)[0] is nodes_tomesd.do_nothing
    odd = numbers(1, 35, 8)
    merge, unmerge = nodes_tomesd.bipartite_soft_matching_random2d(odd, 7, 5, 2, 2, 100, no_rand=True)
    assert unmerge(merge(odd)).shape == odd.shape and merge(odd).shape == (1, 6, 8)


def test_the_merging_node_undoes_what_it_did():
    clone = nodes_tomesd.TomePatchModel.execute(Patched(), 0.5).args[0]
    merge, unmerge = patches_of(clone, "attn1_patch")[0], patches_of(clone, "attn1_output_patch")[0]
    q, k, v = merge(numbers(1, 36, 8), "k", "v", {"original_shape": [1, 4, 6, 6]})
    assert (q.shape[1], k, v) == (18, "k", "v")
    assert unmerge(q, {}).shape == (1, 36, 8) and unmerge(q, {}) is q


def test_features_are_smaller_between_two_blocks_and_two_levels():
    clone = nodes_model_downscale.PatchModelAddDownscale.execute(Patched(), 3, 2.0, 0.0, 0.5, True, "area", "bilinear").args[0]
    shrink, grow = patches_of(clone, "input_block_patch_after_skip")[0], patches_of(clone, "output_block_patch")[0]
    h = numbers(1, 4, 8, 12)

    def options(block=3, sigma=7.0):
        return {"block": ("input", block), "sigmas": torch.tensor([sigma])}

    small = shrink(h, options())
    assert small.shape == (1, 4, 4, 6) and shrink(h, options(block=2)) is h and shrink(h, options(sigma=4.0)) is h
    grown, skip = grow(small, h, {})
    assert grown.shape == h.shape and skip is h and grow(h, h, {})[0] is h
    before = nodes_model_downscale.PatchModelAddDownscale.execute(Patched(), 3, 2.0, 0.0, 0.5, False, "area", "bilinear").args[0]
    assert len(patches_of(before, "input_block_patch")) == 1


def test_attention_weights_are_those_of_the_attention():
    q, k, v = (numbers(2, 12, 16, seed=seed) for seed in range(3))
    out, weights = nodes_sag.attention_basic_with_sim(q, k, v, 4)
    assert weights.shape == (8, 12, 12) and torch.allclose(weights.sum(-1), torch.ones(8, 12))
    expected = torch.nn.functional.scaled_dot_product_attention(*(x.view(2, 12, 4, 4).transpose(1, 2) for x in (q, k, v)))
    assert torch.allclose(out, expected.transpose(1, 2).flatten(2), atol=1e-5)
    seen = torch.ones(2, 12, dtype=torch.bool)
    seen[:, 6:] = False
    assert nodes_sag.attention_basic_with_sim(q, k, v, 4, mask=seen)[1][..., 6:].max() == 0


def test_pictures_are_blurred_where_they_are_looked_at():
    picture = numbers(1, 4, 16, 24)
    weights = torch.zeros(2, 24, 24)
    weights[:, :, 0] = 0.2  # 24 rows look at the first token: it gets 4.8
    blurred = nodes_sag.create_blur_map(picture, weights, 2.0)
    changed = (blurred != picture).any(1)[0]
    assert changed[:4, :4].all() and not changed[4:].any() and not changed[:, 4:].any()
    flat = torch.full((1, 3, 12, 12), 2.5)
    assert torch.allclose(nodes_sag.gaussian_blur_2d(flat, 9, 1.5), flat)
    assert nodes_sag.gaussian_blur_2d(picture, 9, 0) is picture


def test_self_attention_guidance_refuses_models_it_cannot_look_into(monkeypatch):
    clone = nodes_sag.SelfAttentionGuidance.execute(Patched(), 0.5, 2.0).args[0]
    (guide,) = clone.values["sampler_post_cfg_function"]
    attend = clone.values["transformer_options"]["patches_replace"]["attn1"]["middle", 0, 0]
    assert clone.values["disable_cfg1_optimization"] is True
    x = numbers(1, 4, 8, 8)
    sides = dict.fromkeys(("denoised", "uncond_denoised", "input"), x)
    arguments = {**sides, "model": None, "uncond": [], "sigma": torch.ones(1), "model_options": {}}
    with pytest.raises(ValueError, match="middle block"):
        guide(arguments)
    small = dict.fromkeys(("denoised", "uncond_denoised", "input"), numbers(1, 4, 4, 4))
    assert guide({**arguments, **small}) is small["denoised"]
    monkeypatch.setattr(comfy.samplers, "calc_cond_batch", lambda model, conds, x, sigma, options: [x * 0])
    q = numbers(2, 16, 8)
    options = {"n_heads": 2, "attn_precision": None, "cond_or_uncond": [1, 0]}
    attend(q, q, q, options)
    guided = guide(arguments)
    assert torch.allclose(guided - x, 0.5 * nodes_sag.create_blur_map(x, nodes_sag.attention_basic_with_sim(q, q, q, 2)[1][:2], 2.0))
    attend(q, q, q, {**options, "cond_or_uncond": [0, 0]})
    with pytest.raises(ValueError, match="middle block"):
        guide(arguments)


def test_perturbed_attention_sees_each_token_alone(monkeypatch):
    (guide,) = nodes_pag.PerturbedAttentionGuidance.execute(Patched(), 3.0).args[0].values["sampler_post_cfg_function"]
    asked = []

    def batch(model, conds, x, sigma, options):
        asked.append((conds, options["transformer_options"]["patches_replace"]["attn1"]["middle", 0]("q", "k", "v", {})))
        return [torch.tensor(1.0)]

    monkeypatch.setattr(comfy.samplers, "calc_cond_batch", batch)
    own = {"transformer_options": {"patches_replace": {"attn1": {("input", 1): "kept"}}}}
    arguments = {
        "model": None,
        "cond": "text",
        "input": None,
        "sigma": None,
        "denoised": torch.tensor(5.0),
        "cond_denoised": torch.tensor(2.0),
        "model_options": own,
    }
    assert guide(arguments) == 5.0 + 3.0 * (2.0 - 1.0) and asked == [(["text"], "v")]
    assert own["transformer_options"]["patches_replace"]["attn1"] == {("input", 1): "kept"}
    (off,) = nodes_pag.PerturbedAttentionGuidance.execute(Patched(), 0).args[0].values["sampler_post_cfg_function"]
    assert off(arguments) == 5.0 and len(asked) == 1


def skipped(options):
    return sorted(options.get("transformer_options", {}).get("patches_replace", {}).get("dit", {}))


@pytest.fixture
def batches(monkeypatch):
    """What the model is asked: conditioning and skipped layers; it gives 1, without layers 3."""
    asked = []

    def batch(model, conds, x, sigma, options):
        asked.append((conds, skipped(options)))
        return [torch.full((1, 2), 3.0 if skipped(options) else 1.0) for _ in conds]

    monkeypatch.setattr(comfy.samplers, "calc_cond_batch", batch)
    return asked


def post_cfg(sigma):
    one = torch.full((1, 2), 2.0)
    return {
        "model": None,
        "cond": "text",
        "input": None,
        "sigma": torch.tensor([sigma]),
        "denoised": one,
        "cond_denoised": torch.tensor([[1.0, 5.0]]),
        "model_options": {},
    }


@pytest.mark.parametrize("rescaling", [0.0, 1.0])
def test_guidance_away_from_fewer_layers(batches, rescaling):
    clone = nodes_slg.SkipLayerGuidanceDiT.execute(Patched(), 0.5, 0.2, 0.6, "7, 8", "2", rescaling).args[0]
    (guide,) = clone.values["sampler_post_cfg_function"]
    result = guide(post_cfg(5.0))
    expected = torch.tensor([[1.0, 3.0]])
    assert torch.allclose(result, expected * (expected.new_tensor([1.0, 5.0]).std() / expected.std()) if rescaling else expected)
    assert batches == [(["text"], [("double_block", 7), ("double_block", 8), ("single_block", 2)])]
    for outside in (9.0, 3.0):
        assert guide(post_cfg(outside)).tolist() == [[2.0, 2.0]]
    assert len(batches) == 1
    model = Patched()
    assert nodes_slg.SkipLayerGuidanceDiT.execute(model, 3.0, 0.0, 1.0, "none", "").args[0] is model


def test_sd3_names_its_layers_double(batches):
    clone = nodes_sd3.SkipLayerGuidanceSD3.execute(Patched(), "7, 9", 3.0, 0.0, 1.0).args[0]
    clone.values["sampler_post_cfg_function"][0](post_cfg(5.0))
    assert batches[0][1] == [("double_block", 7), ("double_block", 9)]


def test_the_negative_side_alone_may_lack_layers(batches):
    clone = nodes_slg.SkipLayerGuidanceDiTSimple.execute(Patched(), 0.2, 0.6, "7", "").args[0]
    predict = clone.values["sampler_calc_cond_batch_function"]
    call = {"model": None, "input": None, "model_options": {}, "conds": ["text", "no text"], "sigma": torch.tensor([5.0])}
    positive, negative = predict(call)
    assert positive[0, 0] == 1.0 and negative[0, 0] == 3.0
    assert batches == [(["text", None], []), ([None, "no text"], [("double_block", 7)])]
    assert [len(predict({**call, **change})) for change in ({"sigma": torch.tensor([9.0])}, {"conds": ["text", None]})] == [2, 2]
    assert [layers for _, layers in batches[2:]] == [[], []]
    model = Patched()
    assert nodes_slg.SkipLayerGuidanceDiTSimple.execute(model, 0.0, 1.0, "", "").args[0] is model


def test_rotary_positions_are_options():
    clone = nodes_rope.ScaleROPE.execute(Patched(), 2.0, 1.0, 3.0, 0.0, 1.0, 5.0).args[0]
    options = clone.values["transformer_options"]["rope_options"]
    assert options == {"scale_x": 2.0, "shift_x": 1.0, "scale_y": 3.0, "shift_y": 0.0, "scale_t": 1.0, "shift_t": 5.0}


def test_compiled_models_do_not_depend_on_options_of_a_step(monkeypatch):
    asked = {}
    monkeypatch.setattr(nodes_torch_compile, "set_torch_compile_wrapper", lambda **given: asked.update(given))
    clone = nodes_torch_compile.TorchCompileModel.execute(Patched(), "inductor").args[0]
    assert asked["model"] is clone and asked["backend"] == "inductor"
    guards = [SimpleNamespace(name="L['transformer_options']['sigmas']"), SimpleNamespace(name="L['x']")]
    assert asked["options"]["guard_filter_fn"](guards) == [False, True]


def hypernetwork_file(tmp_path, name="net.pt", **settings):
    def network(seed):
        return {
            "linear.0.weight": numbers(6, 4, seed=seed),
            "linear.0.bias": numbers(6, seed=seed + 1),
            "linear.1.weight": numbers(4, 6, seed=seed + 2),
            "linear.1.bias": numbers(4, seed=seed + 3),
        }

    networks = (network(0), network(10))
    torch.save({4: networks, "name": "net", "step": 5, **settings}, tmp_path / name)
    return networks


def test_hypernetworks_add_to_keys_and_values(tmp_path, monkeypatch):
    for_keys, for_values = hypernetwork_file(tmp_path, activation_func="relu", activate_output=False)
    monkeypatch.setattr(folder_paths, "get_full_path_or_raise", lambda folder, name: str(tmp_path / name))
    clone = nodes_hypernetwork.HypernetworkLoader.execute(Patched(), "net.pt", 0.5).args[0]
    (patch,) = patches_of(clone, "attn2_patch")
    assert patches_of(clone, "attn1_patch") == [patch]
    k, v = numbers(1, 3, 4, seed=20), numbers(1, 3, 4, seed=21)

    def added(net, x):
        hidden = torch.relu(x @ net["linear.0.weight"].T + net["linear.0.bias"])
        return hidden @ net["linear.1.weight"].T + net["linear.1.bias"]

    q, keys, values = patch("queries", k, v, {})
    assert q == "queries" and torch.allclose(keys, k + 0.5 * added(for_keys, k), atol=1e-5)
    assert torch.allclose(values, v + 0.5 * added(for_values, v), atol=1e-5)
    other = numbers(1, 3, 5)
    assert patch("q", other, other, {})[1] is other
    half = patch.to(torch.float16)
    assert half("q", k.half(), v.half(), {})[1].dtype == torch.float16 and patch("q", k, v, {})[1].dtype == torch.float32


def test_layers_of_hypernetworks_may_be_followed_by_norms(tmp_path):
    norm = {"weight": torch.ones(4), "bias": torch.zeros(4)}
    layer = {
        "linear.0.weight": torch.eye(4),
        "linear.0.bias": torch.zeros(4),
        "linear.1.weight": norm["weight"],
        "linear.1.bias": norm["bias"],
    }
    torch.save({4: [layer, layer], "is_layer_norm": True}, tmp_path / "net.pt")
    patch = nodes_hypernetwork.load_hypernetwork_patch(str(tmp_path / "net.pt"), 1.0)
    k = numbers(1, 3, 4)
    assert torch.allclose(patch("q", k, k, {})[1], k + torch.nn.functional.layer_norm(k, (4,)), atol=1e-5)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({4: "nothing", "name": "net"}, "two networks"),
        ({4: [{}, {}], "name": "net"}, "two networks"),
        ({"name": "net", "step": 1}, "no networks"),
        ({4: [{}, {}], "activation_func": "step"}, "activation 'step'"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, content, text):
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(ModelFileError, match=text) as error:
        nodes_hypernetwork.load_hypernetwork_patch(str(tmp_path / "net.pt"), 1.0)
    assert "net.pt" in str(error.value)
