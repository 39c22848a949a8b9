"""Words errors for the callers of a worker: one text that holds everything, because RunPod's SDK passes on nothing else."""

import json
from typing import Any

from serverless.workflow_normalization import NormalizedWorkflow

VALIDATION_FAILED = "Workflow validation failed"
UPLOAD_FAILED = "Failed to upload one or more input images"
PROCESSING_FAILED = "Job processing failed"


class JobFailed(RuntimeError):
    """A job ends without a result. The message and *details* go to the caller."""

    def __init__(self, error: str, details: tuple[str, ...] = ()) -> None:
        super().__init__(error)
        self.error = error
        self.details = details

    def as_result(self) -> dict[str, Any]:
        """``error`` with the details in its text, and ``details`` for callers that receive them."""
        if not self.details:
            return {"error": self.error}
        lines = "\n".join(f"• {detail}" for detail in self.details)
        return {"error": f"{self.error}:\n{lines}", "details": list(self.details)}


def not_reachable(host: str) -> JobFailed:
    """The server never answered."""
    return JobFailed(f"ComfyUI server ({host}) not reachable after multiple retries.")


def execution_error(data: dict[str, Any], names: NormalizedWorkflow) -> str:
    """The line for an ``execution_error`` message."""
    message = names.original_text(str(data.get("exception_message", "")).strip())
    return f"Workflow execution error: {_place(data, names)}, Message: {message}"


def interruption(data: dict[str, Any], names: NormalizedWorkflow) -> str:
    """The line for an ``execution_interrupted`` message."""
    return f"Workflow execution was interrupted: {_place(data, names)}"


def _place(data: dict[str, Any], names: NormalizedWorkflow) -> str:
    return f"Node Type: {data.get('node_type')}, Node ID: {names.original_id(str(data.get('node_id')))}"


def refusal(text: str, names: NormalizedWorkflow, checkpoints: list[str] | None) -> JobFailed:
    """What the server's 400 to ``POST /prompt`` means. *checkpoints*: those there are, None when that is not known."""
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        return JobFailed(f"ComfyUI validation failed (could not parse error response): {text}")
    details = [names.original_text(line) for line in _node_lines(answer.get("node_errors"), names)]
    head = names.original_text(_headline(answer.get("error")))
    if not details:
        return JobFailed(f"{head}. Raw response: {names.original_text(text)}")
    lines = "\n".join(f"• {line}" for line in details)
    return JobFailed(f"{head}:\n{lines}{_checkpoint_hint(details, checkpoints)}")


def names_a_checkpoint(text: str) -> bool:
    """Whether a refusal is about a checkpoint that is not there."""
    return "ckpt_name" in text and "not in list" in text


def _headline(error: Any) -> str:
    if not isinstance(error, dict):
        return str(error) if error else VALIDATION_FAILED
    if error.get("type") == "prompt_outputs_failed_validation":
        return VALIDATION_FAILED
    extra = str(error.get("details") or "")
    message = str(error.get("message") or VALIDATION_FAILED).rstrip(".")
    return message if not extra or extra in message else f"{message}: {extra}"


def _node_lines(node_errors: Any, names: NormalizedWorkflow) -> list[str]:
    lines = []
    for node_id, found in node_errors.items() if isinstance(node_errors, dict) else ():
        errors = found.get("errors") if isinstance(found, dict) else None
        if not isinstance(errors, list):
            lines.append(f"Node {names.original_id(node_id)}: {found}")
            continue
        kind = f", {found['class_type']}" if found.get("class_type") else ""
        lines += [f"Node {names.original_id(node_id)} (errors{kind}): {_one_error(error)}" for error in errors]
    return lines


def _one_error(error: Any) -> str:
    if not isinstance(error, dict):
        return str(error)
    return ": ".join(str(error[part]) for part in ("message", "details") if error.get(part))


def _checkpoint_hint(details: list[str], checkpoints: list[str] | None) -> str:
    if checkpoints is None or not any(names_a_checkpoint(line.lower()) for line in details):
        return ""
    if checkpoints:
        return f"\n\nAvailable checkpoint models: {', '.join(checkpoints)}"
    return "\n\nNo checkpoint models appear to be available. Please check your model installation."
