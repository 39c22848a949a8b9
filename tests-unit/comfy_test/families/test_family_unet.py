"""The UNet's block numbering and hooks, checked on a small network against diffusers' own forward."""

import pytest
import torch
from diffusers_twins import unet_twin
from small_models import small_checkpoint

import comfy.sd
from benchmarks.make_checkpoint import family
from comfy.families.published_layout import unet_layout
from comfy.ldm.modules.attention import CrossAttention, SpatialTransformer, attention_basic, attention_pytorch
from comfy.ldm.modules.diffusionmodules.openaimodel import apply_control

SIZES = {"sd15": family("sd15", 10), "sdxl": family("sdxl", 10)}


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def loaded(request):
    patcher = comfy.sd.load_diffusion_model(small_checkpoint(request.param, parts=("unet",)))
    return request.param, patcher.model


def inputs(name, batch=2, side=16):
    generator = torch.Generator().manual_seed(3)
    sizes = SIZES[name].unet
    latent = torch.randn(batch, 4, side, side, generator=generator)
    context = torch.randn(batch, 7, sizes.context_dim, generator=generator)
    vector = None if sizes.adm_in_channels is None else torch.randn(batch, sizes.adm_in_channels, generator=generator)
    return latent, torch.tensor([500.0, 20.0])[:batch], context, vector


def run(model, name, options=None, control=None, **sizes):
    latent, times, context, vector = inputs(name, **sizes)
    with torch.inference_mode():
        return model.diffusion_model(latent, times, context, y=vector, control=control, transformer_options=options)


def test_the_output_is_diffusers_output(loaded):
    name, model = loaded
    reference = unet_twin(model.diffusion_model)
    latent, times, context, vector = inputs(name)
    if vector is not None:  # diffusers embeds sizes itself; hand its vector embedding over directly
        embedded = model.diffusion_model.label_emb(vector)
        reference.add_embedding = torch.nn.Identity()
        reference.get_aug_embed = lambda **_: embedded
    with torch.inference_mode():
        expected = reference(latent, times, context, added_cond_kwargs={}).sample
    torch.testing.assert_close(run(model, name), expected, rtol=2e-5, atol=2e-5)


def test_weights_have_the_published_names(loaded):
    name, model = loaded
    weights = {key: tuple(tensor.shape) for key, tensor in model.diffusion_model.state_dict().items()}
    assert weights == unet_layout(SIZES[name].unet)


def test_attention_hooks_see_every_transformer_block_with_its_place(loaded):
    name, model = loaded
    seen = []

    def note(n, context, value, options):
        seen.append((*options["block"], options["block_index"], options["transformer_index"], options["n_heads"] * options["dim_head"]))
        return n, context, value

    plain = run(model, name)
    assert torch.equal(run(model, name, {"patches": {"attn2_patch": [note]}}), plain)
    depths = SIZES[name].unet
    assert len(seen) == sum(depths.depths) + sum(depths.output_depths) + depths.middle_depth
    places = [place[:3] for place in seen]
    assert len(set(places)) == len(places) and ("middle", 0, 0) in places
    assert [place[3] for place in seen] == sorted(place[3] for place in seen)
    assert all(
        width == inner.shape[0]
        for width, inner in zip(
            (place[4] for place in seen), (block.attn2.to_q.weight for block in transformer_blocks(model.diffusion_model))
        )
    )


def transformer_blocks(network):
    for block in [*network.input_blocks, network.middle_block, *network.output_blocks]:
        for layer in block:
            if isinstance(layer, SpatialTransformer):
                yield from layer.transformer_blocks


def test_a_replacement_by_place_prefers_the_exact_one(loaded):
    name, model = loaded
    calls = []

    def replacement(label):
        def attend(q, k, v, options):
            calls.append((label, options["block"], options["block_index"]))
            return attention_pytorch(q, k, v, options["n_heads"])

        return attend

    exact = {("middle", 0, 0): replacement("exact"), ("middle", 0): replacement("block")}
    result = run(model, name, {"patches_replace": {"attn1": exact}})
    depth = SIZES[name].unet.middle_depth
    assert calls == [("exact", ("middle", 0), 0)] + [("block", ("middle", 0), index) for index in range(1, depth)]
    torch.testing.assert_close(result, run(model, name))


def test_replaced_attention_changes_the_result(loaded):
    name, model = loaded
    mute = {("middle", 0): lambda q, k, v, options: torch.zeros_like(q)}
    assert not torch.allclose(run(model, name, {"patches_replace": {"attn2": mute}}), run(model, name))


