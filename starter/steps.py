"""Training steps for every phase: a seeded, bounded loop with progress, a warm-up and decay of the step size, averaged weights."""

import math
from collections.abc import Callable, Iterable

import torch
from tqdm import tqdm

WARM_UP_STEPS = 50
LARGEST_GRADIENT = 1.0


def cosine_rate(step: int, steps: int) -> float:
    """The share of the full step size at *step* of *steps*: a short rise, then half a cosine down to 1 %."""
    rise = min(1.0, (step + 1) / WARM_UP_STEPS)
    return rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def optimize(
    parameters: Iterable[torch.nn.Parameter],
    loss_of_step: Callable[[int], torch.Tensor],
    steps: int,
    rate: float,
    what: str,
    after: Callable[[], None] | None = None,
) -> None:
    """Take *steps* AdamW steps on ``loss_of_step(step)``, calling *after* each; a progress bar named *what* shows the loss.

    Raises ``FloatingPointError`` when the loss is no longer a number.
    """
    trained = list(parameters)
    optimizer = torch.optim.AdamW(trained, lr=rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    average = 0.0
    with tqdm(range(steps), desc=what, mininterval=5.0) as bar:
        for step in bar:
            for group in optimizer.param_groups:
                group["lr"] = rate * cosine_rate(step, steps)
            loss = loss_of_step(step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, LARGEST_GRADIENT)
            optimizer.step()
            if after is not None:
                after()
            average += (loss.item() - average) / min(step + 1, 50)
            if not math.isfinite(average):
                raise FloatingPointError(f"{what}: the loss at step {step} is {loss.item()}; lower the rate or change the seed")
            bar.set_postfix(loss=f"{average:.4f}", refresh=False)


class AveragedWeights:
    """An exponential moving average of a module's parameters; early steps count less than *decay* says."""

    def __init__(self, module: torch.nn.Module, decay: float) -> None:
        self._module = module
        self._decay = decay
        self._updates = 0
        self._average = {name: value.detach().clone() for name, value in module.named_parameters()}

    @torch.no_grad()
    def update(self) -> None:
        """Add the current weights to the average."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        for name, value in self._module.named_parameters():
            self._average[name].lerp_(value, 1 - decay)

    @torch.no_grad()
    def store(self) -> None:
        """Give the module its averaged weights."""
        for name, value in self._module.named_parameters():
            value.copy_(self._average[name])
