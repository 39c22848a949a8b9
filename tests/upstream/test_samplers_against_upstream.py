"""Every sampler gives upstream's latents: same model function, sigmas and seed.

KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/upstream/test_samplers_against_upstream.py
"""

from both_trees import against_upstream, results_of_both

from comfy.sampling.sampler_table import SAMPLER_NAMES

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

pytestmark = against_upstream(600)


def test_every_sampler_gives_upstreams_latents(tmp_path):
    ours, theirs = results_of_both("sampler_runs.py", tmp_path, after=[*SAMPLER_NAMES, *SETTINGS])
    differences = {}
    for case, latent in theirs.items():
        if isinstance(latent, str) or isinstance(ours[case], str):
            differences[case] = f"ours: {ours[case]}; upstream's: {latent}"
        else:
            differences[case] = ((ours[case] - latent).norm() / latent.norm()).item()
        print(*case, differences[case])
    assert len(differences) == 4 * (len(SAMPLER_NAMES) + len(SETTINGS))
    assert not {case: value for case, value in differences.items() if isinstance(value, str) or not value <= BOUND}
