"""What a language model keeps of the tokens that it has read, so that the next ones cost no more than themselves."""

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Memory:
    """*cache*: what each layer keeps, in transformers' form. *tokens*: how many were read. *next_position*: where the next one stands."""

    cache: Any
    tokens: int = 0
    next_position: int = 0


def new_memory(config: Any = None) -> Memory:
    """One that holds nothing; transformers' *config* of the network is needed where not all layers attend."""
    from transformers import DynamicCache

    return Memory(DynamicCache(config=config))
