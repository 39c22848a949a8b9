"""Skipping steps: what is foretold, what is taken over, and that every sampling begins anew."""

import logging
from types import SimpleNamespace

import pytest
import torch
from sampling_runs import loaded, run

from comfy.patcher_extension import WrappersMP
from comfy_extras import nodes_easycache, step_estimates


def settings(**changes):
    return {"reuse_threshold": 0.2, "start_percent": 0.0, "end_percent": 1.0, "verbose": False, "output_channels": 4} | changes


def easy(**changes):
    """A cache in a sampling from sigma 10 to 0."""
    sampling = SimpleNamespace(percent_to_sigma=lambda share: 10.0 * (1 - share))
    return nodes_easycache.EasyCacheHolder(*settings(**changes).values()).for_run(sampling)


class Network:
    """Counts its calls; its output is its input plus *step* times the number of calls."""

    def __init__(self, step=0.1):
        self.calls, self.step = 0, step

    def __call__(self, x, *others, **named):
        self.calls += 1
        if isinstance(x, list):
            return [part + self.step * self.calls for part in x]
        return x + self.step * self.calls


def call(cache, network, x, sigma=5.0, ids=("a",), named=False):
    options = {"easycache": cache, "sigmas": torch.tensor([sigma]), "uuids": list(ids)}
    if named:
        return nodes_easycache.easycache_forward_wrapper(network, x, "time", transformer_options=options)
    return nodes_easycache.easycache_forward_wrapper(network, x, "time", None, None, options)


def begin_step(cache):
    options = {"transformer_options": {"easycache": cache}}
    nodes_easycache.easycache_calc_cond_batch_wrapper(lambda *_: None, "model", "conds", options)


def picture(value, batch=1):
    return torch.full((batch, 4, 16, 16), float(value))


def test_estimates_follow_the_rate_of_the_last_steps():
    estimate = step_estimates.StepEstimate()
    assert not estimate.is_small(picture(0), 10.0, True) and estimate.observe(picture(0), picture(2)) is None
    assert not estimate.is_small(picture(1), 10.0, True), "no rate is known yet"
    assert estimate.observe(picture(1), picture(4)).item() == pytest.approx(1.0)
    assert estimate.is_small(picture(2), 1.0, True) and estimate.expected.item() == pytest.approx(0.5)
    assert not estimate.is_small(picture(2), 1.0, True), "what was foretold adds up"
    assert estimate.is_small(picture(1.5), 1.0, True) and not estimate.is_small(picture(1.1), 1.0, False)
    assert estimate.accumulated == 0.0


@pytest.mark.parametrize("named", [False, True])
def test_the_network_is_called_until_its_change_is_foretold_to_be_small(named):
    cache, network = easy(reuse_threshold=0.5), Network()
    for value in (1.0, 1.1):
        begin_step(cache)
        call(cache, network, picture(value), named=named)
    begin_step(cache)
    x = picture(1.2)
    assert torch.allclose(call(cache, network, x, named=named), x + 0.2) and x.equal(picture(1.2)), "the input is not changed"
    assert (network.calls, cache.skipped_steps) == (2, 1)
    begin_step(cache)
    call(cache, network, picture(5.0), named=named)
    assert network.calls == 3


def test_steps_outside_the_range_are_computed():
    cache, network = easy(start_percent=0.5, end_percent=0.9, reuse_threshold=100.0), Network()
    for sigma in (9.0, 8.0, 7.0, 5.0, 4.5):
        begin_step(cache)
        call(cache, network, picture(sigma), sigma)
    assert network.calls == 5, "the first two in the range are needed to foretell"
    for sigma, calls in ((4.0, 5), (1.0, 6), (0.5, 7)):
        begin_step(cache)
        call(cache, network, picture(sigma), sigma)
        assert network.calls == calls


def test_the_first_conditioning_decides_for_the_others_of_a_step():
    cache, network = easy(reuse_threshold=100.0), Network()
    for value in (1.0, 1.1):
        begin_step(cache)
        call(cache, network, picture(value), ids=("a",))
        call(cache, network, picture(value), ids=("b",))
    assert network.calls == 4
    begin_step(cache)
    call(cache, network, picture(1.2), ids=("a",))
    assert torch.allclose(call(cache, network, picture(1.2), ids=("b",)), picture(1.2) + 0.4)
    call(cache, network, picture(1.2), ids=("new",))
    assert (network.calls, cache.skipped_steps) == (5, 1)
    begin_step(cache)
    call(cache, network, picture(3.0), ids=("b",))
    assert network.calls == 6, "without the first, nobody decides to skip"


