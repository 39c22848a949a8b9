import pytest
import torch

import comfy.sample
from comfy.k_diffusion.sampling import BatchedBrownianTree, BrownianTreeNoiseSampler, default_noise_sampler


def test_the_first_noise_is_the_generators_plain_draw():
    expected = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(42))
    assert torch.equal(comfy.sample.prepare_noise(torch.zeros(2, 4, 3, 5), 42), expected)


def test_noise_has_the_latents_dtype():
    assert comfy.sample.prepare_noise(torch.zeros(1, 4, 2, 2, dtype=torch.float16), 0).dtype == torch.float16


def test_entries_taken_out_of_a_batch_keep_their_noise():
    generator = torch.Generator().manual_seed(7)
    draws = [torch.randn(1, 4, 2, 2, generator=generator) for _ in range(4)]
    noise = comfy.sample.prepare_noise(torch.zeros(3, 4, 2, 2), 7, noise_inds=[3, 1, 3])
    assert torch.equal(noise, torch.cat([draws[3], draws[1], draws[3]]))


def test_step_noise_on_the_cpu_does_not_repeat_the_first_noise():
    x = torch.zeros(1, 4, 2, 2)
    sampler = default_noise_sampler(x, seed=5)
    assert torch.equal(sampler(1.0, 0.5), torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(6)))


def test_brownian_noise_is_consistent_over_divisions():
    x = torch.zeros(1, 1, 64, 64)
    sampler = BrownianTreeNoiseSampler(x, torch.tensor(0.1), torch.tensor(10.0), seed=1, cpu=True)
    whole = sampler(torch.tensor(8.0), torch.tensor(2.0)) * 6**0.5
    parts = sampler(torch.tensor(8.0), torch.tensor(5.0)) * 3**0.5 + sampler(torch.tensor(5.0), torch.tensor(2.0)) * 3**0.5
    assert torch.allclose(whole, parts, atol=1e-5)
    assert whole.std().item() / 6**0.5 == pytest.approx(1.0, abs=0.05)


def test_brownian_noise_turns_its_sign_with_the_direction():
    tree = BatchedBrownianTree(torch.zeros(1, 1, 4, 4), torch.tensor(0.1), torch.tensor(10.0), seed=1)
    there, back = tree(torch.tensor(2.0), torch.tensor(5.0)), tree(torch.tensor(5.0), torch.tensor(2.0))
    assert torch.equal(there, -back)


def test_a_list_of_seeds_gives_each_entry_its_own_tree():
    ends = torch.tensor(0.1), torch.tensor(10.0)
    both = BatchedBrownianTree(torch.zeros(2, 1, 4, 4), *ends, seed=[3, 4])(torch.tensor(1.0), torch.tensor(2.0))
    alone = BatchedBrownianTree(torch.zeros(1, 4, 4), *ends, seed=4)(torch.tensor(1.0), torch.tensor(2.0))
    assert torch.equal(both[1], alone)
    with pytest.raises(ValueError, match="3 seeds were given for a batch of 2"):
        BatchedBrownianTree(torch.zeros(2, 1, 4, 4), *ends, seed=[3, 4, 5])
