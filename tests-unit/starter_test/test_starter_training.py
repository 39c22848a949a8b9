"""The loops that train the starter models, a few steps each, and the file they end in."""

import json

import pytest
import safetensors.torch
import torch

from comfy.sd import load_checkpoint_guess_config
from starter.autoencoder import latent_bank, train_autoencoder, unit_latents
from starter.data import Digits, split_digits
from starter.diffusion import add_noise, euler, signal_shares
from starter.export import build_networks, published_tensors, read_checkpoint, write_checkpoint
from starter.prompts import PromptTokens
from starter.sizes import LATENT_SCALE, TEXT, checkpoint_shapes
from starter.steps import AveragedWeights, cosine_rate, optimize
from starter.text_encoder import prompt_bank, train_text_encoder
from starter.unet import train_unet


@pytest.fixture(scope="module")
def few_digits():
    """Forty digits."""
    kept, _ = split_digits()
    return Digits(kept.ink[:40], kept.labels[:40])


@pytest.fixture(scope="module")
def networks():
    """Untrained networks from a fixed seed."""
    torch.manual_seed(0)
    return build_networks()


@pytest.fixture(scope="module")
def written(networks, tmp_path_factory):
    """Their checkpoint."""
    path = tmp_path_factory.mktemp("starter") / "starter.safetensors"
    assert write_checkpoint(path, networks) <= 16_000_000
    return path


def test_steps_rise_then_decay():
    rates = [cosine_rate(step, 1000) for step in range(1000)]
    assert rates[0] < 0.03 and max(rates) > 0.98 and rates[-1] < 0.02


def test_optimize_lowers_the_loss_and_refuses_nan():
    weight = torch.nn.Parameter(torch.tensor([3.0]))
    optimize([weight], lambda step: weight.square().sum(), 200, 0.1, "square")
    assert abs(weight.item()) < 0.5
    with pytest.raises(FloatingPointError, match="square"):
        optimize([weight], lambda step: (weight * float("nan")).sum(), 2, 0.1, "square")


def test_averaged_weights_lie_between_the_old_and_the_new():
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(layer.weight, 0.0)
    average = AveragedWeights(layer, 0.9)
    torch.nn.init.constant_(layer.weight, 1.0)
    for _ in range(5):
        average.update()
    average.store()
    assert 0.9 < layer.weight.item() < 1.0


def test_text_encoder_learns_and_its_bank_begins_with_the_empty_prompt():
    torch.manual_seed(0)
    text = build_networks().text
    tokens = PromptTokens()
    assert train_text_encoder(text, tokens, seed=0, steps=40) > 0.25
    bank = prompt_bank(text, tokens, seed=0, per_class=4)
    assert bank.shape == (11, 4, TEXT.positions, TEXT.hidden_size)
    with torch.no_grad():
        empty = text(input_ids=tokens.rows([""])).last_hidden_state[0]
    assert torch.allclose(bank[10, 0], empty, atol=1e-5)


def test_autoencoder_learns_and_its_latents_get_unit_variance_without_changing_pictures(few_digits):
    torch.manual_seed(0)
    vae = build_networks().vae
    generator = torch.Generator().manual_seed(0)
    train_autoencoder(vae, few_digits, generator, steps=2)
    latents, labels = latent_bank(vae, few_digits, "digits", 2, torch.Generator().manual_seed(1))
    assert latents.shape == (80, 4, 8, 8) and labels.shape == (80,)
    with torch.no_grad():
        before = vae.decode(latents[:2]).sample
        unit = unit_latents(vae, latents)
        after = vae.decode(unit[:2] / LATENT_SCALE).sample
    assert torch.allclose(unit.std((0, 2, 3)), torch.ones(4), atol=1e-3) and unit.mean((0, 2, 3)).abs().max() < 1e-3
    assert torch.allclose(before, after, atol=1e-3)
    again, _ = latent_bank(vae, few_digits, "digits", 2, torch.Generator().manual_seed(1))
    assert torch.allclose(again * LATENT_SCALE, unit, atol=1e-3)


def test_unet_training_changes_weights_and_stays_finite():
    torch.manual_seed(0)
    unet = build_networks().unet
    before = unet.conv_out.weight.detach().clone()
    train_unet(unet, torch.randn(12, 4, 8, 8), torch.arange(12) % 10, torch.randn(11, 3, 77, 64), torch.Generator().manual_seed(0), steps=2)
    assert not torch.equal(before, unet.conv_out.weight) and all(value.isfinite().all() for value in unet.parameters())


def test_noise_follows_stable_diffusion_and_euler_finds_a_known_latent():
    shares = signal_shares()
    assert shares.shape == (1000,) and shares[0] == pytest.approx(0.99915, abs=1e-4) and shares[-1] == pytest.approx(0.00466, abs=1e-4)
    target, noise = torch.full((2, 4, 8, 8), 0.5), torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(add_noise(target, noise, torch.ones(2)), target)

    class Oracle:
        """Predicts the noise that leads from the target to what it is shown."""

        def __call__(self, x, time, contexts):
            share = shares[time]
            self.sample = (x - share.sqrt() * 0.5) / (1 - share).sqrt()
            return self

    states = torch.zeros(2, 77, 64)
    found = euler(Oracle(), states, states, noise)
    assert torch.allclose(found, target, atol=1e-3)


def test_tensors_have_the_published_names_and_shapes(networks):
    tensors = published_tensors(networks)
    assert {key: tuple(tensor.shape) for key, tensor in tensors.items()} == checkpoint_shapes()
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    for key in (
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
        "model.diffusion_model.output_blocks.1.1.conv.weight",
        "model.diffusion_model.out.2.bias",
        "cond_stage_model.transformer.text_model.encoder.layers.1.self_attn.q_proj.weight",
        "first_stage_model.encoder.down.2.downsample.conv.weight",
        "first_stage_model.decoder.mid.attn_1.q.weight",
        "first_stage_model.quant_conv.weight",
    ):
        assert key in tensors
    assert tensors["first_stage_model.decoder.mid.attn_1.q.weight"].ndim == 4


def test_file_read_back_gives_the_same_networks(networks, written):
    again = read_checkpoint(written)
    for prefix, (network, _) in networks.parts().items():
        for (name, value), (_, other) in zip(network.named_parameters(), again.parts()[prefix][0].named_parameters()):
            assert torch.equal(value.half().float(), other), prefix + name
    with safetensors.safe_open(str(written), framework="pt") as file:
        assert json.loads(file.metadata()["keepwarm.config"])["unet"] == {"num_heads": 8}
    assert [entry.name for entry in written.parent.iterdir()] == [written.name]


def test_other_file_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(1)}, str(path))
    with pytest.raises(ValueError, match="not a starter checkpoint"):
        read_checkpoint(path)


def test_server_loads_the_file_and_computes_what_the_networks_compute(networks, written):
    model, clip, vae, _ = load_checkpoint_guess_config(str(written))
    again = read_checkpoint(written)
    with torch.inference_mode():
        states = clip.encode_from_tokens(clip.tokenize("a handwritten seven"))
        expected = again.text(input_ids=PromptTokens().rows(["a handwritten seven"])).last_hidden_state
        assert torch.allclose(states.float(), expected, atol=2e-3)
        latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        network = model.model.diffusion_model
        prediction = network.float()(latent, torch.tensor([500.0]), context=expected)
        assert torch.allclose(prediction, again.unet(latent, 500, expected).sample, atol=1e-3)
        picture = vae.decode(latent).movedim(-1, 1).float()
        assert torch.allclose(picture, (again.vae.decode(latent).sample / 2 + 0.5).clamp(0, 1), atol=1e-2)
