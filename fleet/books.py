"""What the router knows of the fleet: which models are warm where, what is on its way there, and how long things take.

The books follow what was sent at once, and are corrected by what servers report. Not thread-safe; nothing here blocks. Standard library
only.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from fleet.needs import Place
from fleet.shortlist import Shortlist
from fleet.values import EndedPrompt, ModelFile, ServerSummary

UNKNOWN_JOB_S = 5.0
UNKNOWN_SECONDS_PER_BYTE = 1e-9
LEARNING = 0.3
OVERDUE = 0.1
KINDS_REMEMBERED = 10_000
# In fleets up to this size every server is looked at for every job.
FEW = 32


@dataclass(frozen=True, slots=True)
class Work:
    """What a job is to the router: the places of its models, and the *kind* of prompt, which tells about how long it computes."""

    prompt_id: str
    needs: tuple[Place, ...]
    kind: str = ""


@dataclass(slots=True)
class _Sent:
    """What a job at a server is expected to take; everything else about it is in the ``JobTable``."""

    work: Work
    compute_s: float
    load_s: float

    @property
    def seconds(self) -> float:
        """Both together."""
        return self.compute_s + self.load_s


class Durations:
    """How long loads and computations take, learnt from receipts. Loads are known by what a file contains, not by its name."""

    def __init__(self, job_s: float = UNKNOWN_JOB_S) -> None:
        self._job_s = job_s
        self._by_kind: dict[str, float] = {}
        self._loads: dict[str, tuple[float, int]] = {}
        self._seconds_per_byte = UNKNOWN_SECONDS_PER_BYTE

    def compute_s(self, kind: str) -> float:
        """Seconds that a job of *kind* computes; of an unknown one the mean of all."""
        return self._by_kind.get(kind, self._job_s)

    def learn_job(self, kind: str, seconds: float) -> None:
        """Note that a job of *kind* computed for *seconds*."""
        known = self._by_kind.get(kind)
        if known is None and len(self._by_kind) >= KINDS_REMEMBERED:
            del self._by_kind[next(iter(self._by_kind))]
        self._by_kind[kind] = seconds if known is None else known + LEARNING * (seconds - known)
        self._job_s += 0.1 * (seconds - self._job_s)

    def learn_load(self, identity: str, seconds: float, size_bytes: int) -> None:
        """Note that the file of contents *identity* took *seconds* to load and takes *size_bytes* of memory."""
        self._loads[identity] = seconds, size_bytes
        if size_bytes > 0 and seconds > 0:
            self._seconds_per_byte += LEARNING * (seconds / size_bytes - self._seconds_per_byte)

    def load_of(self, file: ModelFile) -> tuple[float, int]:
        """(seconds, bytes of memory) of loading *file*: measured on any server that has the same contents, else by its size."""
        known = self._loads.get(file.identity) if file.identity is not None else None
        return known or (file.size_bytes * self._seconds_per_byte, file.size_bytes)


@dataclass(slots=True)
class ServerBook:
    """One server: *files* it has, what will be *warm* (bytes by place, least recently used first) when all that was *sent* has run.

    *busy_since_s*: since when the first of *sent* runs. *copies* counts for the whole fleet on how many servers each place is warm.
    *warm_changes* grows whenever *warm* holds other places.
    """

    server_id: str
    durations: Durations
    copies: Counter[Place]
    cap_bytes: int = 0
    files: Mapping[Place, ModelFile] = field(default_factory=dict)
    warm: dict[Place, int] = field(default_factory=dict)
    sent: dict[str, _Sent] = field(default_factory=dict)
    busy_since_s: float = 0.0
    expected_s: float = 0.0
    warm_bytes: int = 0
    warm_changes: int = 0

    def wait_s(self, now_s: float) -> float:
        """Seconds until all that was sent has run. A job that is late is expected to take a while longer, the more the later it is."""
        return max(0.0, self.idle_at_s(now_s) - now_s) if self.sent else 0.0

    def idle_at_s(self, now_s: float) -> float:
        """When the server will be idle, as far as is known at *now_s*: 0 if it is, and never earlier as time passes without an end."""
        if not self.sent:
            return 0.0
        first_s, ran_s = next(iter(self.sent.values())).seconds, now_s - self.busy_since_s
        if ran_s < first_s:
            return self.busy_since_s + self.expected_s
        return now_s + self.expected_s - first_s + ran_s * OVERDUE

    def missing(self, needs: Iterable[Place]) -> list[Place]:
        """Those of *needs* that are not warm when the turn comes."""
        return [place for place in needs if place not in self.warm]

    def load_s(self, places: Iterable[Place]) -> float:
        """Seconds that loading *places* takes here."""
        return sum([self.durations.load_of(self._file(place))[0] for place in places])

    def can_run(self, needs: Iterable[Place]) -> bool:
        """Whether all files are here."""
        return all(map(self.files.__contains__, needs))

    def evicted_by(self, places: Iterable[Place], kept: Iterable[Place]) -> list[Place]:
        """What must go to make room for *places*, of what is not in *kept*."""
        if not self.cap_bytes:
            return []
        wanted = self.warm_bytes + sum([self.durations.load_of(self._file(place))[1] for place in places]) - self.cap_bytes
        if wanted <= 0:
            return []
        spared, gone = set(kept), []
        for place, size in self.warm.items():
            if wanted <= 0:
                break
            if place not in spared:
                gone.append(place)
                wanted -= size
        return gone

    def send(self, work: Work, now_s: float) -> None:
        """Note that *work* is on its way."""
        if not self.sent:
            self.busy_since_s = now_s
        missing = self.missing(work.needs)
        load_s = self.load_s(missing) if missing else 0.0
        sent = self.sent[work.prompt_id] = _Sent(work, self.durations.compute_s(work.kind), load_s)
        self.expected_s += sent.seconds
        self._use(work.needs)

    def end(self, prompt_id: str, now_s: float) -> Work | None:
        """Note that a job is gone from here, whatever became of it; returns it, None for an unknown one."""
        sent = self.sent.get(prompt_id)
        if sent is None:
            return None
        if next(iter(self.sent)) == prompt_id:
            self.busy_since_s = now_s
        del self.sent[prompt_id]
        self.expected_s = self.expected_s - sent.seconds if self.sent else 0.0
        return sent.work

    def correct(self, summary: ServerSummary, now_s: float) -> None:
        """Take over what the server says is warm and runs; what was sent and has not run is added to that again."""
        actual = {model.file.place: model.bytes for model in summary.warm}
        known = [place for place in self.warm if place in actual]
        self.copies.subtract(self.warm.keys())
        self.warm = {place: actual[place] for place in (*(place for place in actual if place not in self.warm), *known)}
        self.copies.update(self.warm.keys())
        self.warm_changes += 1
        self.warm_bytes, self.cap_bytes = sum(self.warm.values()), summary.cap_bytes
        order = {prompt_id: position for position, prompt_id in enumerate((*summary.running, *summary.waiting))}
        first = next(iter(self.sent), None)
        self.sent = dict(sorted(self.sent.items(), key=lambda item: order.get(item[0], len(order))))
        if next(iter(self.sent), None) != first:
            self.busy_since_s = now_s
        self.expected_s = 0.0
        for sent in self.sent.values():
            sent.load_s = self.load_s(self.missing(sent.work.needs))
            self.expected_s += sent.seconds
            self._use(sent.work.needs)

    def _use(self, needs: Iterable[Place]) -> None:
        """Make *needs* the most recently used; the others go as far as there is no room."""
        missing = self.missing(needs)
        if missing:
            self.warm_changes += 1
            for place in self.evicted_by(missing, needs):
                self.warm_bytes -= self.warm.pop(place)
                self.copies[place] -= 1
        for place in needs:
            if place in self.warm:
                self.warm[place] = self.warm.pop(place)
        for place in missing:
            size = self.durations.load_of(self._file(place))[1]
            if not self.cap_bytes or self.warm_bytes + size <= self.cap_bytes:
                self.warm[place] = size
                self.warm_bytes += size
                self.copies[place] += 1

    def _file(self, place: Place) -> ModelFile:
        return self.files.get(place) or ModelFile(*place)


class FleetBooks:
    """The books of all servers, and what was learnt. *copies* counts on how many servers each place is warm."""

    def __init__(self, durations: Durations | None = None) -> None:
        self.durations = durations or Durations()
        self.servers: dict[str, ServerBook] = {}
        self.copies: Counter[Place] = Counter()
        self._shortlist = Shortlist(lambda server_id, now_s: self.servers[server_id].idle_at_s(now_s))
        self._listed: dict[str, int] = {}

    def add(self, server_id: str, files: Iterable[ModelFile] = (), cap_bytes: int = 0) -> ServerBook:
        """Open the book of a server, cold and idle, in place of an older one."""
        self.remove(server_id)
        book = ServerBook(server_id, self.durations, self.copies, cap_bytes, {file.place: file for file in files})
        self.servers[server_id] = book
        self._moved(book, 0.0)
        return book

    def remove(self, server_id: str) -> list[Work]:
        """Close a book; returns what was on its way."""
        book = self.servers.pop(server_id, None)
        if book is None:
            return []
        self._shortlist.gone(server_id)
        self._listed.pop(server_id, None)
        self.copies.subtract(book.warm.keys())
        return [sent.work for sent in book.sent.values()]

    def candidates(self, needs: Iterable[Place], now_s: float) -> list[ServerBook]:
        """The servers worth a look for a job with *needs*: in a small fleet all of them. *now_s* never goes back."""
        if len(self.servers) <= FEW:
            return list(self.servers.values())
        return [self.servers[server_id] for server_id in self._shortlist.candidates(needs, now_s)]

    def send(self, server_id: str, work: Work, now_s: float) -> None:
        """Note that *work* is on its way to a server."""
        book = self.servers[server_id]
        book.send(work, now_s)
        if self._listed[server_id] != book.warm_changes:
            self._moved(book, now_s)

    def withdraw(self, server_id: str, prompt_id: str, now_s: float) -> None:
        """Note that a job is gone from a server without having run."""
        book = self.servers.get(server_id)
        if book is not None:
            book.end(prompt_id, now_s)
            self._moved(book, now_s)

    def report(self, server_id: str, summary: ServerSummary, now_s: float) -> None:
        """Learn from what a server says of itself, and correct its book."""
        book = self.servers[server_id]
        for model in summary.warm:
            if model.file.identity is not None:
                self.durations.learn_load(model.file.identity, model.reload_s, model.bytes)
                known = book.files.get(model.file.place)
                if known is None or known.identity != model.file.identity:
                    book.files = {**book.files, model.file.place: model.file}
        for ended in summary.ended:
            self._end(book, ended, now_s)
        book.correct(summary, now_s)
        self._moved(book, now_s)

    def end(self, server_id: str, ended: EndedPrompt, now_s: float) -> None:
        """Note the end of a job and what it took; a second time, nothing."""
        book = self.servers[server_id]
        self._end(book, ended, now_s)
        self._moved(book, now_s)

    def _end(self, book: ServerBook, ended: EndedPrompt, now_s: float) -> None:
        work = book.end(ended.prompt_id, now_s)
        if work is not None and ended.status == "success":
            self.durations.learn_job(work.kind, max(0.0, ended.seconds - ended.read_s))

    def _moved(self, book: ServerBook, now_s: float) -> None:
        if self._listed.get(book.server_id) != book.warm_changes:
            self._listed[book.server_id] = book.warm_changes
            self._shortlist.warmed(book.server_id, book.warm)
        self._shortlist.moved(book.server_id, book.idle_at_s(now_s))

    def conflicts(self) -> Iterator[tuple[Place, str, str]]:
        """(place, server, other server) where two servers have different contents under one name."""
        seen: dict[Place, tuple[str, ModelFile]] = {}
        for server_id, book in self.servers.items():
            for place, file in book.files.items():
                first = seen.setdefault(place, (server_id, file))
                if not may_be_same(first[1], file):
                    yield place, first[0], server_id


def may_be_same(one: ModelFile, other: ModelFile) -> bool:
    """Whether two files of one name can hold the same: sizes and, where both are known, fingerprints are equal."""
    if one.size_bytes != other.size_bytes:
        return False
    return one.identity is None or other.identity is None or one.identity == other.identity
