"""Jobs as the jobs API shows them: odd entries, paging, previews, cancelling."""

import pytest

from comfy_execution import jobs
from comfy_execution.jobs import JobStatus


def queue_row(prompt_id, created_ms=1, **extra):
    return (3, prompt_id, {"1": {}}, {"create_time": created_ms, **extra}, ["1"])


def entry(prompt_id, created_ms=1, status="success", messages=(), outputs=None, extra=None):
    return {
        "prompt": (1, prompt_id, {}, {"create_time": created_ms} if extra is None else extra, []),
        "outputs": outputs or {},
        "status": {"status_str": status, "completed": status == "success", "messages": list(messages)},
    }


@pytest.mark.parametrize(
    "extra",
    [{"extra_pnginfo": None}, {"extra_pnginfo": {"workflow": None}}, {"extra_pnginfo": "text"}, {"create_time": "soon"}, {}, None, 5],
)
def test_odd_extra_data_never_breaks_the_list(extra):
    listed, total = jobs.get_all_jobs([(1, "r", {}, extra, [])], [], {"h": entry("h", extra=extra or {})})
    assert total == 2 and all(isinstance(job["create_time"], int) for job in listed)


@pytest.mark.parametrize(
    "history",
    [
        {"prompt": ()},
        {"prompt": (1, "h", {}, {}, []), "status": None},
        {"prompt": (1, "h", {}, {}, []), "outputs": None},
        {"prompt": (1, "h", {}, {}, []), "outputs": {"1": {"images": [None, 5, "x", {"filename": 7, "format": 3}]}}},
        {"prompt": (1, "h", {}, {}, []), "status": {"messages": [None, "x", ("execution_start",), ("execution_start", 3)]}},
    ],
)
def test_odd_history_entries_never_break_the_list(history):
    (job,), _ = jobs.get_all_jobs([], [], {"h": history})
    assert job["id"] == "h" and job["status"] == JobStatus.COMPLETED
    assert jobs.get_job("h", [], [], {"h": history})["id"] == "h"


def test_failed_jobs_carry_every_field_the_page_requires():
    failed = entry("h", status="error", messages=[("execution_error", {"node_id": "3", "timestamp": 5})])
    (job,), _ = jobs.get_all_jobs([], [], {"h": failed})
    assert job["status"] == JobStatus.FAILED and job["execution_end_time"] == 5
    assert job["execution_error"] == {
        "node_id": "3",
        "node_type": "",
        "exception_message": "",
        "exception_type": "",
        "traceback": [],
        "timestamp": 5,
    }


def test_filters_sorting_and_pages():
    history = {str(number): entry(str(number), created_ms=number) for number in range(10)}
    history["x"] = entry("x", created_ms=50, status="error", messages=[("execution_interrupted", {"timestamp": 1})])
    running = [queue_row("r", 99, extra_pnginfo={"workflow": {"id": "w"}})]
    everything, total = jobs.get_all_jobs(running, [queue_row("q", 98)], history, limit=3)
    assert total == 13 and [job["id"] for job in everything] == ["r", "q", "x"]
    assert [job["status"] for job in everything] == ["in_progress", "pending", "cancelled"]
    page, total = jobs.get_all_jobs(running, [], history, status_filter=["completed"], sort_order="asc", limit=2, offset=3)
    assert total == 10 and [job["id"] for job in page] == ["3", "4"]
    assert jobs.get_all_jobs(running, [], history, workflow_id="w")[1] == 1
    assert len(jobs.get_all_jobs(running, [], history, offset=-5)[0]) == 12


def test_only_the_jobs_of_the_page_are_summed_up(monkeypatch):
    calls = []
    monkeypatch.setattr(jobs, "get_outputs_summary", lambda outputs: calls.append(1) or (0, None))
    jobs.get_all_jobs([], [], {str(number): entry(str(number)) for number in range(100)}, limit=5)
    assert len(calls) == 5


def test_long_text_previews_are_cut():
    count, preview = jobs.get_outputs_summary({"1": {"text": ["t" * 2000]}})
    assert (count, len(preview["content"]), preview["truncated"]) == (0, 1024, True)


def test_a_job_is_found_wherever_it_is():
    running, queued, history = [queue_row("r")], [queue_row("q")], {"h": entry("h")}
    assert [jobs.get_job(key, running, queued, history)["status"] for key in "rqh"] == ["in_progress", "pending", "completed"]
    assert jobs.get_job("absent", running, queued, history) is None


@pytest.mark.parametrize(
    "prompt_id, interrupted, dequeued, result",
    [
        ("r", True, False, jobs.CANCEL_RUNNING),
        ("r", False, False, jobs.CANCEL_UNKNOWN),
        ("q", False, True, jobs.CANCEL_PENDING),
        ("q", True, False, jobs.CANCEL_RUNNING),
        ("q", False, False, jobs.CANCEL_UNKNOWN),
        ("h", True, True, jobs.CANCEL_TERMINAL),
        ("absent", True, True, jobs.CANCEL_UNKNOWN),
    ],
)
def test_cancelling_says_what_really_happened(prompt_id, interrupted, dequeued, result):
    arguments = [queue_row("r")], [queue_row("q")], {"h": entry("h")}
    assert jobs.cancel_job(prompt_id, *arguments, lambda key: interrupted, lambda key: dequeued) == result


@pytest.mark.parametrize("value", ["A1B2C3D4-E5F6-7A89-B0C1-D2E3F4A5B6C7", "a1b2", "", None, 5, "{a1b2c3d4-e5f6-7a89-b0c1-d2e3f4a5b6c7}"])
def test_ids_in_another_spelling_are_refused(value):
    with pytest.raises(ValueError):
        jobs.validate_job_id(value)
