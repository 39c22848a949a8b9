"""Model patches of video models: Uni3C's ControlNet of Wan, and LTX's duration head."""

import types

import pytest
import torch
from transformer_files import lllite_tensors
from video_patch_files import duration_tensors, patch_file, uni3c_tensors
from wan_files import wan_tensors

import comfy.model_management
import comfy.sd
from comfy.control.uni3c import Uni3CPatch
from comfy.families.model_errors import IncompleteModelError
from comfy.ldm.lightricks.duration_head import DurationHead, seconds_to_num_frames
from comfy.ldm.wan.uni3c import MaskCamEmbed, WanUni3CControlnet
from comfy.loading.model_patch import load_model_patch
from comfy_extras.ltx_duration_node import LTXVDurationPredictor
from comfy_extras.nodes_model_patch import WanUni3CControlnetApply

CONTEXT = 64


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Autoencoder:
    """Stands for Wan's: a cell holds the mean of its pixels, of one frame of four; it counts how often it is asked."""

    latent_channels, latent_dim, source_name = 16, 3, "vae.safetensors"

    def __init__(self):
        self.asked = []

    def spacial_compression_encode(self):
        return 8

    def temporal_compression_decode(self):
        return 4

    def encode(self, frames):
        self.asked.append(tuple(frames.shape))
        return torch.nn.functional.avg_pool2d(frames[::4].movedim(-1, 1), 8).mean(dim=1).expand(16, -1, -1, -1)[None].clone()


def controlnet(folder, **sizes):
    return load_model_patch(patch_file(folder / "uni3c.safetensors", uni3c_tensors(**sizes)))


def wan(kind="t2v", **sizes):
    return comfy.sd.load_diffusion_model_state_dict(wan_tensors(kind, depth=3, **sizes), model_options={"dtype": torch.float32})


def applied(folder, model=None, vae=None, patch=None, film=None, strength=1.0, start=0.0, end=1.0):
    """(the model, the patch on it)."""
    film = torch.rand(9, 48, 64, 4, generator=torch.Generator().manual_seed(5)) if film is None else film
    inputs = (patch or controlnet(folder), vae or Autoencoder(), film, strength, start, end)
    made = WanUni3CControlnetApply().apply_patch(model or wan(), *inputs)[0]
    (found,) = made.model_options["transformer_options"]["patches"]["double_block"]
    return made, found


def moved(model, sides=(3, 6, 8), sigma=0.5, batch=1, prompts=(0,)):
    """What the network of *model* makes of some latents, with its patches."""
    options = {**model.model_options["transformer_options"], "sigmas": torch.tensor([sigma]), "cond_or_uncond": list(prompts)}
    network = model.model.diffusion_model
    x = numbers(batch, network.patch_embedding.weight.shape[1], *sides).repeat(len(prompts), 1, 1, 1, 1)
    times = torch.full((len(x),), 500.0)
    return network(x, times, numbers(len(x), 5, CONTEXT, seed=1), transformer_options=options)


def test_a_controlnet_is_told_by_its_tensors(tmp_path, caplog):
    network = controlnet(tmp_path, blocks=3).model
    assert type(network) is WanUni3CControlnet and (network.num_layers, network.in_channels, network.time_embed_dim) == (3, 36, 128)
    assert not caplog.records and network.source_name.endswith("uni3c.safetensors")
    half = load_model_patch(patch_file(tmp_path / "half.safetensors", uni3c_tensors(), torch.bfloat16)).model
    dtypes = {name: value.dtype for name, value in half.named_parameters()}
    assert {name for name, dtype in dtypes.items() if dtype == torch.float32} == {
        "controlnet_patch_embedding.weight",
        "controlnet_patch_embedding.bias",
    }
    tensors = uni3c_tensors()
    del tensors["controlnet_blocks.1.self_attn.to_out.0.bias"]
    with pytest.raises(IncompleteModelError, match=r"controlnet_blocks\.1\.self_attn\.o\.bias"):
        load_model_patch(patch_file(tmp_path / "damaged.safetensors", tensors))


