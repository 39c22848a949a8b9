"""Checks the form of a job's input."""

import base64
import binascii
import json
from dataclasses import dataclass, field
from typing import Any

from serverless.workflow_normalization import is_api_workflow, is_page_workflow

BAD_IMAGES = "'images' must be a list of objects with 'name' and 'image' keys"


class InvalidInput(ValueError):
    """The input cannot be run; the message is what the caller gets."""


@dataclass(frozen=True, slots=True)
class InputImage:
    """A file to upload before the workflow runs; *encoded* is base64 or a data URI."""

    name: str
    encoded: str

    def decode(self) -> bytes:
        """The bytes of the file. Raises ``InvalidInput``."""
        try:
            return base64.b64decode(self.encoded.split(",", 1)[-1])
        except (binascii.Error, ValueError) as error:
            raise InvalidInput(f"Error decoding base64 for {self.name}: {error}") from None


@dataclass(frozen=True, slots=True)
class JobInput:
    """A checked input. *timeout_s* None: the worker's own limit; *wants_report*: the result carries what the job cost."""

    workflow: dict[str, Any]
    images: tuple[InputImage, ...] = ()
    comfy_org_api_key: str | None = None
    timeout_s: float | None = None
    wants_report: bool = False
    extra_pnginfo: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, given: Any) -> "JobInput":
        """Check ``job["input"]``, an object or its JSON text. Unknown keys are ignored. Raises ``InvalidInput``."""
        document = _document(given)
        workflow = document.get("workflow")
        if workflow is None:
            raise InvalidInput("Missing 'workflow' parameter")
        return cls(
            _workflow(workflow),
            _images(document.get("images")),
            _api_key(document),
            _timeout(document.get("timeout_s")),
            document.get("report") is True,
            _extra_pnginfo(document.get("extra_pnginfo")),
        )


def _document(given: Any) -> dict[str, Any]:
    if given is None:
        raise InvalidInput("Please provide input")
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            raise InvalidInput("Invalid JSON format in input") from None
    if not isinstance(given, dict):
        raise InvalidInput(f"Please provide input as an object with 'workflow', not as {type(given).__name__}")
    return given


def _workflow(workflow: Any) -> dict[str, Any]:
    if is_page_workflow(workflow):
        raise InvalidInput(
            "'workflow' is in the format that the page saves, which cannot be run: in the page's menu choose "
            "Export (API), or send it with send_request.py, which converts it"
        )
    if not isinstance(workflow, dict):
        raise InvalidInput(f"'workflow' must be an object of nodes by id, not {type(workflow).__name__}")
    wrapped = workflow.get("prompt")
    if is_api_workflow(wrapped) and not is_api_workflow(workflow):
        raise InvalidInput("'workflow' holds a whole /prompt body: send what is under its 'prompt'")
    return workflow


def _images(images: Any) -> tuple[InputImage, ...]:
    if images is None:
        return ()
    if not isinstance(images, list) or not all(isinstance(image, dict) and "name" in image and "image" in image for image in images):
        raise InvalidInput(BAD_IMAGES)
    checked = []
    for image in images:
        if not isinstance(image["name"], str) or not isinstance(image["image"], str) or not image["name"]:
            raise InvalidInput(f"{BAD_IMAGES}, both text")
        checked.append(InputImage(image["name"], image["image"]))
    names = [image.name for image in checked]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInput(f"'images' has the same name more than once, and the later file would replace the earlier: {', '.join(twice)}")
    return tuple(checked)


def _api_key(document: dict[str, Any]) -> str | None:
    """Both documented names are accepted."""
    key = document.get("comfy_org_api_key") or document.get("api_key_comfy_org")
    return key if isinstance(key, str) else None


def _timeout(timeout_s: Any) -> float | None:
    if timeout_s is None:
        return None
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not 0 < timeout_s < 10**9:
        raise InvalidInput(f"'timeout_s' must be a number of seconds above 0, not {timeout_s!r:.80}")
    return float(timeout_s)


def _extra_pnginfo(extra: Any) -> dict[str, Any]:
    return extra if isinstance(extra, dict) else {}
