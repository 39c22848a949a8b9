"""What node packs do with the blocks of UNets, ControlNets and autoencoders: walk, index, replace, patch and build them."""

import pytest
import torch
from small_models import small_checkpoint

import comfy.ops
import comfy.sd
from benchmarks.make_checkpoint import family
from comfy.cldm.cldm import ControlNet
from comfy.ldm.modules import attention
from comfy.ldm.modules.attention_functions import attention_basic, attention_pytorch
from comfy.ldm.modules.diffusionmodules import model as autoencoder_layers
from comfy.ldm.modules.diffusionmodules import openaimodel, unet_layers
from comfy.ldm.modules.diffusionmodules.unet_blocks import UNetBlocks
from comfy.ldm.modules.diffusionmodules.unet_layers import Downsample, ResBlock, Upsample


@pytest.fixture(scope="module")
def patcher():
    return comfy.sd.load_diffusion_model(small_checkpoint("sd15", parts=("unet",)))


@pytest.fixture(scope="module")
def vae():
    return comfy.sd.load_checkpoint_guess_config(small_checkpoint(), output_model=False, output_clip=False)[2]


def predict(patcher):
    generator = torch.Generator().manual_seed(3)
    network = patcher.model.diffusion_model
    latent = torch.randn(2, 4, 16, 16, generator=generator)
    context = torch.randn(2, 7, network.config.context_dim, generator=generator)
    with torch.inference_mode():
        return network(latent, torch.tensor([500.0, 20.0]), context)


def initialised(layer):
    generator = torch.Generator().manual_seed(1)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    return layer.eval().requires_grad_(False)


def test_blocks_are_modules_with_children_in_the_published_order(patcher):
    network = patcher.model.diffusion_model
    assert (len(network.input_blocks), len(network.middle_block), len(network.output_blocks)) == (12, 3, 12)
    assert all(isinstance(block, openaimodel.TimestepEmbedSequential) for block in [*network.input_blocks, *network.output_blocks])
    kinds = [type(layer).__name__ for layer in network.output_blocks[5].children()]
    assert kinds == ["ResBlock", "SpatialTransformer", "Upsample"]
    block = network.input_blocks[1][1].transformer_blocks[0]
    assert dict(network.named_modules())["input_blocks.1.1.transformer_blocks.0.attn2.to_out.0"] is block.attn2.to_out[0]
    assert isinstance(network.middle_block[0].in_layers[2], comfy.ops.disable_weight_init.Conv2d)
    assert network.input_blocks[1][0].channels == network.model_channels
    assert isinstance(network.input_blocks[3][0], openaimodel.Downsample) and network.input_blocks[3][0].op.stride == (2, 2)


@pytest.mark.parametrize(
    "path", ["input_blocks.4.1", "middle_block.1", "output_blocks.3.0", "time_embed", "out", "input_blocks.1.0.in_layers.0"]
)
def test_an_object_patch_replaces_a_whole_block_while_it_holds(patcher, path):
    plain, name = predict(patcher), f"diffusion_model.{path}"
    before = patcher.get_model_object(name)

    class Doubled(torch.nn.Module):
        def forward(self, *args, **kwargs):
            return before(*args, **kwargs) * 2

    class DoubledResidual(Doubled, openaimodel.TimestepBlock):
        pass

    class DoubledTransformer(Doubled, attention.SpatialTransformer):
        def __init__(self):
            torch.nn.Module.__init__(self)

    kinds = {openaimodel.ResBlock: DoubledResidual, attention.SpatialTransformer: DoubledTransformer}
    call = before.forward
    for replacement, own in (
        (f"{name}.forward", lambda *args, **kwargs: call(*args, **kwargs) * 2),
        (name, kinds.get(type(before), Doubled)()),
    ):
        patched = patcher.clone()
        patched.add_object_patch(replacement, own)
        patched.patch_model()
        changed = predict(patched)
        patched.unpatch_model()
        assert not torch.allclose(changed, plain, atol=1e-4)
        assert patcher.get_model_object(name) is before and torch.equal(predict(patcher), plain)


