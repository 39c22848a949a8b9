"""Which server a job goes to: the one where it costs least. Pure: the books are read, never written. Standard library only."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from fleet.books import ServerBook, Work
from fleet.needs import Place
from fleet.values import ServerEstimate

SHOWN_ESTIMATES = 3


@dataclass(frozen=True, slots=True)
class Weights:
    """How much things count, in seconds of waiting; ``benchmarks/routing.py`` shows what comes of them.

    *load*: a second of loading, which keeps the server from other jobs. *eviction*: a second that it will take to load again what has to
    go, if it is warm nowhere else. *ageing*: jobs that need a second of loading let those pass that arrive up to so many seconds later
    and need none; whoever has waited longer than that is passed by nobody.
    """

    load: float = 3.0
    eviction: float = 2.0
    ageing: float = 2.0


DEFAULT_WEIGHTS = Weights()


@dataclass(frozen=True, slots=True)
class Choice:
    """The server, what its queue shall be ordered by (*delay_s* beyond the time of arrival), and what was found of the best servers.

    *warm_servers* have everything warm; with the shortest queue of those it would wait *warm_wait_s* (None: there are none).
    """

    server_id: str
    delay_s: float
    ranked: tuple["Found", ...]
    warm_servers: int
    warm_wait_s: float | None

    @property
    def estimates(self) -> tuple[ServerEstimate, ...]:
        """Of the best servers, the chosen one first."""
        return tuple(
            ServerEstimate(server_id, wait_s, load_s, tuple("/".join(place) for place in missing))
            for _, _, server_id, wait_s, load_s, missing in self.ranked
        )

    @property
    def reason(self) -> str:
        """Why, for people."""
        best = self.estimates[0]
        if not best.missing:
            return f"all its models are warm here; {best.wait_s:.1f} s to wait, the least of {self.warm_servers} such servers"
        lacks = f"{', '.join(best.missing)} must be loaded ({best.load_s:.1f} s)"
        if self.warm_wait_s is None:
            return f"{lacks}, as everywhere else, and that costs least here"
        return f"{lacks}, which costs less than to wait {self.warm_wait_s:.1f} s where all is warm"


Found = tuple[float, int, str, float, float, list[Place]]


def choose(
    work: Work,
    books: Iterable[ServerBook],
    now_s: float,
    weights: Weights = DEFAULT_WEIGHTS,
    copies: Mapping[Place, int] | None = None,
    excluded: Collection[str] = (),
) -> Choice | None:
    """The best of *books* for *work*, none of *excluded*; None when nobody has all its files.

    *copies*: on how many servers each place is warm. A prompt that names no file that is known can run anywhere. Of equal servers, what
    must be loaded goes where least is warm.
    """
    found: list[Found] = []
    for book in books:
        if book.server_id in excluded or not book.can_run(work.needs):
            continue
        missing = book.missing(work.needs)
        wait_s, load_s = book.wait_s(now_s), 0.0
        cost_s = wait_s
        if missing:
            load_s = book.load_s(missing)
            cost_s += weights.load * load_s + weights.eviction * _loss_s(book, missing, work.needs, copies)
        found.append((cost_s, book.warm_bytes if missing else 0, book.server_id, wait_s, load_s, missing))
    return _best(sorted(found), weights) if found else None


def _loss_s(book: ServerBook, missing: list[Place], needs: Collection[Place], copies: Mapping[Place, int] | None) -> float:
    """Seconds that it will take to load again what has to go from *book*, where that is warm nowhere else."""
    gone = book.evicted_by(missing, needs)
    return book.load_s([place for place in gone if copies is None or copies.get(place, 0) <= 1]) if gone else 0.0


def _best(found: list[Found], weights: Weights) -> Choice:
    warm = [one[3] for one in found if not one[5]]
    best = found[0]
    return Choice(best[2], weights.ageing * best[4], tuple(found[:SHOWN_ESTIMATES]), len(warm), min(warm, default=None))


def cheapest_to_lose(books: Iterable[ServerBook], copies: Mapping[Place, int], now_s: float) -> str | None:
    """The server whose loss costs least: seconds of work that waits there, and of loading again what is warm nowhere else."""
    costs = [
        (book.wait_s(now_s) + book.load_s([place for place in book.warm if copies.get(place, 0) <= 1]), len(book.warm), book.server_id)
        for book in books
    ]
    return min(costs, default=(0.0, 0, None))[2]
