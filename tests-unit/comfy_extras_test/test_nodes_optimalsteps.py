import asyncio

import pytest
import torch

from comfy_extras import nodes_optimalsteps as optimal


def sigmas(*arguments):
    return optimal.OptimalStepsScheduler.execute(*arguments).args[0]


@pytest.mark.parametrize("model_type", list(optimal.NOISE_LEVELS))
def test_levels_descend_to_zero(model_type):
    for steps in (3, 10, 20, 37):
        levels = sigmas(model_type, steps, 1.0)
        assert len(levels) == steps + 1
        assert levels[-1] == 0
        assert (levels.diff() < 0).all()
        assert levels[0].item() == pytest.approx(optimal.NOISE_LEVELS[model_type][0])


def test_the_published_number_of_steps_has_the_published_levels():
    assert sigmas("FLUX", 10, 1.0)[:-1].tolist() == pytest.approx(optimal.NOISE_LEVELS["FLUX"][:-1])


def test_less_denoise_takes_the_end():
    assert torch.equal(sigmas("Wan", 20, 0.25), sigmas("Wan", 20, 1.0)[-6:])
    assert len(sigmas("Wan", 20, 0.0)) == 0


def test_the_extension_lists_its_node():
    extension = asyncio.run(optimal.comfy_entrypoint())
    assert [node.GET_SCHEMA().node_id for node in asyncio.run(extension.get_node_list())] == ["OptimalStepsScheduler"]
