"""Distinguishes the nodes of a directed graph by the graph alone: colour refinement, and a search where it leaves ties.

A colour is a digest of what can be seen from a node. Refining (Weisfeiler and Leman, 1968) follows the links in both directions until
no colour class splits any more; on a graph without cycles two or three rounds do, because one pass in topological order carries a
difference all the way. What stays tied is taken apart into the pieces that hang together through tied nodes alone, and each piece is put
in an order by trying its candidates (McKay and Piperno, 2014), within a budget. Pieces whose certificates are equal are isomorphic, so
their order among each other does not matter. Standard library only.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

DIGEST_BYTES = 12
MAX_ROUNDS = 64
SEARCH_BUDGET = 12_000

Edge = tuple[bytes, int]
Order = tuple[list[int], list[int]]


def digest(*parts: bytes) -> bytes:
    """A hash of ``DIGEST_BYTES`` of *parts*. Their boundaries do not count: give parts of fixed length, or one."""
    return hashlib.blake2b(b"".join(parts), digest_size=DIGEST_BYTES).digest()


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes 0…n-1: *sources[i]* lists ``(label, j)`` for each link j → i, sorted by label; *targets[j]* lists ``(label, i)``.

    Labels are digests.
    """

    sources: Sequence[Sequence[Edge]]
    targets: Sequence[Sequence[Edge]]

    @classmethod
    def of(cls, sources: Sequence[Sequence[Edge]]) -> "Graph":
        """The graph with the links *sources*."""
        targets: list[list[Edge]] = [[] for _ in sources]
        for node, edges in enumerate(sources):
            for label, source in edges:
                targets[source].append((label, node))
        return cls([sorted(edges) for edges in sources], targets)

    def order(self) -> Order:
        """The nodes with sources before targets, and apart from them those on or behind a cycle."""
        missing = {node: len(edges) for node, edges in enumerate(self.sources)}
        ready = deque(node for node, count in missing.items() if not count)
        ordered = []
        while ready:
            node = ready.popleft()
            ordered.append(node)
            for _, target in self.targets[node]:
                missing[target] -= 1
                if not missing[target]:
                    ready.append(target)
        return ordered, [node for node, count in missing.items() if count > 0]


def from_ancestors(graph: Graph, colours: Sequence[bytes], order: Order) -> list[bytes]:
    """The colours with everything that leads to each node mixed in, for the nodes of *order*; those on a cycle see one step."""
    mixed = list(colours)
    ordered, cyclic = order
    for node in ordered:
        mixed[node] = digest(colours[node], *[part for label, source in graph.sources[node] for part in (label, mixed[source])])
    seen = {
        node: digest(colours[node], *[part for label, source in graph.sources[node] for part in (label, mixed[source])]) for node in cyclic
    }
    for node, colour in seen.items():
        mixed[node] = colour
    return mixed


def _from_descendants(graph: Graph, colours: Sequence[bytes], order: Order) -> list[bytes]:
    mixed = list(colours)
    ordered, cyclic = order
    seen = {node: digest(colours[node], *sorted(label + colours[target] for label, target in graph.targets[node])) for node in cyclic}
    for node, colour in seen.items():
        mixed[node] = colour
    for node in reversed(ordered):
        mixed[node] = digest(colours[node], *sorted([label + mixed[target] for label, target in graph.targets[node]]))
    return mixed


def refine(graph: Graph, colours: Sequence[bytes], order: Order, budget: int | None = None) -> tuple[list[bytes], int]:
    """Split the colour classes until links show no further difference: (colours, how many nodes were looked at).

    Nodes that are alone in their class are not looked at again. *budget* ends it early.
    """
    current, looked_at = list(colours), 0
    counts = Counter(current)
    for _ in range(MAX_ROUNDS):
        if len(counts) == len(current) or (budget is not None and looked_at >= budget):
            break
        ordered, cyclic = ([node for node in part if counts[current[node]] > 1] for part in order)
        current = from_ancestors(graph, _from_descendants(graph, current, (ordered, cyclic)), (ordered, cyclic))
        looked_at += len(ordered) + len(cyclic)
        before, counts = len(counts), Counter(current)
        if len(counts) == before:
            break
    return current, looked_at


class TieBreaker:
    """Puts nodes of equal, fully refined colour in an order that does not depend on how they are numbered."""

    def __init__(self, graph: Graph, colours: Sequence[bytes], budget: int = SEARCH_BUDGET) -> None:
        """*budget*: how many nodes the search may look at in all; what is left then is ordered as it comes."""
        self._graph = graph
        self._colours = colours
        self._budget = budget

    def ranks(self) -> dict[int, int]:
        """A number for each tied node; within a colour class they are in the order looked for."""
        counts = Counter(self._colours)
        tied = {node: colour for node, colour in enumerate(self._colours) if counts[colour] > 1}
        settled = [self._settle(piece) for piece in self._pieces(tied)]
        settled.sort(key=lambda pair: pair[0])
        return {node: rank for rank, node in enumerate(node for _, order in settled for node in order)}

    def _pieces(self, tied: dict[int, bytes]) -> list[dict[int, bytes]]:
        """*tied* by connected component."""
        pieces, left = [], dict(tied)
        while left:
            start, colour = left.popitem()
            piece, waiting = {start: colour}, [start]
            while waiting:
                node = waiting.pop()
                for _, neighbour in (*self._graph.sources[node], *self._graph.targets[node]):
                    if neighbour in left:
                        piece[neighbour] = left.pop(neighbour)
                        waiting.append(neighbour)
            pieces.append(piece)
        return pieces

    def _settle(self, piece: dict[int, bytes]) -> tuple[bytes, list[int]]:
        """(certificate, order) of one connected piece."""
        counts = Counter(piece.values())
        repeated = [(count, colour) for colour, count in counts.items() if count > 1]
        if not repeated or self._budget <= 0:
            return digest(*sorted(piece.values())), sorted(piece, key=lambda node: piece[node])
        _, colour = min(repeated)
        best: tuple[bytes, list[int]] | None = None
        for candidate in (node for node, own in piece.items() if own == colour):
            found = self._choose(piece, candidate)
            if best is None or found[0] < best[0]:
                best = found
            if self._budget <= 0:
                break
        assert best is not None
        return best

    def _choose(self, piece: dict[int, bytes], candidate: int) -> tuple[bytes, list[int]]:
        """The same, with *candidate* set apart from its equals."""
        colours = self._refined({**piece, candidate: digest(piece[candidate], b"chosen")})
        counts = Counter(colours.values())
        alone = sorted((node for node in colours if counts[colours[node]] == 1), key=lambda node: colours[node])
        tied = {node: colour for node, colour in colours.items() if counts[colour] > 1}
        settled = sorted((self._settle(part) for part in self._pieces(tied)), key=lambda pair: pair[0])
        certificate = digest(*sorted(colours.values()), b"pieces", *[part for part, _ in settled])
        return certificate, alone + [node for _, order in settled for node in order]

    def _refined(self, piece: dict[int, bytes]) -> dict[int, bytes]:
        """Refinement inside one piece; nodes outside are told apart already and look the same from everywhere."""
        numbers = {node: position for position, node in enumerate(piece)}
        graph = Graph.of([[(label, numbers[source]) for label, source in self._graph.sources[node] if source in numbers] for node in piece])
        refined, looked_at = refine(graph, list(piece.values()), graph.order(), self._budget)
        self._budget -= looked_at + len(piece)
        return dict(zip(piece, refined))
