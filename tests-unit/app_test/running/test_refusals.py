"""What the log says of refused prompts."""

import logging

from app.files.seldom import Seldom
from app.running.refusals import MAX_NODES, RefusalLog

ERROR = {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation", "details": "all of them"}


def wrong(kind="value_not_in_list", class_type="Load", text="no such file"):
    return {"class_type": class_type, "errors": [{"type": kind, "message": text, "details": "x"}]}


def test_the_full_text_of_a_refusal_is_logged_once_a_minute_and_the_rest_is_counted(caplog):
    now_s = [0.0]
    refusals = RefusalLog(Seldom(lambda: now_s[0]).is_due)
    for number in range(50):
        refusals.tell(ERROR, {str(node): wrong(text=f"no file {number}") for node in range(MAX_NODES + 5)})
    assert len(caplog.records) == MAX_NODES + 2 and "Node 0 (Load) cannot run: no file 0: x" in caplog.text
    assert "5 more nodes cannot run" in caplog.text and "Refused a prompt: Prompt outputs failed validation all of them" in caplog.text
    caplog.clear()
    refusals.tell(ERROR, {"1": wrong(class_type="Save")})
    assert len(caplog.records) == 3 and "49 more prompts" in caplog.text
    caplog.clear()
    now_s[0] = 61.0
    refusals.tell(ERROR, {"1": wrong(text="again")})
    assert "again" in caplog.text and "more prompts" not in caplog.text


def test_outputs_left_out_of_an_accepted_prompt_are_reported(caplog):
    refusals = RefusalLog()
    refusals.tell(None, {})
    assert not caplog.records
    refusals.tell(None, {"1": wrong()})
    assert [record.levelno for record in caplog.records] == [logging.ERROR] and "cannot run" in caplog.text


def test_verdicts_of_packs_in_any_shape_raise_nothing(caplog):
    refusals = RefusalLog(lambda kind: True)
    for node_errors in (None, [], {"1": None}, {1: {"errors": None}}, {"1": {"errors": [1, {}, {"message": 5, "details": None}]}}):
        refusals.tell({"message": "no"}, node_errors)
    assert caplog.text.count("Refused a prompt: no") == 5
