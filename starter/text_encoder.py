"""The starter's CLIP text model, taught to tell which digit a prompt asks for.

The diffusion model then only has to learn to draw what the text model already tells apart.
"""

import random

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from transformers import CLIPTextConfig, CLIPTextModel

from starter.prompts import CLASSES, FIRST_SPECIAL, PromptTokens, random_prompt
from starter.sizes import TEXT
from starter.steps import optimize

BATCH, STEPS, RATE = 64, 600, 2e-3


def build_text_encoder() -> CLIPTextModel:
    """A new text model with weights from torch's current seed."""
    return CLIPTextModel(CLIPTextConfig(**{**TEXT.transformers_arguments(), "attn_implementation": "sdpa"}))


def train_text_encoder(encoder: CLIPTextModel, tokens: PromptTokens, seed: int, steps: int = STEPS) -> float:
    """Train *encoder* in place; returns the share of new prompts with unknown words in them that it tells apart.

    A linear reader of the states from the end token on is trained with it and then discarded.
    """
    chooser = random.Random(seed)
    reader = torch.nn.Linear(TEXT.hidden_size, CLASSES)

    def loss(_step: int) -> torch.Tensor:
        rows, classes = _batch(tokens, chooser)
        logits = reader(encoder(input_ids=rows).last_hidden_state)
        after_end = rows > FIRST_SPECIAL
        return F.cross_entropy(logits[after_end], classes[:, None].expand_as(rows)[after_end])

    optimize([*encoder.parameters(), *reader.parameters()], loss, steps, RATE, "text encoder")
    with torch.no_grad():
        rows, classes = _batch(tokens, chooser, 1000)
        return (reader(encoder(input_ids=rows).last_hidden_state[:, -1]).argmax(-1) == classes).float().mean().item()


def _batch(tokens: PromptTokens, chooser: random.Random, size: int = BATCH) -> tuple[torch.Tensor, torch.Tensor]:
    classes = [chooser.randrange(CLASSES) for _ in range(size)]
    prompts = [random_prompt(digit, chooser) for digit in classes]
    return tokens.strange_rows(prompts, chooser), torch.tensor(classes)


@torch.no_grad()
def prompt_bank(encoder: CLIPTextModel, tokens: PromptTokens, seed: int, per_class: int) -> torch.Tensor:
    """Hidden states of random prompts: classes x *per_class* x 77 x width. The first of the class without digit is the empty prompt."""
    chooser = random.Random(seed)
    bank = []
    for digit in range(CLASSES):
        prompts = [random_prompt(digit, chooser) for _ in range(per_class)]
        rows = torch.cat([tokens.rows(prompts[::2]), tokens.strange_rows(prompts[1::2], chooser)])
        if digit == CLASSES - 1:
            rows[0] = tokens.rows([""])[0]
        bank.append(encoder(input_ids=rows).last_hidden_state)
    return torch.stack(bank)
