"""Looks at what the server keeps warm when the worker starts, and logs it for the operator."""

import logging
from dataclasses import dataclass
from typing import Any

from serverless.server_api import ServerAnswer, ServerApi, ServerUnreachable

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelCaching:
    """*is_known*: the server has ``GET /caches``. *keeps_models*: its RAM model cache is on. *providers*: where results are shared."""

    is_known: bool = False
    keeps_models: bool = False
    cap_bytes: int = 0
    kept: int = 0
    held: int = 0
    result_cache: str = "unknown"
    providers: tuple[str, ...] = ()
    preload: str = "unknown"

    @classmethod
    def from_caches(cls, caches: dict[str, Any]) -> "ModelCaching":
        """Read the answer of ``GET /caches``; what is missing counts as off."""
        models = _section(caches, "models")
        stats, entries = _section(models, "stats"), models.get("entries") or []
        results = _section(caches, "results")
        return cls(
            True,
            bool(models.get("enabled")),
            int(stats.get("cap_bytes") or 0),
            int(stats.get("kept") or 0),
            sum(bool(entry.get("held")) for entry in entries if isinstance(entry, dict)),
            str(results.get("mode", "unknown")),
            tuple(str(provider.get("name")) for provider in results.get("providers") or () if isinstance(provider, dict)),
            _preload_text(caches.get("preload")),
        )

    def lines(self) -> list[str]:
        """The lines for the operator's log."""
        if not self.is_known:
            return ["model caching: unknown: the server has no GET /caches (ComfyUI without the patch set), so jobs may be warm or cold"]
        lines = []
        if self.keeps_models:
            lines.append(
                f"model caching: models stay in up to {self.cap_bytes / 1e9:.2f} GB of RAM; {self.kept} kept now, {self.held} held"
            )
        else:
            lines.append(
                "model caching: OFF: models are read from disk again once they have left the accelerator; start the server with "
                "--ram-model-cache-mb N"
            )
        lines.append(f"preload: {self.preload}")
        shared = ", ".join(self.providers) or "nowhere else (--cache-provider URL shares them)"
        lines.append(f"node results: cache mode {self.result_cache}; shared through {shared}")
        if self.result_cache == "none":
            lines.append("node results: --cache-none makes every job compute everything; leave it out on a warm worker")
        return lines


async def configure_model_caching(api: ServerApi) -> ModelCaching:
    """Ask the server what it caches, log it with possible improvements, and return it. A server without the routes is fine."""
    try:
        caches = await api.get_json("/caches")
        caching = ModelCaching.from_caches(caches) if isinstance(caches, dict) else ModelCaching()
    except (ServerAnswer, ServerUnreachable, ValueError) as error:
        log.debug("GET /caches: %s", error)
        caching = ModelCaching()
    for line in caching.lines():
        log.info("%s", line)
    return caching


def _section(document: dict[str, Any], name: str) -> dict[str, Any]:
    section = document.get(name)
    return section if isinstance(section, dict) else {}


def _preload_text(section: Any) -> str:
    """A line for the ``preload`` section of ``/caches``, whatever the server's pack puts there."""
    if not isinstance(section, dict):
        return "none (--preload-config FILE has models ready before the first job)"
    shown = [f"{name} {value}" for name, value in section.items() if isinstance(value, str | int | float | bool)]
    return ", ".join(shown) or "on"
