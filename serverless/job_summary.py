"""Says what a job cost, and whether the models it used were warm."""

from dataclasses import asdict, dataclass, field
from typing import Any

HIT_TIERS = frozenset({"ram", "vram", "in use", "store"})


@dataclass(frozen=True, slots=True)
class ModelUse:
    """From the receipts: bytes that were read from disk, parts found in memory, seconds that this saved. None: the server does not say."""

    read_bytes: int | None = None
    hits: int | None = None
    saved_s: float | None = None

    @property
    def temperature(self) -> str:
        """``cold``, ``warm`` or ``unknown``."""
        if self.read_bytes is None:
            return "unknown"
        return "cold" if self.read_bytes else "warm"

    @classmethod
    def from_history(cls, entry: dict[str, Any], server_tells: bool) -> "ModelUse":
        """*server_tells*: it has a RAM model cache, so an entry without receipts is one that loaded nothing."""
        receipts = entry.get("models")
        if not isinstance(receipts, list):
            return cls(0, 0, 0.0) if server_tells else cls()
        receipts = [receipt for receipt in receipts if isinstance(receipt, dict)]
        hits = [receipt for receipt in receipts if receipt.get("tier") in HIT_TIERS]
        read = sum(int(receipt.get("bytes") or 0) for receipt in receipts if receipt.get("tier") in ("disk", "bypass"))
        return cls(read, len(hits), sum(float(receipt.get("seconds") or 0.0) for receipt in hits))


@dataclass(slots=True)
class JobTimes:
    """Seconds per phase; *prompt_s* is the server's: from accepting the prompt to announcing its end."""

    prepare_s: float = 0.0
    upload_s: float = 0.0
    submit_s: float = 0.0
    prompt_s: float = 0.0
    results_s: float = 0.0
    total_s: float = 0.0

    @property
    def worker_s(self) -> float:
        """Seconds spent outside the server's work on the prompt."""
        return max(self.total_s - self.prompt_s, 0.0)


@dataclass(frozen=True, slots=True)
class JobSummary:
    """One finished job. *ran*: the caller's ids of the nodes that ran; *cached*: how many of *nodes* were answered from caches."""

    job_id: str
    prompt_id: str
    outcome: str
    use: ModelUse
    times: JobTimes
    nodes: int = 0
    cached: int = 0
    ran: tuple[str, ...] = field(default=())

    def line(self) -> str:
        """The line for the log."""
        use, times = self.use, self.times
        if self.outcome == "failed" and not self.cached and use.read_bytes is None:
            models = "no prompt ended"
        elif use.read_bytes is None:
            models = "models unknown (the server has no receipts)"
        else:
            models = f"{use.read_bytes} bytes of models from disk, {use.hits} hits saved {use.saved_s:.2f} s"
        phases = ", ".join(f"{name} {getattr(times, name + '_s'):.3f}" for name in ("prepare", "upload", "submit", "prompt", "results"))
        return (
            f"job {self.job_id}: {self.outcome}, {use.temperature}: {models}; {self.nodes - self.cached} of {self.nodes} nodes not "
            f"cached; {times.total_s:.3f} s ({phases}; worker {times.worker_s:.3f}); prompt {self.prompt_id or 'not queued'}"
        )

    def as_report(self) -> dict[str, Any]:
        """The summary as a dict, for a caller that asked for it."""
        return {
            "prompt_id": self.prompt_id,
            "temperature": self.use.temperature,
            "models": asdict(self.use),
            "nodes": self.nodes,
            "cached": self.cached,
            "ran": list(self.ran),
            "seconds": {**asdict(self.times), "worker_s": self.times.worker_s},
        }
