"""The log lines of the caches, read from the code, with ``…`` for what is filled in."""

import ast
import re

from reason_texts import ROOT, texts

SOURCES = (
    "comfy/ram_model_cache/*.py",
    "comfy/ram_model_store/*.py",
    "comfy/residency/model_cache.py",
    "comfy/residency/model_store.py",
    "comfy/loading/stored_parts.py",
    "comfy/residency/arena_pinner.py",
    "comfy/residency/pinning.py",
    "app/read_ahead/*.py",
    "comfy/residency/stand_ins.py",
    "comfy_execution/providers/*.py",
    "comfy_execution/prompt_files/*.py",
    "comfy_execution/shared_keys/*.py",
    "comfy_execution/cache_provider.py",
    "custom_nodes/keepwarm/*.py",
)
LEVELS = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "exception": "error",
    "DEBUG": "debug",
    "INFO": "info",
    "WARNING": "warning",
    "ERROR": "error",
}


def template(text):
    """*text* with ``…`` for conversions, first line only."""
    return re.sub(r"%#?(?:\.\d+)?[sdrfgx]", "…", text).splitlines()[0]


def of_call(node):
    """(level, template) pairs of a call that logs, or that queues a line for the log."""
    attribute = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    owner = ast.unparse(node.func.value) if attribute else ""
    if owner in ("logging", "logger", "log") and attribute in LEVELS:
        return [(LEVELS[attribute], template(text)) for text in texts(node.args[0])]
    if attribute == "write" and owner in ("self", "self.journal"):
        level = getattr(node.args[1], "attr", "") if len(node.args) > 1 else "INFO"
        return [(LEVELS[level], template(text)) for text in texts(node.args[0])] if level in LEVELS else []
    return []


def lines():
    """All of them that have words of their own."""
    found = set()
    for pattern in SOURCES:
        for source in ROOT.glob(pattern):
            for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    found.update(of_call(node))
    return {(level, text) for level, text in found if re.search(r"[a-z]{3}", text)}
