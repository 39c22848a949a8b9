"""Would another policy serve the RAM model cache better? Two candidates against today's, LRU, MRU and the clairvoyant optimum.

    python benchmarks/policies/candidates.py [--traces 220] [--queue 8] [--plot docs/images/policy-candidates.png] [--check]

*shadows*: caches of today's policy, LRU, MRU and a foreteller run beside each other; the one that saved most seconds of late is followed,
as the experts of LeCaR (Vietri, HotStorage 2018) and CACHEUS (Rodriguez, FAST 2021) are. *queue*: the same, and the next requests are
known; a fifth shadow plans for them. Neither is in the cache; docs/benchmarks/policy.md says what they reach.
"""

import argparse
import pathlib
import statistics
import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

PROJECT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT), str(PROJECT / "benchmarks")]

from policies.planning import continuation, worth_keeping  # noqa: E402
from policies.traces import GENERATORS, NEW_GENERATORS, Trace, committed, generated  # noqa: E402
from policy import keepwarm, lru, mru, optimum  # noqa: E402

from comfy.ram_model_cache.policy import RamCachePolicy  # noqa: E402

MEMORY = 0.98  # of the seconds saved, per request
LEAD, LEAD_LOADS = 1.15, 6  # how far ahead another shadow must be before it is followed, the latter in loads of the key asked for
PAST_KEPT = 256
NAMES = ("today's", "LRU", "MRU", "shadows", "queue")


class Planner:
    """What is known of one trace up to now, and what to keep with a future in mind."""

    def __init__(self, trace: Trace) -> None:
        self.trace, self.learned = trace, RamCachePolicy()
        self.past: deque[str] = deque(maxlen=PAST_KEPT)
        self.queue: Sequence[str] = ()

    def ask(self, key: str, queue: Sequence[str]) -> None:
        """Note the request, and what is known to come after it."""
        self.learned.request(key)
        self.past.append(key)
        self.queue = queue

    def learn(self, key: str) -> None:
        """Note that *key* was loaded."""
        self.learned.learn(key, self.trace.sizes[key], self.trace.seconds[key])

    def place(self, key: str, kept: OrderedDict[str, int], future: Sequence[str]) -> None:
        """Let *key* into *kept*, or not, and out of it what is not worth its place, as *future* wants it."""
        size = self.trace.sizes[key]
        if sum(kept.values()) + size > self.trace.cap:
            wanted = worth_keeping(future, [*kept, key], self.trace.sizes, self._worth, self.trace.cap)
            for other in [other for other in kept if other not in wanted]:
                del kept[other]
            if key not in wanted:
                return
        kept[key] = size

    def _worth(self, key: str) -> tuple[float, float]:
        size = self.trace.sizes[key]
        return self.learned.seconds_for(key, size), self.learned.worth(key, size)


Place = Callable[[Planner, str, OrderedDict[str, int]], None]


def _as_today(planner: Planner, key: str, kept: OrderedDict[str, int]) -> None:
    decision = planner.learned.decide(key, planner.trace.sizes[key], planner.trace.cap, kept)
    for victim in decision.victims:
        del kept[str(victim)]
    if decision.admit:
        kept[key] = planner.trace.sizes[key]


def _by_age(newest: bool) -> Place:
    def place(planner: Planner, key: str, kept: OrderedDict[str, int]) -> None:
        size = planner.trace.sizes[key]
        while size <= planner.trace.cap < sum(kept.values()) + size:
            kept.popitem(last=newest)
        if size <= planner.trace.cap:
            kept[key] = size

    return place


def _foretold(planner: Planner, key: str, kept: OrderedDict[str, int]) -> None:
    planner.place(key, kept, [str(told) for told in continuation(list(planner.past))])


def _as_queued(planner: Planner, key: str, kept: OrderedDict[str, int]) -> None:
    planner.place(key, kept, planner.queue)


class Shadow:
    """A cache without models that follows one policy, and the seconds it saved of late."""

    def __init__(self, place: Place) -> None:
        self.kept: OrderedDict[str, int] = OrderedDict()
        self.saved_s = 0.0
        self._place = place

    def ask(self, planner: Planner, key: str) -> None:
        """What the request for *key* does to it."""
        self.saved_s *= MEMORY
        if key in self.kept:
            self.saved_s += planner.trace.seconds[key]
            self.kept.move_to_end(key)
        else:
            self._place(planner, key, self.kept)


def with_shadows(trace: Trace, ahead: int = 0) -> list[float]:
    """Seconds saved by each request when the best shadow of late is followed, and the next *ahead* requests are known.

    The plan for those, or today's policy where there are none, is followed first, left last and returned to first.
    """
    places = (_as_today, _by_age(False), _by_age(True), _foretold)
    shadows = [Shadow(place) for place in ((_as_queued, *places) if ahead else places)]
    home = followed = shadows[0]
    planner, saved, real = Planner(trace), [], Shadow(_as_queued if ahead else _as_today)
    for now, key in enumerate(trace.requests):
        planner.ask(key, trace.requests[now + 1 : now + 1 + ahead])
        for shadow in shadows:
            shadow.ask(planner, key)
        best = max(shadows, key=lambda shadow: shadow.saved_s)
        if followed is not home and home.saved_s >= followed.saved_s:
            followed = home
        elif best.saved_s > LEAD * followed.saved_s + LEAD_LOADS * trace.seconds[key]:
            followed = best
        saved.append(trace.seconds[key] if key in real.kept else 0.0)
        if followed is home:
            real.ask(planner, key)
        elif key not in real.kept and key in followed.kept:
            _make_room(planner, key, real.kept, followed.kept)
        if not saved[-1]:
            planner.learn(key)
    return saved


