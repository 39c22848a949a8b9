"""A CUDA card that is not there: torch's CPU build runs a program's card path, and what a card would refuse is refused.

``with pretend_cards(count=1, capacity_bytes=…) as machine:`` makes cards; inside, tensors on ``cuda:N`` are :class:`CardTensor`, whose
numbers lie in host memory. See docs/howto/test-without-a-card.md for the rules and for what it cannot show.
"""

from pretend.cards import Card
from pretend.generators import seeded_apart
from pretend.guard import NoPretendCard
from pretend.machine import Machine
from pretend.mode import CardMode
from pretend.session import pretend_cards
from pretend.streams import Race
from pretend.tensors import CardTensor

__all__ = ["Card", "CardMode", "CardTensor", "Machine", "NoPretendCard", "Race", "pretend_cards", "seeded_apart"]
