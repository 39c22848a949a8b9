"""Text from a language model, token by token: which one is next, when to stop, and who is told how far it is."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import comfy.model_management
import comfy.utils
from comfy.text.memory import Memory

GREEDY = 0.0  # the temperature at which the most likely token is taken


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen: the most likely one, unless *do_sample*, then one at random by the probabilities that are left.

    *top_k*: among so many (0: all). *min_p*: at least so likely, as a part of the most likely one. *top_p*: among the most likely ones
    whose probabilities together are no more than that. *repetition_penalty* and *presence_penalty* make tokens that were said less likely,
    by division and by subtraction.
    """

    do_sample: bool = True
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 0.95
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    seed: int = 0


def generate(
    network: Any,
    embeds: torch.Tensor,
    sampling: Sampling,
    max_length: int,
    stop: Collection[int],
    embeds_info: Sequence[Mapping[str, Any]] = (),
    ids: Sequence[int] = (),
) -> list[int]:
    """The ids of up to *max_length* tokens that follow *embeds* (1 x tokens x width), the last one of *stop* if that ended it.

    *ids*: the numbers of those tokens, for a network that is told them; they count as said.

    *network* is a :class:`comfy.text.qwen.network.QwenTextModel`, or one like it. Each token is a step of progress. Raises
    ``InterruptProcessingException`` between tokens.
    """
    device = embeds.device
    dtype = torch.bfloat16 if comfy.model_management.should_use_bf16(device) else torch.float32
    numbers = torch.Generator(device=device).manual_seed(sampling.seed) if sampling.do_sample else None
    progress = comfy.utils.ProgressBar(max_length)
    memory: Memory = network.new_memory()
    if ids:
        memory.ids = torch.tensor([ids], device=device)
    said: list[int] = []
    x, infos = embeds.to(dtype), embeds_info
    while len(said) < max_length:
        comfy.model_management.throw_exception_if_processing_interrupted()
        last = network(x, [x.shape[1]], None, embeds_info=infos, memory=memory)[0]
        token = next_token(network.logits(last[:, -1:])[:, -1], sampling, [*ids, *said], numbers)
        said.append(int(token))
        progress.update(1)
        if said[-1] in stop:
            break
        if ids:
            memory.ids = token.view(1, 1)
        x, infos = network.get_input_embeddings()(token.view(1, 1), out_dtype=torch.float32).to(dtype), ()
    return said


def next_token(logits: torch.Tensor, sampling: Sampling, said: Sequence[int], numbers: torch.Generator | None) -> torch.Tensor:
    """The id (1 x 1) that *sampling* chooses by *logits* (1 x vocabulary), after *said*."""
    if not sampling.do_sample or sampling.temperature == GREEDY:
        return logits.argmax(dim=-1, keepdim=True)
    scores = _less_repeated(logits, sampling, said) / sampling.temperature
    ids: torch.Tensor | None = None
    if sampling.top_k > 0:
        scores, ids = scores.topk(min(sampling.top_k, scores.shape[-1]))
    if sampling.min_p > 0:
        chances = scores.softmax(dim=-1)
        scores = _without(scores, chances < sampling.min_p * chances.amax(dim=-1, keepdim=True))
    if sampling.top_p < 1:
        scores = _without(scores, _unlikely(scores, sampling.top_p))
    drawn = torch.multinomial(scores.softmax(dim=-1), num_samples=1, generator=numbers)
    return drawn if ids is None else ids.gather(-1, drawn)


def _less_repeated(logits: torch.Tensor, sampling: Sampling, said: Sequence[int]) -> torch.Tensor:
    """*logits*, lower where a token is among *said*."""
    if not said or (sampling.repetition_penalty == 1 and sampling.presence_penalty == 0):
        return logits
    ids = torch.tensor(sorted(set(said)), device=logits.device)
    own = logits[:, ids]
    if sampling.repetition_penalty != 1:
        own = torch.where(own < 0, own * sampling.repetition_penalty, own / sampling.repetition_penalty)
    return logits.index_copy(-1, ids, own - sampling.presence_penalty)


def _unlikely(scores: torch.Tensor, top_p: float) -> torch.Tensor:
    """Where *scores* are so low that those of the more likely tokens and this one's together exceed *top_p*; never the first."""
    ordered, order = scores.sort(dim=-1, descending=True)
    beyond = ordered.softmax(dim=-1).cumsum(dim=-1) > top_p
    beyond[..., 0] = False
    return torch.zeros_like(beyond).scatter(-1, order, beyond)


def _without(scores: torch.Tensor, left_out: torch.Tensor) -> torch.Tensor:
    return scores.masked_fill(left_out, torch.finfo(scores.dtype).min)