def test_batches_are_told_apart_by_their_ids():
    cache = easy(reuse_threshold=100.0)
    shift = torch.arange(4.0).view(4, 1, 1, 1)
    for value in (1.0, 1.1):
        begin_step(cache)
        call(cache, lambda x, *_: x + shift, picture(value, 4), ids=("a", "b"))
    begin_step(cache)
    swapped = call(cache, None, picture(1.2, 4), ids=("b", "a"))
    assert swapped[:, 0, 0, 0].tolist() == pytest.approx([3.2, 4.2, 1.2, 2.2])


def test_sound_follows_the_picture_and_longer_inputs_are_cut_at_their_start():
    cache, network = easy(reuse_threshold=100.0), Network()
    for value in (1.0, 1.1):
        begin_step(cache)
        call(cache, network, [picture(value), torch.full((1, 4, 3, 5), value)])
    begin_step(cache)
    video, sound = call(cache, network, [picture(1.2), torch.full((1, 4, 3, 5), 7.0)])
    assert network.calls == 2 and torch.allclose(video, picture(1.4)) and torch.allclose(sound, torch.full((1, 4, 3, 5), 7.2))
    assert nodes_easycache._fitted(torch.arange(12.0).view(1, 4, 3), (1, 2, 3)).flatten().tolist() == [6, 7, 8, 9, 10, 11]


def test_another_size_begins_anew(caplog):
    cache, network = easy(reuse_threshold=100.0), Network()
    for value in (1.0, 1.1):
        begin_step(cache)
        call(cache, network, picture(value))
    begin_step(cache)
    call(cache, network, torch.ones(1, 4, 32, 32))
    begin_step(cache)
    call(cache, network, torch.ones(1, 4, 32, 32) * 1.1)
    assert network.calls == 4 and "shape" in caplog.text


def lazy_call(cache, network, x, sigma=5.0):
    return nodes_easycache.lazycache_predict_noise_wrapper(
        network, x, torch.tensor([sigma]), {"transformer_options": {"easycache": cache}}, 3
    )


def test_whole_steps_are_skipped():
    sampling = SimpleNamespace(percent_to_sigma=lambda share: 10.0 * (1 - share))
    cache = nodes_easycache.LazyCacheHolder(*settings(reuse_threshold=0.5, end_percent=0.9).values()).for_run(sampling)
    network = Network()
    results = [lazy_call(cache, network, picture(value)) for value in (1.0, 1.1, 1.2)]
    assert network.calls == 2 and torch.allclose(results[-1], picture(1.4)) and cache.skipped_steps == 1
    lazy_call(cache, network, picture(1.2), sigma=0.5)
    assert network.calls == 3


@pytest.mark.parametrize("node", [nodes_easycache.EasyCacheNode, nodes_easycache.LazyCacheNode])
def test_a_sampling_skips_steps_tells_so_and_leaves_the_model_as_it_was(node, caplog):
    base, _, _ = loaded()
    clone = node.execute(base, 1.0, 0.1, 0.95, True).args[0]
    empty = clone.model_options["transformer_options"]["easycache"]
    with caplog.at_level(logging.INFO, "comfy_extras.nodes_easycache"):
        first, second = run(clone, steps=8), run(clone, steps=8)
    assert first.equal(second) and not first.equal(run(steps=8))
    told = [record.getMessage() for record in caplog.records if "of 8 steps" in record.getMessage()]
    assert len(told) == 2 and told[0] == told[1] and " skipped 0 " not in told[0]
    assert clone.model_options["transformer_options"]["easycache"] is empty and empty.skipped_steps == 0
    assert "easycache" not in base.model_options["transformer_options"]
    assert run(node.execute(base, 0.0, 0.1, 0.95, False).args[0], steps=3).equal(run(steps=3)), "nothing is small enough"


def test_caches_are_known_by_their_settings():
    one, other = (nodes_easycache.LazyCacheHolder(*settings().values()) for _ in range(2))
    assert one.patch_identity_key() == other.patch_identity_key()
    base, _, _ = loaded()
    clone = nodes_easycache.LazyCacheNode.execute(base, 0.3, 0.2, 0.9, False).args[0]
    assert clone.model_options["transformer_options"]["easycache"].patch_identity_key() == (0.3, 0.2, 0.9, False, 4)
    assert clone.get_wrappers(WrappersMP.PREDICT_NOISE, "lazycache") == [nodes_easycache.lazycache_predict_noise_wrapper]