def test_the_published_sizes_are_the_usual_ones():
    with torch.device("meta"):
        network = WanUni3CControlnet(operations=torch.nn)
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    assert shapes["controlnet_patch_embedding.weight"] == (5120, 36, 1, 2, 2) and shapes["proj_in.weight"] == (1024, 5120)
    assert shapes["controlnet_blocks.19.norm2.linear.weight"] == (3072, 5120) and shapes["proj_out.19.weight"] == (5120, 1024)
    assert shapes["controlnet_mask_embedding.mask_proj.0.weight"] == (256, 7, 4, 8, 8)


def test_a_rendering_changes_the_video_by_its_strength(tmp_path):
    model, patch = wan(), controlnet(tmp_path)
    plain = moved(model)
    whole = moved(applied(tmp_path, model, patch=patch)[0])
    nothing = moved(applied(tmp_path, model, patch=patch, strength=0.0)[0])
    other = moved(applied(tmp_path, model, patch=patch, film=torch.zeros(9, 48, 64, 3))[0])
    torch.testing.assert_close(nothing, plain)
    assert not any(torch.allclose(one, another, atol=1e-3) for one, another in ((whole, plain), (whole, other), (other, plain)))


def test_it_acts_in_its_share_of_the_sampling(tmp_path):
    model = wan()
    plain, (made, patch) = moved(model), applied(tmp_path, model, start=0.2, end=0.6)
    assert 1 > patch.sigma_start > patch.sigma_end > 0
    middle = (patch.sigma_start + patch.sigma_end) / 2
    same = [torch.allclose(moved(made, sigma=sigma), plain, atol=1e-4) for sigma in (1.0, middle, 0.0)]
    assert same == [True, False, True]


def test_a_rendering_is_encoded_once_for_each_size_and_as_long_as_the_video(tmp_path):
    vae = Autoencoder()
    made, _ = applied(tmp_path, vae=vae, film=torch.rand(6, 40, 90, 3))
    for sides in ((3, 6, 8), (3, 6, 8), (2, 4, 6), (2, 4, 6)):
        moved(made, sides)
    assert vae.asked == [(9, 48, 64, 3), (5, 32, 48, 3)]


def test_prompts_share_what_is_made_of_their_latents(tmp_path, monkeypatch):
    made, patch = applied(tmp_path)
    network, seen = patch.model_patch.model, []
    process = network.process_input
    monkeypatch.setattr(network, "process_input", lambda given: (seen.append(tuple(given.shape)), process(given))[1])
    both = moved(made, prompts=(0, 1))
    assert seen == [(1, 36, 3, 6, 8)] and both.shape[0] == 2
    torch.testing.assert_close(moved(made), both[:1], rtol=1e-4, atol=1e-5)
    assert patch._going is None


def test_a_mask_of_a_picture_to_video_is_seen(tmp_path):
    made, patch = applied(tmp_path, wan(channels=36))
    inputs, process = [], patch.model_patch.model.process_input
    patch.model_patch.model.process_input = lambda given: (inputs.append(given), process(given))[1]
    moved(made)
    del patch.model_patch.model.process_input
    assert torch.equal(inputs[0][:, :20], numbers(1, 36, 3, 6, 8)[:, :20])
    applied_text, patch = applied(tmp_path)
    patch.model_patch.model.process_input = lambda given: (inputs.append(given), process(given))[1]
    moved(applied_text)
    assert not inputs[1][:, 16:20].any() and inputs[1].shape[1] == 36


def test_it_moves_with_the_model_and_names_its_network(tmp_path):
    _, patch = applied(tmp_path)
    patch.seen = torch.zeros(1)
    assert isinstance(patch, Uni3CPatch) and patch.to(torch.device("meta")) is patch and patch.seen.is_meta
    assert patch.models() == [patch.model_patch] and patch.to(torch.float16).seen.dtype == torch.float32


def test_other_models_and_patches_are_refused_by_name(tmp_path):
    patch = controlnet(tmp_path)
    with pytest.raises(ValueError, match=r"uni3c\.safetensors changes a WAN21 of \{'dim': 128\}.* holds a WAN21 of \{'dim': 256\}"):
        applied(tmp_path, wan(width=256), patch=patch)
    vae = Autoencoder()
    vae.latent_channels = 48
    with pytest.raises(ValueError, match=r"latents of 16 channels.* of 48"):
        applied(tmp_path, vae=vae, patch=patch)
    other = load_model_patch(patch_file(tmp_path / "lllite.safetensors", lllite_tensors(far=False)))
    with pytest.raises(ValueError, match=r"lllite\.safetensors is no ControlNet of Uni3C"):
        applied(tmp_path, patch=other)
    with pytest.raises(ValueError, match=r"lllite\.safetensors is no duration head"):
        told(other)


