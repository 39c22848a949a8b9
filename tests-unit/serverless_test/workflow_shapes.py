"""Workflows to be renamed, and other ways to write the same workflow."""

import random
from typing import Any

Workflow = dict[str, Any]


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """One node in API format."""
    return {"class_type": class_type, "inputs": inputs}


def text_to_image(seed: int = 7) -> Workflow:
    """The usual graph."""
    return {
        "4": node("CheckpointLoaderSimple", ckpt_name="a.safetensors"),
        "6": node("CLIPTextEncode", text="a seven", clip=["4", 1]),
        "7": node("CLIPTextEncode", text="", clip=["4", 1]),
        "5": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "3": node("KSampler", model=["4", 0], positive=["6", 0], negative=["7", 0], latent_image=["5", 0], seed=seed, steps=2, cfg=4.0),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", images=["8", 0], filename_prefix="x"),
    }


def rewritten(workflow: Workflow, rng: random.Random, with_notes: bool = True) -> Workflow:
    """*workflow* under random ids, its keys in another order, with other notes of the page."""
    numbers = rng.sample(range(10**6), len(workflow))
    names = {old: f"{prefix}{number}" for old, number, prefix in zip(workflow, numbers, rng.choices(["", "n", "12:"], k=len(workflow)))}
    rewritten_nodes = []
    for old, content in workflow.items():
        inputs = [(name, [names[value[0]], value[1]] if _is_link(value, names) else value) for name, value in content["inputs"].items()]
        rng.shuffle(inputs)
        parts = [("class_type", content["class_type"]), ("inputs", dict(inputs))]
        if with_notes and rng.random() < 0.5:
            parts.append(("_meta", {"title": f"title {rng.random()}"}))
        rng.shuffle(parts)
        rewritten_nodes.append((names[old], dict(parts)))
    rng.shuffle(rewritten_nodes)
    return dict(rewritten_nodes)


def without_notes(workflow: Workflow) -> Workflow:
    """Nodes without ``_meta``."""
    return {node_id: {key: value for key, value in content.items() if key != "_meta"} for node_id, content in workflow.items()}


def ring_edges(*lengths: int) -> Workflow:
    """Sources and sinks that form closed rings: in a ring every node looks like every other, and rings differ in length only."""
    workflow, first = {}, 0
    for length in lengths:
        for position in range(length):
            workflow[f"s{first + position}"] = node("Source")
            after = first + (position + 1) % length
            workflow[f"e{first + position}"] = node("Edge", a=[f"s{first + position}", 0], b=[f"s{after}", 0])
        first += length
    return workflow


def large_shapes(count: int, rng: random.Random) -> dict[str, Workflow]:
    """Workflows of about *count* nodes, among them those that are hardest to tell apart."""
    half = count // 2
    return {
        "random": {str(i): node(f"C{rng.randrange(20)}", value=rng.randrange(10), **_random_links(i, rng)) for i in range(count)},
        "one chain": {str(i): node("Lora", **({"model": [str(i - 1), 0]} if i else {})) for i in range(count)},
        "equal pairs": {**{f"a{i}": node("A") for i in range(half)}, **{f"b{i}": node("B", x=[f"a{i}", 0]) for i in range(half)}},
        "equal leaves": {"hub": node("Hub"), **{f"b{i}": node("B", x=["hub", 0]) for i in range(count - 1)}},
        "equal chains": {
            f"{c}_{i}": node("Lora", **({"model": [f"{c}_{i - 1}", 0]} if i else {})) for c in range(10) for i in range(count // 10)
        },
        "a ring of links": {str(i): node("Lora", model=[str((i + 1) % count), 0]) for i in range(count)},
        "a closed zigzag": ring_edges(half),
    }


def _random_links(position: int, rng: random.Random) -> dict[str, list[Any]]:
    return {f"in{k}": [str(rng.randrange(max(0, position - 50), position)), rng.randrange(3)] for k in range(rng.randrange(4)) if position}


def _is_link(value: Any, names: dict[str, str]) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and value[0] in names
