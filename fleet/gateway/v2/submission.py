"""The body of ``POST /api/v2/jobs``: read strictly, references to assets replaced by the names of files."""

import uuid
from dataclasses import dataclass
from typing import Any

from app.files.off_loop import off_loop
from app.workflow_conversion import is_saved_workflow
from fleet.gateway.v2.assets import AssetStore
from fleet.gateway.v2.errors import V2Error
from fleet.gateway.v2.outputs import output_of

MOST_KEY_CHARACTERS = 255
MOST_LABELS, MOST_LABEL_CHARACTERS, MOST_METADATA_BYTES = 16, 512, 1024
MOST_PRIORITY = 1_000_000
MOST_DEPTH = 200
_KEYS = uuid.UUID("5d1a6f0c-2f0e-4f41-8f55-6f0b7f1d9c2e")


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job as it was sent; *workflow* may still hold references to assets."""

    prompt_id: str
    workflow: dict[str, Any]
    extra_data: dict[str, Any]
    metadata: Any = None
    priority: int | None = None
    has_key: bool = False

    @classmethod
    def parse(cls, body: dict[str, Any], key: str | None) -> "JobRequest":
        """Read *body*; *key* is the header ``Idempotency-Key``. Raises :class:`V2Error`.

        The key makes the job's id, so one key is one job, on whichever gateway it arrives.
        """
        for name in ("webhook_url", "inputs"):
            if body.get(name) is not None:
                raise V2Error(422, "invalid_workflow", f"'{name}' is reserved and not accepted.")
        workflow = body.get("workflow")
        if not isinstance(workflow, dict):
            raise V2Error(422, "invalid_workflow", "The body needs 'workflow': the nodes by id, in API format.")
        if is_saved_workflow(workflow):
            raise V2Error(422, "workflow_format_ui", 'This is a workflow as the page saves it. Export it with "Export (API)".')
        return cls(_prompt_id(key), workflow, _extra_data(body), _metadata(body), _priority(body), key is not None)


def _prompt_id(key: str | None) -> str:
    if key is None:
        return str(uuid.uuid4())
    if not 1 <= len(key) <= MOST_KEY_CHARACTERS:
        raise V2Error(400, "invalid_request", f"Idempotency-Key must have 1 to {MOST_KEY_CHARACTERS} characters.")
    return str(uuid.uuid5(_KEYS, key))


def _extra_data(body: dict[str, Any]) -> dict[str, Any]:
    given = body.get("extra_data")
    if given is None:
        return {}
    if not isinstance(given, dict) or set(given) - {"api_key_comfy_org"} or not all(isinstance(value, str) for value in given.values()):
        raise V2Error(400, "invalid_request", "'extra_data' takes only 'api_key_comfy_org', a text.")
    return dict(given)


def _metadata(body: dict[str, Any]) -> Any:
    given = body.get("metadata")
    if given is None:
        return None
    if isinstance(given, str):
        if len(given.encode()) > MOST_METADATA_BYTES:
            raise V2Error(422, "metadata_invalid", f"'metadata' has more than {MOST_METADATA_BYTES} bytes.")
        return given
    if not isinstance(given, dict) or len(given) > MOST_LABELS:
        raise V2Error(422, "metadata_invalid", f"'metadata' must be a text, or an object of at most {MOST_LABELS} texts.")
    for name, value in given.items():
        if not isinstance(value, str) or len(name) > MOST_LABEL_CHARACTERS or len(value) > MOST_LABEL_CHARACTERS:
            raise V2Error(422, "metadata_invalid", f"The label {name[:80]!r} must be a text of at most {MOST_LABEL_CHARACTERS} characters.")
    return dict(given)


def _priority(body: dict[str, Any]) -> int | None:
    given = body.get("priority")
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int) or abs(given) > MOST_PRIORITY:
        raise V2Error(422, "invalid_request", f"'priority' must be an integer from -{MOST_PRIORITY} to {MOST_PRIORITY}.")
    return given


async def with_files(workflow: dict[str, Any], store: AssetStore) -> dict[str, Any]:
    """*workflow* with the names of files in the place of ``core/ASSET`` references. Raises :class:`V2Error` for those that lead nowhere."""
    references: list[dict[str, Any]] = []
    _collect(workflow, references, 0)
    names: dict[int, str] = {}
    missing = []
    for reference in references:
        name = await _name_of(reference.get("info"), store)
        if name is None:
            info = reference.get("info")
            missing.append(str(info.get("id") if isinstance(info, dict) else "without info")[:200])
        else:
            names[id(reference)] = name
    if missing:
        raise V2Error(422, "missing_asset", f"These assets are not here: {', '.join(missing)}", {"missing_ids": missing})
    replaced: dict[str, Any] = _replaced(workflow, names) if names else workflow
    return replaced


async def _name_of(info: Any, store: AssetStore) -> str | None:
    if not isinstance(info, dict):
        return None
    asset_id, digest = info.get("id"), info.get("hash")
    output = output_of(asset_id) if isinstance(asset_id, str) else None
    if output is not None:
        return output.as_input
    asset = await off_loop(store.get, asset_id) if isinstance(asset_id, str) else None
    if asset is None and isinstance(digest, str):
        asset = await off_loop(store.with_hash, digest)
    return None if asset is None else asset.path


def _collect(value: Any, found: list[dict[str, Any]], depth: int) -> None:
    if depth > MOST_DEPTH:
        raise V2Error(422, "invalid_workflow", f"The workflow is nested deeper than {MOST_DEPTH} levels.")
    if isinstance(value, dict):
        if value.get("__type") == "core/ASSET":
            found.append(value)
            return
        for item in value.values():
            _collect(item, found, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _collect(item, found, depth + 1)


def _replaced(value: Any, names: dict[int, str]) -> Any:
    if isinstance(value, dict):
        return names[id(value)] if id(value) in names else {key: _replaced(item, names) for key, item in value.items()}
    return [_replaced(item, names) for item in value] if isinstance(value, list) else value
