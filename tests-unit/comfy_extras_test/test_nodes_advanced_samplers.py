import asyncio

import pytest
import torch

from comfy.k_diffusion import sampling
from comfy.sampling.cfg_pp import sample_euler_pp
from comfy_extras import nodes_advanced_samplers as advanced

SIGMAS = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.0])


@pytest.mark.parametrize(("steps", "sizes"), [(None, [(8, 4), (12, 6), (16, 8), (16, 8)]), (1, [(8, 4), (16, 8), (16, 8), (16, 8)])])
def test_the_latent_grows_in_its_first_steps(steps, sizes):
    seen = []

    def model(x, sigma):
        seen.append(tuple(x.shape[-2:]))
        return x * 0.5

    x = torch.ones(1, 4, 8, 4)
    options = {"total_upscale": 2.0, "upscale_method": "bilinear", "upscale_steps": steps}
    out = advanced.sample_lcm_upscale(model, x, SIGMAS, disable=True, **options)
    assert (seen, tuple(out.shape)) == (sizes, (1, 4, 16, 8))


def test_nodes_choose_function_and_options():
    (sampler,) = advanced.SamplerLCMUpscale.execute(1.5, -1, "area").args
    assert sampler.sampler_function is advanced.sample_lcm_upscale
    assert sampler.extra_options == {"total_upscale": 1.5, "upscale_steps": None, "upscale_method": "area"}
    (sampler,) = advanced.SamplerLCM.execute(1, 0.5, 0).args
    assert (sampler.sampler_function, sampler.extra_options["s_noise_end"]) == (sampling.sample_lcm, 0.5)
    versions = [advanced.SamplerEulerCFGpp.execute(version).args[0].sampler_function for version in ("regular", "alternative")]
    assert versions == [sampling.sample_euler_cfg_pp, sample_euler_pp]


def test_the_extension_lists_its_nodes():
    extension = asyncio.run(advanced.comfy_entrypoint())
    names = [node.GET_SCHEMA().node_id for node in asyncio.run(extension.get_node_list())]
    assert names == ["SamplerLCMUpscale", "SamplerLCM", "SamplerEulerCFGpp"]
