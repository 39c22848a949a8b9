"""How the cost of input signatures grows with the graph: time per node of 10,000 nodes over that of 1,000.

Run ``python benchmarks/signatures.py``; prints microseconds per node (best of five) and the ratio, which is 1 for linear time. Graphs:
a chain; a chain in which each node also reads the node before its parent; 1,000 or 10,000 nodes side by side into one.
"""

import asyncio
import pathlib
import sys
import time
from collections.abc import Callable

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from comfy_execution.signatures import InputSignatures  # noqa: E402

Graph = dict[str, dict]
SMALL, LARGE = 1_000, 10_000
RUNS = 5


def chain(count: int) -> Graph:
    """Nodes in a row."""
    return {
        str(i): {"class_type": "Step", "inputs": {"value": i % 7, "name": "step", **({"a": [str(i - 1), 0]} if i else {})}}
        for i in range(count)
    }


def ladder(count: int) -> Graph:
    """Nodes in a row, each also linked to the one before its parent."""
    graph = chain(count)
    for i in range(2, count):
        graph[str(i)]["inputs"]["b"] = [str(i - 2), 1]
    return graph


def wide(count: int) -> Graph:
    """Nodes side by side into one."""
    graph: Graph = {str(i): {"class_type": "Step", "inputs": {"value": i, "name": "step"}} for i in range(count - 1)}
    graph["end"] = {"class_type": "Join", "inputs": {f"i{i}": [str(i), 0] for i in range(count - 1)}}
    return graph


def microseconds_per_node(graph: Graph) -> float:
    """The best of ``RUNS`` runs over all nodes, last first (the order that needs the longest way up)."""

    async def unchanged(node_id: str) -> bool:
        return False

    async def sign() -> None:
        await InputSignatures(graph.get, unchanged, lambda node_id: False).add(reversed(list(graph)))

    best_s = float("inf")
    for _ in range(RUNS):
        start = time.perf_counter()
        asyncio.run(sign())
        best_s = min(best_s, time.perf_counter() - start)
    return best_s / len(graph) * 1e6


def main() -> None:
    """Print one line per shape."""
    shapes: dict[str, Callable[[int], Graph]] = {"chain": chain, "ladder": ladder, "wide": wide}
    for name, build in shapes.items():
        small, large = microseconds_per_node(build(SMALL)), microseconds_per_node(build(LARGE))
        print(f"{name:8} {SMALL:>6} nodes {small:6.2f} µs/node   {LARGE:>6} nodes {large:6.2f} µs/node   ratio {large / small:.2f}")


if __name__ == "__main__":
    main()