def test_a_replaced_class_forward_takes_effect(patcher, monkeypatch):
    plain = predict(patcher)
    for kind, name in ((attention.BasicTransformerBlock, "forward"), (openaimodel.ResBlock, "_forward"), (openaimodel.Upsample, "forward")):
        before = getattr(kind, name)
        monkeypatch.setattr(kind, name, lambda self, *args, _before=before, **kwargs: _before(self, *args, **kwargs) * 1.5)
        assert not torch.allclose(predict(patcher), plain, atol=1e-4), kind
        monkeypatch.setattr(kind, name, before)


def test_a_replaced_walk_takes_effect(patcher, monkeypatch):
    seen = []
    walk = openaimodel.forward_timestep_embed

    def counted(block, *args, **kwargs):
        seen.append(block)
        return walk(block, *args, **kwargs)

    monkeypatch.setattr(openaimodel, "forward_timestep_embed", counted)
    predict(patcher)
    network = patcher.model.diffusion_model
    assert [*map(id, seen)] == [*map(id, [*network.input_blocks, network.middle_block, *network.output_blocks])]


@pytest.mark.parametrize(
    "options", [{}, {"use_scale_shift_norm": True}, {"up": True}, {"down": True}, {"skip_t_emb": True}, {"use_conv": True}], ids=str
)
def test_packs_build_residual_blocks(options):
    block = initialised(ResBlock(32, 16, 0.0, out_channels=64, **options))
    x, emb = torch.randn(2, 32, 8, 8), torch.randn(2, 16)
    side = 16 if "up" in options else 4 if "down" in options else 8
    assert block(x, emb).shape == (2, 64, side, side)
    assert (block.emb_layers is None) == ("skip_t_emb" in options)
    assert torch.equal(block(x, emb), block(x, emb * 2)) == ("skip_t_emb" in options)


def test_size_changes_keep_the_length_of_frames():
    frames = torch.randn(1, 4, 3, 6, 6)
    assert Upsample(4, False, dims=3)(frames).shape == (1, 4, 3, 12, 12)
    assert Downsample(4, False, dims=3)(frames).shape == (1, 4, 3, 3, 3)
    assert Upsample(4, False)(frames[:, :, 0], output_shape=(1, 4, 11, 11)).shape == (1, 4, 11, 11)
    with pytest.raises(ValueError, match="use_conv=True"):
        Downsample(4, False, out_channels=8)


def test_packs_build_transformers():
    layer = initialised(attention.SpatialTransformer(32, 4, 8, depth=2, context_dim=16, use_linear=True))
    assert layer(torch.randn(2, 32, 4, 4), torch.randn(2, 5, 16)).shape == (2, 32, 4, 4)
    block = initialised(attention.BasicTransformerBlock(32, 4, 8, ff_in=True, disable_temporal_crossattention=True))
    assert block.attn2 is None and block(torch.randn(2, 5, 32)).shape == (2, 5, 32)
    with pytest.raises(ValueError, match="set one of the two"):
        attention.BasicTransformerBlock(32, 4, 8, disable_temporal_crossattention=True, switch_temporal_ca_to_sa=True)


@pytest.mark.parametrize("attend", [attention_pytorch, attention_basic])
def test_keys_are_cut_like_queries(attend):
    """A pack cuts the queries into tiles along the batch and leaves keys and values whole; they belong to the tiles in order."""
    q, k, v = torch.randn(8, 4, 16), torch.randn(2, 16, 16), torch.randn(2, 16, 16)
    cut = attend(q, k.view(8, 4, 16), v.view(8, 4, 16), 2)
    assert torch.allclose(attend(q, k, v, 2), cut, atol=1e-6)


def test_the_numbered_blocks_sum_their_channels(patcher):
    network = patcher.model.diffusion_model
    blocks = UNetBlocks(network.config, comfy.ops.disable_weight_init)
    assert len(blocks.input_blocks()) == 12 and len(blocks.skip_channels) == 12
    assert network._feature_size > sum(blocks.skip_channels)


