"""Codes of music that a language model writes for a song, five to a second (ACE-Step 1.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

import comfy.model_management
import comfy.utils
from comfy.text.drawing import Choice
from comfy.text.qwen.continuation import Continuation

END = 151645  # <|im_end|>, which ends a song
FIRST_CODE, CODES_END = 151669, 215669  # the tokens that are codes


@dataclass(frozen=True, slots=True)
class SongSettings:
    """How many codes at most, from which number on the song may end, and how each is chosen.

    *cfg_scale*: how far the scores move away from those of the negative text; 1: that is not asked.
    """

    most: int
    least: int
    seed: int
    cfg_scale: float
    choice: Choice


def write_codes(model: Any, positive: Sequence[int], negative: Sequence[int], settings: SongSettings) -> list[int]:
    """The codes that follow the tokens *positive*. *model*: the language model as :class:`comfy.sd1_clip.SDClipModel`.

    Raises ``InterruptProcessingException`` when the prompt is interrupted.
    """
    texts = [list(positive)] if settings.cfg_scale == 1.0 else _alike([list(positive), list(negative)], model.special_tokens["pad"])
    device = model.execution_device or model.transformer.get_input_embeddings().weight.device
    dtype = torch.bfloat16 if comfy.model_management.should_use_bf16(device) else torch.float32
    embeds, mask, *_ = model.process_tokens(texts, device)
    song = Continuation(model.transformer, mask)
    state, codes = song.follow(embeds.to(dtype)), []
    chooser = _Chooser(song, len(model.transformer.get_input_embeddings().weight), settings, state)
    progress = comfy.utils.ProgressBar(settings.most)
    for step in range(settings.most):
        comfy.model_management.throw_exception_if_processing_interrupted()
        token = chooser.next(state, may_end=settings.least < step)
        if int(token) == END:
            break
        codes.append(int(token) - FIRST_CODE)
        progress.update_absolute(step + 1)
        if len(codes) < settings.most:
            state = song.follow(model.transformer.get_input_embeddings()(token.expand(len(texts), 1), out_dtype=dtype))
    return codes


def _alike(texts: list[list[int]], pad: int) -> list[list[int]]:
    """*texts* with padding on their left, so that they are of one length."""
    longest = max(map(len, texts))
    return [[pad] * (longest - len(text)) + text for text in texts]


class _Chooser:
    """Chooses the next token of *song* among all codes and, where the song may end, its end."""

    def __init__(self, song: Continuation, vocabulary: int, settings: SongSettings, state: torch.Tensor) -> None:
        self._settings, self._vocabulary = settings, vocabulary
        self._generator = torch.Generator(device=state.device).manual_seed(settings.seed)
        self._codes, self._end = song.rows(FIRST_CODE, CODES_END, state), song.rows(END, END + 1, state)

    def next(self, state: torch.Tensor, may_end: bool) -> torch.Tensor:
        """The token after *state* (texts x 1 x width), 1 x 1."""
        scores = torch.nn.functional.linear(state[:, -1], self._codes)
        tokens = torch.arange(FIRST_CODE, FIRST_CODE + scores.shape[1], device=scores.device)
        if may_end:
            scores = torch.cat((torch.nn.functional.linear(state[:, -1], self._end), scores), dim=1)
            tokens = torch.cat((tokens.new_tensor([END]), tokens))
        if len(scores) > 1:
            scores = scores[1:] + self._settings.cfg_scale * (scores[:1] - scores[1:])
        choice = self._settings.choice
        scores = choice.restricted(scores)
        if choice.temperature <= 0:
            return tokens[scores.argmax(dim=-1)][:, None]
        # Over all tokens, not these alone: the seed's numbers then fall on the tokens that they fall on in ComfyUI.
        every = scores.new_full((1, self._vocabulary), torch.finfo(scores.dtype).min)
        every[:, tokens] = scores / choice.temperature
        return torch.multinomial(every.softmax(dim=-1), num_samples=1, generator=self._generator)
