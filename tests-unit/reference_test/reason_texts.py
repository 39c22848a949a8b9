"""The reasons that receipts can hold, read from the code: every text that is passed on as one, with ``…`` for what is filled in."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = (
    "comfy/ram_model_cache/cache.py",
    "comfy/ram_model_cache/journal.py",
    "comfy/ram_model_cache/table.py",
    "comfy/ram_model_cache/policy.py",
    "comfy/ram_model_cache/receipts.py",
    "comfy/ram_model_cache/weights_key.py",
    "comfy/loading/parts.py",
    "comfy/loading/stored_parts.py",
    "comfy/loading/checkpoint.py",
    "comfy/loading/components.py",
    "comfy/loading/diffusion_model.py",
    "comfy/loading/text_encoder.py",
    "comfy/controlnet.py",
    "comfy/sd.py",
    "app/running/worker.py",
)
# Where a reason stands among a call's arguments.
CALLS = {
    "evict": 1,
    "discard": 1,
    "relieve": 1,
    "Decision": 2,
    "NotCacheable": 0,
    "Receipt": 5,
    "left": 1,
    "_pass_on": 1,
    "clear": 0,
    "clear_models": 0,
    "Part": 1,
}
NAMES = {"why", "refusal", "reason", "story", "bypass", "TOO_BIG", "INDEPENDENT"}
RETURNS = {"explain", "difference", "_put", "_file_change"}


def texts(node):
    """The texts below *node*, ``…`` for what is filled in."""
    if isinstance(node, ast.JoinedStr):
        return ["".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)]
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.Compare):
        return []
    return [text for child in ast.iter_child_nodes(node) for text in texts(child)]


def of_node(node):
    """The reasons that one statement or expression gives."""
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        position = CALLS.get(name)
        given = node.args[position : position + 1] if position is not None else []
        return [text for part in (*given, *(one.value for one in node.keywords if one.arg in NAMES)) for text in texts(part)]
    if isinstance(node, ast.Assign):
        named = any(isinstance(inner, ast.Name) and inner.id in NAMES for target in node.targets for inner in ast.walk(target))
        return texts(node.value) if named else []
    if isinstance(node, ast.FunctionDef) and node.name in RETURNS:
        returned = [inner.value for inner in ast.walk(node) if isinstance(inner, ast.Return) and inner.value is not None]
        return [text for value in returned for text in texts(value)]
    if isinstance(node, ast.FunctionDef):
        pairs = zip(reversed(node.args.args), reversed(node.args.defaults))
        return [text for argument, value in pairs if argument.arg in NAMES for text in texts(value)]
    return []


def reasons():
    """All of them, without the punctuation that joins them."""
    found = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse((ROOT / source).read_text(encoding="utf-8"))):
            found.update(of_node(node))
    return {text for text in found if any(letter.isalpha() for letter in text) and "was …, now …" not in text}
