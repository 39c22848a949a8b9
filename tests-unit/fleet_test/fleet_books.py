"""Books for tests: servers with three files, room for two."""

from fleet.books import Durations, FleetBooks, Work
from fleet.values import EndedPrompt, ModelFile, ServerSummary, WarmModel

GB = 10**9
A, B, C = (ModelFile("checkpoints", name, f"contents of {name}", 4 * GB) for name in "abc")


def make_books(*server_ids, files=(A, B, C), cap_bytes=8 * GB):
    """Cold and idle servers; a load takes 4 s, a job 5 s until more is known."""
    books = FleetBooks(Durations())
    for server_id in server_ids:
        books.add(server_id, files, cap_bytes)
    return books


def work(prompt_id, *files, kind="kind"):
    """A job that needs *files*."""
    return Work(prompt_id, tuple(file.place for file in files), kind)


def warm(*files, reload_s=4.0):
    """What a summary says of *files* in memory."""
    return tuple(WarmModel(file, file.size_bytes, reload_s) for file in files)


def summary(*files, running=(), waiting=(), ended=(), cap_bytes=8 * GB):
    """A summary with *files* warm."""
    return ServerSummary("boot", 1, warm(*files), tuple(running), tuple(waiting), tuple(ended), cap_bytes)


def ended(prompt_id, seconds=5.0, read_s=0.0, status="success"):
    """The end of a job."""
    return EndedPrompt(prompt_id, status, seconds, read_s)
