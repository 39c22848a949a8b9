"""The versions of the API that this server offers."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from comfy_api.internal.singleton import ProxiedSingleton


class ComfyAPIBase(ProxiedSingleton):
    """Base of every version's ``ComfyAPI``."""

    VERSION = ""
    STABLE = False


class ComfyAPIWithVersion(NamedTuple):
    """One version and its class."""

    version: str
    api_class: type[ComfyAPIBase]


# Filled by ``register_versions`` at start; oldest first.
registered_versions: list[ComfyAPIWithVersion] = []


def parse_version(version_str: str) -> tuple[float, ...]:
    """Convert *version_str* (``1.2.3``, or ``latest``, the highest) to a tuple that compares. Raises ``ValueError`` for other text."""
    if version_str == "latest":
        return (float("inf"),)
    if not re.fullmatch(r"\d+(\.\d+)*", version_str):
        raise ValueError(f"{version_str!r} is not an API version; it must look like '0.0.2' or be 'latest'")
    return tuple(float(part) for part in version_str.split("."))


def register_versions(versions: Iterable[ComfyAPIWithVersion]) -> None:
    """Make *versions* the ones that ``get_all_versions`` lists, oldest first."""
    registered_versions[:] = sorted(versions, key=lambda entry: parse_version(entry.version))


def get_all_versions() -> list[ComfyAPIWithVersion]:
    """The registered versions, oldest first."""
    return registered_versions
