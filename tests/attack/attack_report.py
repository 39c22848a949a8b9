"""The figures of an attack, area by area."""

from dataclasses import dataclass, field

MIB = 1 << 20


@dataclass
class AreaResult:
    """What one area tried and what came of it. Sizes in bytes, times in seconds; None where nothing was measured."""

    area: str
    tries: int = 0
    escapes: list[str] = field(default_factory=list)
    wrong_results: list[str] = field(default_factory=list)
    dead_queues: list[str] = field(default_factory=list)
    latency_p99_s: float | None = None
    latency_max_s: float | None = None
    rss_before_bytes: int | None = None
    rss_peak_bytes: int | None = None

    def row(self) -> tuple[str, ...]:
        """The columns of the table."""
        rss = f"{(self.rss_before_bytes or 0) // MIB} → {self.rss_peak_bytes // MIB}" if self.rss_peak_bytes is not None else "–"
        latency = f"{self.latency_p99_s:.3f} / {self.latency_max_s:.3f}" if self.latency_p99_s is not None else "–"
        counts = (self.tries, len(self.escapes), len(self.wrong_results), len(self.dead_queues))
        return (self.area, *(str(count) for count in counts), latency, rss)


@dataclass
class AttackReport:
    """All areas of one run, what some of them have to say besides, and the seed that repeats it."""

    seed: int
    results: list[AreaResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def table(self) -> str:
        """The figures as text."""
        head = ("area", "tries", "escapes", "wrong results", "dead queues", "latency p99 / max (s)", "RSS before → peak (MiB)")
        rows = [head, *(result.row() for result in self.results)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([f"seed {self.seed} (KEEPWARM_ATTACK_SEED repeats it)", *lines, *self.notes])
