"""What a language model keeps of the tokens that it has read, so that the next ones cost no more than themselves."""

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Memory:
    """*cache*: keys and values of each layer, in transformers' form. *next_position*: where the next token stands."""

    cache: Any
    next_position: int = 0

    def length(self) -> int:
        """How many tokens it holds."""
        return int(self.cache.get_seq_length())


def new_memory() -> Memory:
    """One that holds nothing, for a network whose layers all attend."""
    from transformers import DynamicCache

    return Memory(DynamicCache())
