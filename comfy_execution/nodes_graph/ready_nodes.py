"""The nodes of a graph that may run now, most urgent first."""

import heapq
from collections.abc import Iterator


class ReadyNodes:
    """Ids ordered by urgency (smaller first), then by when they joined the graph.

    Joining order and not readiness breaks ties: a branch that has begun is carried on before another one is begun, so that fewer
    results have to be kept at once. Each change costs the logarithm of the number of ready nodes; removed entries stay in the heap
    until they come to its top.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, str]] = []
        self._places: dict[str, tuple[int, int]] = {}

    def put(self, node_id: str, urgency: int, joined: int) -> None:
        """Add a node, or move it to another place."""
        if self._places.get(node_id) != (urgency, joined):
            self._places[node_id] = (urgency, joined)
            heapq.heappush(self._heap, (urgency, joined, node_id))

    def discard(self, node_id: str) -> None:
        """Take a node out, if it is in."""
        self._places.pop(node_id, None)

    def first(self) -> str | None:
        """The most urgent node, which stays in; None when there is none."""
        while self._heap:
            urgency, joined, node_id = self._heap[0]
            if self._places.get(node_id) == (urgency, joined):
                return node_id
            heapq.heappop(self._heap)
        return None

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._places

    def __bool__(self) -> bool:
        return bool(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._places, key=self._places.__getitem__))
