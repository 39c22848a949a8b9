"""Random numbers for sampling: the first noise, drawn on the CPU, and the noise that stochastic samplers add.

Draw order and seeds follow ComfyUI, so that equal seeds give equal pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from comfy.lazy_import import lazy_module

if TYPE_CHECKING:
    from torch import Generator, Tensor

torch = lazy_module("torch")
torchsde = lazy_module("torchsde")

NoiseSampler = Callable[[Any, Any], Any]


def draw_noise(shape: Sequence[int], dtype: Any, layout: Any, generator: Generator, noise_inds: Sequence[int] | None = None) -> Tensor:
    """Draw standard normal noise of *shape* on the CPU.

    With *noise_inds* (one number per batch entry) each entry gets the draw with its number, so that a picture taken out of a batch
    keeps its noise.
    """

    def draw(size: Sequence[int]) -> Tensor:
        return torch.randn(size, dtype=torch.float32, layout=layout, generator=generator, device="cpu").to(dtype=dtype)

    if noise_inds is None:
        return draw(shape)
    wanted = [int(index) for index in noise_inds]
    kept = {}
    for index in range(max(wanted) + 1):
        noise = draw([1, *shape[1:]])
        if index in wanted:
            kept[index] = noise
    return torch.cat([kept[index] for index in wanted])


def default_noise_sampler(x: Tensor, seed: int | None = None) -> NoiseSampler:
    """A function of (sigma, next sigma) that draws independent noise with the shape, dtype and device of *x*.

    On the CPU it uses the seed plus one, because the first noise came from the same generator with the seed itself.
    """
    generator = None
    if seed is not None:
        generator = torch.Generator(device=x.device)
        generator.manual_seed(seed + 1 if x.device.type == "cpu" else seed)

    def sample(sigma: Any, sigma_next: Any) -> Tensor:
        return torch.randn(x.shape, dtype=x.dtype, layout=x.layout, device=x.device, generator=generator)

    return sample


class BatchedBrownianTree:
    """Brownian motion over an interval of times (torchsde): one tree for the batch or, with a list of seeds, one per entry."""

    def __init__(self, x: Tensor, t0: Tensor, t1: Tensor, seed: int | Sequence[int] | None = None, **kwargs: Any) -> None:
        self.cpu_tree = kwargs.pop("cpu", True)
        first, last, self.sign = self.sort(t0, t1)
        start = kwargs.pop("w0", None)
        start = torch.zeros_like(x) if start is None else start
        self.batched = isinstance(seed, tuple | list)
        if isinstance(seed, tuple | list):
            if len(seed) != len(x):
                raise ValueError(f"{len(seed)} seeds were given for a batch of {len(x)}; give one seed per batch entry")
            start = start[0]
            seeds = list(seed)
        else:
            seeds = [int(torch.randint(0, 2**63 - 1, ())) if seed is None else seed]
        ends = [value.detach().cpu() if self.cpu_tree else value for value in (first, start, last)]
        self.trees = tuple(torchsde.BrownianTree(*ends, entropy=entropy, **kwargs) for entropy in seeds)

    @staticmethod
    def sort(a: Any, b: Any) -> tuple[Any, Any, int]:
        """Both times in ascending order, then -1 if they were swapped, else 1."""
        return (a, b, 1) if a < b else (b, a, -1)

    def __call__(self, t0: Tensor, t1: Tensor) -> Tensor:
        """The increment between two times, shaped like *x*."""
        first, last, direction = self.sort(t0, t1)
        like = first
        if self.cpu_tree:
            first, last = (time.detach().cpu().float() for time in (first, last))
        moved = torch.stack([tree(first, last) for tree in self.trees]).to(device=like.device, dtype=like.dtype)
        moved = moved * (self.sign * direction)
        return moved if self.batched else moved[0]


class BrownianTreeNoiseSampler:
    """Noise of unit variance between two sigmas, consistent however the interval is divided into steps.

    The noise has the shape, dtype and device of *x*. *transform* maps sigmas to times; with *cpu* the noise is drawn on the CPU.
    """

    def __init__(
        self,
        x: Tensor,
        sigma_min: Any,
        sigma_max: Any,
        seed: int | Sequence[int] | None = None,
        transform: Callable[[Any], Any] = lambda sigma: sigma,
        cpu: bool = False,
    ) -> None:
        self.transform = transform
        self.tree = BatchedBrownianTree(x, self._time(sigma_min), self._time(sigma_max), seed, cpu=cpu)

    def _time(self, sigma: Any) -> Tensor:
        return self.transform(torch.as_tensor(sigma))

    def __call__(self, sigma: Any, sigma_next: Any) -> Tensor:
        """The noise for the step between two sigmas."""
        start, end = self._time(sigma), self._time(sigma_next)
        return self.tree(start, end) / (end - start).abs().sqrt()
