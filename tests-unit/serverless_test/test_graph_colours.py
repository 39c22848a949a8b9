"""Refinement and the search behind it, on graphs of a few nodes."""

import itertools

from serverless.graph_colours import Graph, TieBreaker, digest, from_ancestors, refine

A, B = digest(b"a"), digest(b"b")


def chain(length):
    return Graph.of([[(A, node - 1)] if node else [] for node in range(length)])


def ring(*lengths):
    """Sources 0…n-1 and, after them, edges between neighbours, in rings of these lengths."""
    count, first, edges = sum(lengths), 0, []
    for length in lengths:
        edges += [[(A, first + position), (B, first + (position + 1) % length)] for position in range(length)]
        first += length
    return Graph.of([[] for _ in range(count)] + edges)


def test_order_puts_sources_first_and_sets_circles_apart():
    graph = Graph.of([[(A, 1)], [], [(A, 3)], [(A, 2)]])
    assert graph.order() == ([1, 0], [2, 3])


def test_what_leads_to_a_node_tells_it_apart():
    graph = chain(4)
    assert len(set(from_ancestors(graph, [A] * 4, graph.order()))) == 4


def test_what_follows_a_node_does_too():
    graph = Graph.of([[], [], [(A, 0)], []])
    colours, _ = refine(graph, [A] * 4, graph.order())
    assert colours[1] == colours[3] and len(set(colours)) == 3


def test_labels_count():
    graph = Graph.of([[], [], [(A, 0), (B, 1)]])
    colours, _ = refine(graph, [A] * 3, graph.order())
    assert len(set(colours)) == 3


def test_refining_stops_at_its_budget():
    graph = ring(40)
    colours = [B, *[A] * 79]
    assert len(set(refine(graph, colours, graph.order(), budget=80)[0])) < len(set(refine(graph, colours, graph.order())[0]))


def test_ranks_are_the_same_for_every_numbering():
    """Whatever number a node has, the order of all nodes gives the same list of links."""
    graph = ring(3, 4)
    size = len(graph.sources)

    def form(numbering):
        sources = [None] * size
        for node, edges in enumerate(graph.sources):
            sources[numbering[node]] = [(label, numbering[source]) for label, source in edges]
        renumbered = Graph.of(sources)
        colours, _ = refine(renumbered, [A] * size, renumbered.order())
        ranks = TieBreaker(renumbered, colours).ranks()
        position = {node: place for place, node in enumerate(sorted(range(size), key=lambda node: (colours[node], ranks.get(node, 0))))}
        return sorted((position[node], label, position[source]) for node, edges in enumerate(sources) for label, source in edges)

    forms = [form(numbering) for numbering in itertools.islice(itertools.permutations(range(size)), 0, 400_000, 20_011)]
    assert all(found == forms[0] for found in forms)


def test_without_a_budget_every_tied_node_still_gets_a_rank():
    graph = ring(5)
    colours, _ = refine(graph, [A] * 10, graph.order())
    assert sorted(TieBreaker(graph, colours, budget=0).ranks()) == list(range(10))