def test_the_autoencoder_is_walked_by_hand(vae):
    """The walk of packs that decode in tiles layer by layer gives what the decoder gives."""
    decoder, latent = vae.first_stage_model.decoder, torch.randn(1, 4, 6, 5)
    assert decoder.num_resolutions == len(decoder.up) == 4 and isinstance(decoder.mid.attn_1, autoencoder_layers.AttnBlock)
    with torch.inference_mode():
        h = decoder.mid.block_2(decoder.mid.attn_1(decoder.mid.block_1(decoder.conv_in(latent), None)), None)
        for level in reversed(range(decoder.num_resolutions)):
            for block in decoder.up[level].block:
                h = block(h, None)
            if level:
                h = decoder.up[level].upsample(h)
        h = decoder.conv_out(autoencoder_layers.nonlinearity(decoder.norm_out(h)))
        assert torch.equal(h, decoder(latent))
    encoder = vae.first_stage_model.encoder
    assert encoder.num_resolutions == 4 and not hasattr(encoder.down[3], "downsample")
    assert {"decoder.mid.attn_1.q.weight", "encoder.down.0.downsample.conv.bias"} <= vae.first_stage_model.state_dict().keys()


def test_a_one_by_one_convolution_is_a_product_over_positions():
    layer = initialised(autoencoder_layers.PointwiseConv2d(8, 8, 1))
    x = torch.randn(2, 8, 3, 5)
    assert torch.allclose(layer(x), torch.nn.functional.conv2d(x, layer.weight, layer.bias), atol=1e-6)
    assert unet_layers.NORM_GROUPS == 32


def unet_arguments(**changes):
    return {**family("sd15", 10).unet.as_dict(), **changes}


@pytest.mark.parametrize("network", [openaimodel.UNetModel, ControlNet])
@pytest.mark.parametrize(
    "change",
    [
        {"dims": 3},
        {"use_temporal_attention": True},
        {"use_scale_shift_norm": True},
        {"num_heads_upsample": 3},
        {"conv_resample": 1},
        {"num_classes": 10},
        {"attn_precision": torch.float32},
        {"max_ddpm_temb_period": 1000},
    ],
    ids=str,
)
def test_arguments_that_ask_for_another_network_are_refused(network, change):
    (name,) = change
    with pytest.raises(ValueError, match=rf"{network.__name__} with {name}=.* is not supported"):
        network(**unet_arguments(**change))


@pytest.mark.parametrize("network", [openaimodel.UNetModel, ControlNet])
def test_arguments_without_effect_are_accepted_and_unknown_ones_are_not(network):
    made = network(**unet_arguments(dropout=0.1, use_checkpoint=True, legacy=True, image_size=64, num_heads_upsample=8, n_embed=None))
    assert made.num_heads_upsample == made.num_heads
    with pytest.raises(TypeError, match="no argument 'nonsense'"):
        network(**unet_arguments(nonsense=1))


@pytest.mark.parametrize("half", [autoencoder_layers.Encoder, autoencoder_layers.Decoder])
def test_halves_of_an_autoencoder_refuse_what_would_be_another_one(half):
    sizes = {"ch": 32, "out_ch": 3, "in_channels": 3, "z_channels": 4, "num_res_blocks": 1, "ch_mult": (1, 2), "resolution": 64}
    half(**sizes, attn_resolutions=[], use_linear_attn=False, attn_type="vanilla", time_compress=None, double_z=True)
    for change in ({"attn_resolutions": [32]}, {"attn_type": "linear"}, {"conv3d": True}):
        with pytest.raises(ValueError, match=f"{half.__name__} with .* is not supported"):
            half(**sizes, **change)
    with pytest.raises(TypeError, match="no argument 'nonsense'"):
        half(**sizes, nonsense=1)
    with pytest.raises(ValueError, match="make_attn with attn_type='none'"):
        autoencoder_layers.make_attn(32, attn_type="none")