def _make_room(planner: Planner, key: str, kept: OrderedDict[str, int], wanted: OrderedDict[str, int]) -> None:
    """Let *key* into *kept*: what is not *wanted* goes first, the least worth per byte leading."""
    size = planner.trace.sizes[key]
    for other in sorted(kept, key=lambda name: (name in wanted, planner.learned.worth(name, kept[name]) / kept[name])):
        if sum(kept.values()) + size <= planner.trace.cap:
            break
        del kept[other]
    kept[key] = size


@dataclass(frozen=True)
class Score:
    """One trace: each policy's share of the optimum, 0 to 1."""

    trace: Trace
    shares: dict[str, float]

    def of_best(self, name: str) -> float:
        """What *name* saves over the most that today's policy, LRU and MRU save."""
        best = max(self.shares[other] for other in NAMES[:3])
        return self.shares[name] / best if best else 1.0


def measured(traces: Sequence[Trace], ahead: int) -> list[Score]:
    """Every policy on *traces*, but for those where nothing can be saved."""
    scores = []
    for trace in traces:
        most_s = optimum(trace)
        runs = (keepwarm(trace), lru(trace), mru(trace), with_shadows(trace), with_shadows(trace, ahead))
        if most_s:
            scores.append(Score(trace, {name: sum(run) / most_s for name, run in zip(NAMES, runs)}))
    return scores


def kind(trace: Trace) -> str:
    """What sort of trace it is, with the sizes of its models."""
    shape = trace.name.split(" of ")[0].removesuffix("-equal").removesuffix("-mixed")
    return f"{shape}, {'mixed' if len(set(trace.sizes.values())) > 1 else 'equal'}"


def means(scores: Sequence[Score]) -> dict[str, dict[str, float]]:
    """{kind: {policy: mean share of the optimum}}."""
    by_kind: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        by_kind[kind(score.trace)].append(score)
    return {name: {who: statistics.fmean(score.shares[who] for score in some) for who in NAMES} for name, some in sorted(by_kind.items())}


def report(scores: Sequence[Score]) -> str:
    """The means by kind as a Markdown table, and below it what falls short of the best simple policy."""
    lines = ["| traces | " + " | ".join(NAMES) + " |", "| --- |" + " ---: |" * len(NAMES)]
    overall = {name: statistics.fmean(score.shares[name] for score in scores) for name in NAMES}
    for name, shares in [*means(scores).items(), (f"all {len(scores)}", overall)]:
        lines.append(f"| {name} | " + " | ".join(f"{shares[who]:.1%}" for who in NAMES) + " |")
    for who in (NAMES[0], *NAMES[3:]):
        low = [score for score in scores if score.of_best(who) < 0.95]
        worst = min(score.of_best(who) for score in scores)
        lines.append(
            f"\n{who}: {len(low)} of {len(scores)} traces below 95 % of the best of today's, LRU and MRU; the lowest at {worst:.0%}"
        )
    return "\n".join(lines)


def shortfalls(scores: Sequence[Score]) -> list[str]:
    """Which figures do not hold: today's policy against the simple ones in the mean, and the plan for a known queue."""
    mean = {name: statistics.fmean(score.shares[name] for score in scores) for name in NAMES}
    found = [
        f"today's policy saves {mean[NAMES[0]]:.1%} of the optimum, {name} {mean[name]:.1%}"
        for name in NAMES[1:3]
        if mean[name] > mean[NAMES[0]]
    ]
    if mean["queue"] < 0.97:
        found.append(f"with the queue known {mean['queue']:.1%} of the optimum are saved, 97 % wanted")
    low = [score.trace.name for score in scores if score.of_best("queue") < 0.95]
    return found + ([f"with the queue known, below 95 % of the best simple policy: {', '.join(low)}"] if low else [])


def plot(scores: Sequence[Score], path: pathlib.Path) -> None:
    """Bars: each policy's mean share of the optimum on each kind of trace, as a PNG."""
    from matplotlib import pyplot

    by_kind = means(scores)
    figure, axes = pyplot.subplots(figsize=(12, 5))
    width = 0.8 / len(NAMES)
    for index, name in enumerate(NAMES):
        axes.bar([place + index * width for place in range(len(by_kind))], [shares[name] for shares in by_kind.values()], width, label=name)
    axes.set_xticks([place + 0.3 for place in range(len(by_kind))], list(by_kind), rotation=40, ha="right")
    axes.set_ylabel("seconds saved / clairvoyant optimum")
    axes.set_ylim(0, 1.02)
    axes.legend(ncols=len(NAMES), loc="upper center", bbox_to_anchor=(0.5, 1.1), frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the table; with ``--check``, exit with an error where a figure does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traces", type=int, default=220, metavar="N", help="generated traces, beside the committed ones (default: 220)")
    parser.add_argument("--queue", type=int, default=8, metavar="K", help="requests known ahead (default: 8)")
    parser.add_argument("--plot", type=pathlib.Path, help="PNG to write")
    parser.add_argument("--check", action="store_true", help="exit with an error where a figure does not hold")
    options = parser.parse_args()
    scores = measured([*committed(), *generated(options.traces, generators=(*GENERATORS, *NEW_GENERATORS))], options.queue)
    print(report(scores))
    if options.plot:
        plot(scores, options.plot)
    broken = shortfalls(scores) if options.check else []
    if broken:
        raise SystemExit("\n".join(broken))


if __name__ == "__main__":
    main()
