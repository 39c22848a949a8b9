"""Cold, warm and unknown."""

import itertools

from serverless.job_progress import ProgressReporter
from serverless.job_summary import JobSummary, JobTimes, ModelUse
from serverless.server_events import Event

RECEIPTS = [
    {"tier": "disk", "bytes": 10, "seconds": 9.0},
    {"tier": "ram", "bytes": 5, "seconds": 0.5},
    {"tier": "in use", "bytes": 5, "seconds": 0.25},
    {"tier": "store", "bytes": 7, "seconds": 2.0},
    {"tier": "none", "bytes": 0, "seconds": 0.0},
    "odd",
]


def test_receipts_tell_cold_from_warm():
    use = ModelUse.from_history({"models": RECEIPTS}, server_tells=True)
    assert (use.read_bytes, use.hits, use.saved_s, use.temperature) == (10, 3, 2.75, "cold")
    assert ModelUse.from_history({"models": RECEIPTS[1:]}, server_tells=False).temperature == "warm"


def test_no_receipts_mean_warm_only_where_the_server_tells():
    assert ModelUse.from_history({}, server_tells=True).temperature == "warm"
    assert ModelUse.from_history({}, server_tells=False).temperature == "unknown"


def test_the_summary_as_a_line_and_as_a_report():
    times = JobTimes(prepare_s=0.01, submit_s=0.01, prompt_s=1.0, results_s=0.02, total_s=1.04)
    summary = JobSummary("j", "p", "done", ModelUse(0, 2, 0.75), times, nodes=7, cached=4, ran=("3",))
    assert summary.line() == (
        "job j: done, warm: 0 bytes of models from disk, 2 hits saved 0.75 s; 3 of 7 nodes not cached; 1.040 s (prepare 0.010, "
        "upload 0.000, submit 0.010, prompt 1.000, results 0.020; worker 0.040); prompt p"
    )
    report = summary.as_report()
    assert report["temperature"] == "warm" and report["ran"] == ["3"] and round(report["seconds"]["worker_s"], 3) == 0.04
    assert "no prompt ended" in JobSummary("j", "", "failed", ModelUse(), JobTimes()).line()


def test_progress_is_reported_twice_a_second_and_at_the_end_of_each_node():
    reports = []
    clock = itertools.count(0.0, 0.125)
    reporter = ProgressReporter(reports.append, lambda node: node.upper(), lambda: next(clock))
    for value in range(1, 21):
        reporter.take(Event("progress", {"node": "a", "value": value, "max": 20}))
    assert [report["value"] for report in reports] == [1, 5, 9, 13, 17, 20]
    assert {report["node"] for report in reports} == {"A"} and reports[-1]["percent"] == 100.0


def test_the_sum_is_reported_where_a_server_tells_only_of_all_nodes():
    reports = []
    reporter = ProgressReporter(reports.append, str)
    reporter.take(Event("progress_state", {"nodes": {"1": {"value": 1, "max": 1}, "3": {"value": 5, "max": 19, "state": "running"}}}))
    assert reports == [{"type": "progress", "value": 6, "max": 20, "percent": 30.0, "node": "3"}]
    reporter.take(Event("progress_state", {"nodes": {}}))
    assert len(reports) == 1
