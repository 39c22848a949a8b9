"""The log that the page shows, and the consoles it is taken from."""

import contextlib
import io
import logging
import sys
import threading

import pytest

from app import logger
from app.logger import CapturedStream, LogBuffer
from app.sockets.log_subscriptions import LogSubscriptions


@pytest.fixture
def consoles(monkeypatch):
    """``with consoles() as (out, err)``: a capture of its own over two in-memory consoles; the root logger is put back afterwards.

    A context manager because pytest swaps the streams and handlers between a fixture and its test.
    """

    @contextlib.contextmanager
    def replaced(out=True):
        streams = io.StringIO() if out else None, io.StringIO()
        root = logging.getLogger()
        handlers, level = list(root.handlers), root.level
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", streams[0])
            patch.setattr(sys, "stderr", streams[1])
            patch.setattr(logger, "_capture", logger._Capture())
            patch.setattr(logger, "STARTUP_WARNINGS", [])
            root.handlers.clear()
            try:
                yield streams
            finally:
                for handler in root.handlers:
                    handler.close()
                root.handlers[:] = handlers
                root.setLevel(level)

    return replaced


def texts():
    return [entry["m"] for entry in logger.get_logs()]


def test_prints_and_log_records_reach_console_and_buffer(consoles):
    with consoles() as (out, err):
        logger.setup_logger("INFO", capacity=10)
        print("hello")
        logging.info("info %d", 1)
        logging.debug("not shown")
        assert out.getvalue() == "hello\n"
        assert err.getvalue() == "info 1\n"
        assert "".join(texts()) == "hello\ninfo 1\n"
        assert logger.get_logs()[0]["t"] <= logger.get_logs()[-1]["t"]


def test_stdout_takes_what_is_below_an_error(consoles):
    with consoles() as (out, err):
        logger.setup_logger("DEBUG", use_stdout=True)
        logging.debug("d")
        logging.error("e")
        assert (out.getvalue(), err.getvalue()) == ("d\n", "e\n")


def test_second_setup_changes_nothing(consoles):
    with consoles():
        logger.setup_logger()
        streams = sys.stdout, sys.stderr
        logger.setup_logger("DEBUG", capacity=1)
        assert (sys.stdout, sys.stderr) == streams
        assert len(logging.getLogger().handlers) == 1


def test_log_file_gets_its_own_level_and_an_unusable_one_is_reported(consoles, tmp_path):
    with consoles() as (_, err):
        logger.setup_logger("WARNING", file_outputs=[("DEBUG", str(tmp_path / "log.txt")), ("DEBUG", str(tmp_path / "none" / "x"))])
        logging.debug("details")
        assert "DEBUG details" in (tmp_path / "log.txt").read_text()
        assert "details" not in err.getvalue()
        assert "No log is written" in err.getvalue()


def test_process_without_consoles_starts(consoles):
    with consoles(out=False) as (_, err):
        logger.setup_logger()
        logging.info("x")
        assert sys.stdout is None
        assert err.getvalue() == "x\n"


def test_startup_warnings_are_repeated_once(consoles):
    with consoles() as (_, err):
        logger.setup_logger()
        logger.log_startup_warning("careful")
        logger.print_startup_warnings()
        logger.print_startup_warnings()
        assert err.getvalue().count("careful") == 2


def test_only_the_last_entries_are_kept():
    buffer = LogBuffer(3)
    for number in range(10):
        buffer.append(str(number))
    assert [entry["m"] for entry in buffer.entries()] == ["7", "8", "9"]


def test_progress_bar_replaces_its_own_line_but_not_a_finished_one():
    buffer = LogBuffer()
    for text in ("done\n", "\r10%", "\r20%", "\r30%\n", "\rnext"):
        buffer.append(text)
    assert [entry["m"] for entry in buffer.entries()] == ["done\n", "\r30%\n", "\rnext"]


def test_new_entries_are_announced_once_at_each_flush():
    buffer, heard = LogBuffer(), []
    stream = CapturedStream(io.StringIO(), buffer)
    stream.write("before anyone listens")
    buffer.subscribe(lambda entries: heard.append([entry["m"] for entry in entries]))
    stream.write("a")
    stream.writelines(["b", "c"])
    stream.flush()
    stream.flush()
    assert heard == [["a", "b", "c"]]


def test_listener_that_prints_does_not_hear_itself():
    buffer, heard = LogBuffer(), []
    stream = CapturedStream(io.StringIO(), buffer)

    def listen(entries):
        heard.append(len(entries))
        stream.write("from the listener")
        stream.flush()

    buffer.subscribe(listen)
    stream.write("a")
    stream.flush()
    stream.flush()
    assert heard == [1]
    assert len(buffer.entries()) == 2


def test_a_failing_listener_is_dropped_and_the_others_continue(caplog):
    buffer, heard = LogBuffer(), []

    def fail(entries):
        raise RuntimeError("socket gone")

    buffer.subscribe(fail)
    buffer.subscribe(heard.append)
    for _ in range(2):
        buffer.append("x")
        buffer.announce()
    assert len(heard) == 2
    assert caplog.text.count("is not called again") == 1


def test_console_that_lacks_a_character_gets_a_replacement():
    console = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    buffer = LogBuffer()
    stream = CapturedStream(console, buffer)
    assert stream.write("naïve") == 5
    stream.flush()
    assert console.buffer.getvalue() == b"na?ve"
    assert buffer.entries()[0]["m"] == "naïve"


def test_captured_stream_passes_for_the_console():
    console = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    stream = CapturedStream(console, LogBuffer())
    assert (stream.encoding, stream.isatty(), stream.buffer) == ("utf-8", False, console.buffer)


def test_writers_on_many_threads_lose_nothing():
    buffer, heard = LogBuffer(100_000), []
    buffer.subscribe(heard.extend)
    stream, start = CapturedStream(io.StringIO(), buffer), threading.Barrier(8)

    def write():
        start.wait()
        for _ in range(200):
            stream.write("x")
            stream.flush()

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(buffer.entries()) == len(heard) == 1600


def test_entries_go_to_subscribers_that_are_still_connected():
    sent, connected = [], {"a", "b"}
    subscriptions = LogSubscriptions(
        lambda event, data, client: sent.append((event, data["entries"], data["size"], client)), connected.__contains__
    )
    entry = [{"t": "now", "m": "x"}]
    subscriptions.publish(entry)
    for client in ("a", "b", "c"):
        subscriptions.subscribe(client)
    subscriptions.unsubscribe("b")
    subscriptions.publish(entry)
    connected.add("c")
    subscriptions.publish(entry)
    assert [(event, client) for event, _, _, client in sent] == [("logs", "a"), ("logs", "a")]
    assert set(sent[0][2]) == {"cols", "rows"}
    assert sent[1][2] is None
