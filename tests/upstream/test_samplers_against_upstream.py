"""Every sampler gives upstream's latents: same model function, sigmas and seed.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream/test_samplers_against_upstream.py
"""

import os
import pathlib
import subprocess
import sys

import pytest
import torch

from comfy.sampling.sampler_table import SAMPLER_NAMES

CHECKOUT = os.environ.get("KEEPWARM_UPSTREAM_CHECKOUT")
PYTHON = os.environ.get("KEEPWARM_UPSTREAM_PYTHON")
PROJECT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = pathlib.Path(__file__).with_name("sampler_runs.py")
BOUND = 1e-4
SETTINGS = (
    "seeds_2,solver_type='phi_2',r=0.3",
    "exp_heun_2_x0_sde,solver_type='phi_1',eta=0.5",
    "er_sde,max_stage=2,s_noise=0.7",
    "sa_solver,simple_order_2=True,predictor_order=2,corrector_order=2",
    "sa_solver,corrector_order=0",
    "dpm_adaptive,order=2,rtol=0.01",
    "dpm_adaptive,eta=0.4,pcoeff=0.2,dcoeff=0.1",
    "deis,max_order=2",
    "deis,max_order=4",
    "ipndm,max_order=2",
    "ipndm_v,max_order=3",
    "heunpp2,s_churn=2.0",
    "gradient_estimation,ge_gamma=1.5",
    "res_multistep_ancestral,eta=0.5",
    "euler_ancestral_cfg_pp,eta=0.3,s_noise=0.8",
    "dpmpp_2s_ancestral_cfg_pp,eta=0.0",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not (CHECKOUT and PYTHON), reason="KEEPWARM_UPSTREAM_CHECKOUT and KEEPWARM_UPSTREAM_PYTHON name no ComfyUI to test"),
]


def results(python, tree, file):
    path = os.pathsep.join([str(tree), *filter(None, [os.environ.get("PYTHONPATH")])])
    subprocess.run(
        [python, SCRIPT, file, *SAMPLER_NAMES, *SETTINGS],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
        check=True,
    )
    return torch.load(file)


def test_every_sampler_gives_upstreams_latents(tmp_path):
    ours, theirs = results(sys.executable, PROJECT, tmp_path / "ours.pt"), results(PYTHON, CHECKOUT, tmp_path / "theirs.pt")
    differences = {}
    for case, latent in theirs.items():
        if isinstance(latent, str) or isinstance(ours[case], str):
            differences[case] = f"ours: {ours[case]}; upstream's: {latent}"
        else:
            differences[case] = ((ours[case] - latent).norm() / latent.norm()).item()
        print(*case, differences[case])
    assert len(differences) == 4 * (len(SAMPLER_NAMES) + len(SETTINGS))
    assert not {case: value for case, value in differences.items() if isinstance(value, str) or not value <= BOUND}
