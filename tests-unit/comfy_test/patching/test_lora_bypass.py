"""Changes beside the weights give what changes of the weights give."""

import pytest
import torch
from residency_models import management, patcher_of

import comfy.lora
from comfy.loading.lora import load_bypass_lora_for_models, load_lora_for_models
from comfy.weight_adapter import BypassForwardHook


class Network(torch.nn.Module):
    """A convolution, a flattening and a linear layer, as a diffusion model."""

    def __init__(self):
        super().__init__()
        layers = torch.nn.Conv2d(4, 6, 3, stride=2, padding=1), torch.nn.Flatten(), torch.nn.Linear(96, 5)
        self.diffusion_model = torch.nn.Sequential(*layers)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.requires_grad_(False).copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x):
        return self.diffusion_model(x)


def numbers(*shape, seed=1):
    return 0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


FILES = {
    "lora": {
        "0.lora_up.weight": numbers(6, 2, 1, 1),
        "0.lora_down.weight": numbers(2, 4, 3, 3),
        "0.alpha": torch.tensor(1.0),
        "2.lora_up.weight": numbers(5, 2),
        "2.lora_down.weight": numbers(2, 96),
        "2.diff_b": numbers(5),
    },
    "locon": {"0.lora_up.weight": numbers(6, 2, 1, 1), "0.lora_down.weight": numbers(2, 4, 1, 1), "0.lora_mid.weight": numbers(2, 2, 3, 3)},
    "loha": {
        "2.hada_w1_a": numbers(5, 2),
        "2.hada_w1_b": numbers(2, 96),
        "2.hada_w2_a": numbers(5, 2, seed=2),
        "2.hada_w2_b": numbers(2, 96),
    },
    "lokr": {"2.lokr_w1": numbers(5, 4), "2.lokr_w2": numbers(1, 24)},
    "oft": {"0.oft_blocks": numbers(3, 2, 2)},
}


@pytest.mark.parametrize("kind", FILES)
def test_the_result_is_that_of_patched_weights(kind):
    file = {f"lora_unet_{key}": value for key, value in FILES[kind].items()}
    picture = numbers(3, 4, 8, 8)
    with management() as manager:
        model = patcher_of(Network())
        plain = model.model(picture)
        patched, _ = load_lora_for_models(model, None, file, 0.7, 0)
        manager.load_models_gpu([patched])
        expected = patched.model(picture)
        beside, _ = load_bypass_lora_for_models(model, None, file, 0.7, 0)
        manager.load_models_gpu([beside])
        torch.testing.assert_close(beside.model(picture), expected)
        assert not torch.allclose(expected, plain)
        adapters = [key for key in beside.patches if key.endswith("weight")]
        assert bool(adapters) == (kind == "oft"), "only what cannot be added is patched in"
        twice, _ = load_bypass_lora_for_models(beside, None, file, 0.7, 0)
        once_more = {patcher: last_layer(manager, patcher) for patcher in (model, beside, twice, beside, model)}
        if kind in ("loha", "lokr"):
            torch.testing.assert_close(once_more[twice] - once_more[model], 2 * (once_more[beside] - once_more[model]))
        manager.load_models_gpu([model])
        assert torch.equal(model.model(picture), plain) and "forward" not in model.model.diffusion_model[2].__dict__


def last_layer(manager, patcher):
    manager.load_models_gpu([patcher])
    return patcher.model.diffusion_model[2](numbers(2, 96))


def test_only_linear_layers_and_convolutions_can_be_bypassed():
    with pytest.raises(TypeError, match="LayerNorm"):
        BypassForwardHook(torch.nn.LayerNorm(3), comfy.lora.load_lora({}, {}), 1.0)
