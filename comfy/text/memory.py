"""What a language model keeps of the tokens that it has read, so that the next ones cost no more than themselves."""

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Memory:
    """*cache*: what each layer keeps, in transformers' form. *tokens*: how many were read. *next_position*: where the next one stands.

    *ids*: the numbers (1 x tokens) of those to be read next, for networks whose layers are told them.
    """

    cache: Any
    tokens: int = 0
    next_position: int = 0
    ids: Any = None


def new_memory(config: Any = None) -> Memory:
    """One that holds nothing; transformers' *config* of the network is needed where not all layers attend."""
    from transformers import DynamicCache

    return Memory(DynamicCache(config=config))