@pytest.mark.parametrize(
    ("kind", "patch"),
    [
        ("attn1_patch", lambda n, c, v, o: (n * 2, c, v)),
        ("attn2_patch", lambda n, c, v, o: (n, c * 2, v * 2)),
        ("attn1_output_patch", lambda n, o: n * 2),
        ("attn2_output_patch", lambda n, o: n * 2),
        ("middle_patch", lambda x, o: x * 2),
        ("input_block_patch", lambda h, o: h * 2),
        ("input_block_patch_after_skip", lambda h, o: h * 2),
        ("output_block_patch", lambda h, skip, o: (h * 2, skip)),
        ("emb_patch", lambda emb, width, o: emb * 2),
        ("middle_block_after_patch", lambda args: {"h": args["h"] * 2}),
        ("forward_timestep_embed_patch", (SpatialTransformer, lambda layer, x, *rest: x)),
    ],
)
def test_every_kind_of_patch_acts(loaded, kind, patch):
    name, model = loaded
    assert not torch.allclose(run(model, name, {"patches": {kind: [patch]}}), run(model, name))


def test_the_attention_override_gets_every_call(loaded):
    name, model = loaded
    calls = []

    def override(original, *args, **kwargs):
        calls.append(args[3])
        return attention_basic(*args, **kwargs) if len(calls) % 2 else original(*args, **kwargs)

    torch.testing.assert_close(run(model, name, {"optimized_attention_override": override}), run(model, name), rtol=1e-4, atol=1e-4)
    assert len(calls) == 2 * len(list(transformer_blocks(model.diffusion_model)))


def test_the_options_say_what_runs(loaded):
    name, model = loaded
    options = {}
    run(model, name, options)
    assert options["original_shape"] == [2, 4, 16, 16] and options["block"] == ("output", len(model.diffusion_model.output_blocks) - 1)


def test_control_residuals_are_taken_from_the_end_and_added(loaded):
    name, model = loaded
    shapes = []
    run(model, name, {"patches": {"input_block_patch": [lambda h, options: shapes.append(h.shape) or h]}})
    zeros = {"output": [torch.zeros(shape) for shape in shapes], "middle": [torch.zeros(shapes[-1])], "input": []}
    assert torch.equal(run(model, name, control=zeros), run(model, name))
    assert zeros == {"output": [], "middle": [], "input": []}
    only_last = {"output": [None] * (len(shapes) - 1) + [torch.ones(shapes[-1])]}
    assert not torch.allclose(run(model, name, control=only_last), run(model, name))


def test_a_control_residual_that_does_not_fit_is_left_out(caplog):
    h = torch.ones(1, 2, 3, 3)
    assert torch.equal(apply_control(h.clone(), {"input": [torch.ones(1, 2, 5, 5)]}, "input"), h)
    assert "does not fit" in caplog.text
    assert apply_control(h, None, "input") is h and apply_control(h, {"input": []}, "input") is h


def test_odd_sizes_keep_their_shape(loaded):
    name, model = loaded
    assert run(model, name, side=13).shape == (2, 4, 13, 13)


def test_vector_conditioning_must_match_the_network(loaded):
    name, model = loaded
    latent, times, context, vector = inputs(name)
    with pytest.raises(ValueError, match="vector conditioning"):
        model.diffusion_model(latent, times, context, y=torch.zeros(2, 4) if vector is None else None)


def test_attention_variants_agree():
    q, k, v = (torch.randn(2, tokens, 24) for tokens in (9, 5, 5))
    mask = torch.randn(9, 5)
    torch.testing.assert_close(attention_basic(q, k, v, 3), attention_pytorch(q, k, v, 3))
    torch.testing.assert_close(attention_basic(q, k, v, 3, mask=mask), attention_pytorch(q, k, v, 3, mask=mask))
    torch.testing.assert_close(attention_basic(q, k, v, 3, mask=mask > -1), attention_pytorch(q, k, v, 3, mask=mask > -1))
    split = [tensor.view(2, -1, 3, 8).transpose(1, 2) for tensor in (q, k, v)]
    out = attention_pytorch(*split, 3, skip_reshape=True, skip_output_reshape=True)
    torch.testing.assert_close(out.transpose(1, 2).reshape(2, 9, 24), attention_pytorch(q, k, v, 3))


def test_a_replaced_attention_function_is_looked_up_at_call_time(loaded, monkeypatch):
    name, model = loaded
    calls = []

    def counted(*args, **kwargs):
        calls.append(1)
        return attention_pytorch(*args, **kwargs)

    monkeypatch.setattr("comfy.ldm.modules.attention.optimized_attention", counted)
    run(model, name)
    assert len(calls) == sum(isinstance(module, CrossAttention) for module in model.diffusion_model.modules())