def test_what_is_known_of_a_rendering_can_be_tokens_too(tmp_path):
    embedding = MaskCamEmbed(7, 16, 24, operations=torch.nn)
    assert embedding(numbers(1, 7, 9, 48, 64)).shape == (1, 3 * 3 * 4, 24)
    network = controlnet(tmp_path).model
    given = numbers(1, 36, 3, 6, 8)
    plain, turns = network.process_input(given)
    known, same = network.process_input(given, numbers(1, 1, 9, 48, 64), numbers(1, 6, 9, 48, 64, seed=2))
    assert plain.shape == known.shape == (1, 36, 192) and torch.equal(turns, same) and not torch.allclose(plain, known)


def head(folder, name="head", **given):
    return load_model_patch(patch_file(folder / f"{name}.safetensors", duration_tensors(32, 16, **given)))


def told(patch, rate=24.0, least=1.0, most=20.0, said=None, network=None):
    tokens = numbers(1, 12, 48, seed=4) if said is None else said
    if network is None:
        network = types.SimpleNamespace(cross_attention_dim=32, preprocess_text_embeds=lambda given, unprocessed: given)
    base = types.SimpleNamespace(diffusion_model=network, get_dtype_inference=lambda: torch.float32)
    model = types.SimpleNamespace(model=base, load_device=torch.device("cpu"))
    return LTXVDurationPredictor.execute(model, [[tokens, {}]], patch, rate, least, most).args


@pytest.fixture
def _nothing_is_brought_to_a_device(monkeypatch):
    monkeypatch.setattr(comfy.model_management, "load_models_gpu", lambda models: None)


@pytest.mark.usefixtures("_nothing_is_brought_to_a_device")
def test_a_prompt_tells_how_long_its_shot_is(tmp_path):
    patch = head(tmp_path)
    frames, seconds = told(patch)
    assert isinstance(frames, int) and frames % 8 == 1 and abs(frames - seconds * 24) <= 8 and 1 < seconds < 20
    assert told(patch, said=numbers(3, 12, 48, seed=4))[1] == told(patch, said=numbers(3, 12, 48, seed=4)[:1])[1]
    assert told(patch, said=numbers(1, 12, 48, seed=9))[1] != seconds
    assert told(patch, least=15.0)[0] >= 360 and told(patch, least=0.5, most=0.5)[0] <= 12


@pytest.mark.usefixtures("_nothing_is_brought_to_a_device")
def test_models_without_connectors_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has no connectors for videos and sound"):
        told(head(tmp_path), network=object())


@pytest.mark.parametrize("prefix", ["", "duration_head.", "model.diffusion_model.duration_head."])
def test_a_head_is_found_alone_and_in_a_checkpoint_and_kept_in_float32(tmp_path, prefix):
    tensors = duration_tensors(32, 16, prefix=prefix)
    network = load_model_patch(patch_file(tmp_path / "head.safetensors", tensors, torch.bfloat16)).model
    assert type(network) is DurationHead and {value.dtype for value in network.parameters()} == {torch.float32}
    assert torch.equal(network.mlp_out.weight, tensors[f"{prefix}mlp_out.weight"].bfloat16().float())


def test_one_kind_of_tokens_is_enough(tmp_path):
    network = head(tmp_path).model
    video, sound = numbers(2, 5, 32), numbers(2, 7, 16)
    results = [network(video, sound), network(video), network(audio_tokens=sound)]
    assert all(one.shape == (2,) and one.min() > 0 for one in results) and len({float(one[0]) for one in results}) == 3
    with pytest.raises(ValueError, match="there are none"):
        network()


@pytest.mark.parametrize(
    ("seconds", "rate", "least", "most", "expected"),
    [
        (5.0, 24, 1, 20, 113),
        (0.1, 24, 1, 20, 25),
        (100.0, 24, 1, 20, 473),
        (2.0, 25, 2, 3, 57),
        (1.0, 12.5, 1, 1.1, 14),
        (1.0, 24, 8, 4, 96),
    ],
)
def test_seconds_become_frames_that_latents_have(seconds, rate, least, most, expected):
    assert seconds_to_num_frames(seconds, rate, least, most) == expected
