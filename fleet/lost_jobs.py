"""How jobs end, read from history entries, and made up for jobs whose server cannot say it any more."""

import time
from typing import Any

from fleet.job_table import JobRecord
from fleet.values import JobState

# Members of the extra data that nobody is shown.
SECRETS = ("auth_token_comfy_org", "api_key_comfy_org")


def ended_state(entry: dict[str, Any]) -> JobState:
    """The end that a history entry tells of."""
    status = entry.get("status") or {}
    if status.get("status_str") != "error":
        return JobState.SUCCEEDED
    kinds = [message[0] for message in status.get("messages") or () if isinstance(message, list | tuple) and message]
    return JobState.CANCELLED if "execution_interrupted" in kinds else JobState.FAILED


def lost_entry(record: JobRecord, failure: str) -> dict[str, Any]:
    """A history entry, as a server would have made it, for a job that ended with its server."""
    body = {} if record.job is None else record.job.body
    shown = {key: value for key, value in (body.get("extra_data") or {}).items() if key not in SECRETS}
    extra_data = {**shown, "create_time": int(record.submitted_s * 1000)}
    if record.client_id is not None:
        extra_data["client_id"] = record.client_id
    error: dict[str, Any] = {
        "prompt_id": record.prompt_id,
        "node_id": "",
        "node_type": "",
        "executed": [],
        "exception_message": failure,
        "exception_type": "ServerLost",
        "traceback": [],
        "current_inputs": {},
        "current_outputs": [],
        "timestamp": int(time.time() * 1000),
    }
    return {
        "prompt": [record.number, record.prompt_id, body.get("prompt") or {}, extra_data, []],
        "outputs": {},
        "status": {"status_str": "error", "completed": False, "messages": [["execution_error", error]]},
        "meta": {},
    }
