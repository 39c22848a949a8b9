"""The hidden values: what a node can ask for about its run besides its inputs."""

from collections.abc import Mapping
from enum import Enum
from typing import Any, TypedDict


class Hidden(str, Enum):  # noqa: UP042 - the members equal the strings that V1 nodes use
    """The values a schema may list under ``hidden``; see ``HiddenHolder`` for what each holds."""

    unique_id = "UNIQUE_ID"
    prompt = "PROMPT"
    extra_pnginfo = "EXTRA_PNGINFO"
    dynprompt = "DYNPROMPT"
    auth_token_comfy_org = "AUTH_TOKEN_COMFY_ORG"
    api_key_comfy_org = "API_KEY_COMFY_ORG"
    comfy_usage_source = "COMFY_USAGE_SOURCE"


class V3Data(TypedDict, total=False):
    """ComfyUI's bundle of values that accompany one call; this server reads only ``hidden_inputs``."""

    hidden_inputs: dict[str, Any]
    dynamic_paths: dict[str, Any]
    dynamic_paths_default_value: dict[str, Any]
    create_dynamic_tuple: bool


class HiddenHolder:
    """The hidden values of a running node, ``cls.hidden``.

    ``unique_id`` is the node's id, ``prompt`` the whole prompt as it was queued, ``dynprompt`` the prompt with the expansions of nodes,
    and ``extra_pnginfo`` what the page wants to store in saved files; the tokens and the usage source come from the request. Values that
    the node did not ask for, and all other names, are None.
    """

    def __init__(
        self,
        unique_id: Any = None,
        prompt: Any = None,
        extra_pnginfo: Any = None,
        dynprompt: Any = None,
        auth_token_comfy_org: Any = None,
        api_key_comfy_org: Any = None,
        comfy_usage_source: Any = None,
        **kwargs: Any,
    ) -> None:
        self.unique_id = unique_id
        self.prompt = prompt
        self.extra_pnginfo = extra_pnginfo
        self.dynprompt = dynprompt
        self.auth_token_comfy_org = auth_token_comfy_org
        self.api_key_comfy_org = api_key_comfy_org
        self.comfy_usage_source = comfy_usage_source

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):  # so that copying and pickling do not find hooks
            raise AttributeError(name)
        return None

    @classmethod
    def from_dict(cls, d: Mapping[Any, Any] | None) -> "HiddenHolder":
        """A holder of *d*, whose keys are field names (``prompt``) or members of ``Hidden`` (equally their strings, ``PROMPT``)."""
        given = {} if d is None else d
        return cls(**{field.name: given.get(field.name, given.get(field.value)) for field in Hidden})

    @classmethod
    def from_v3_data(cls, v3_data: Mapping[str, Any] | None) -> "HiddenHolder":
        """A holder of the ``hidden_inputs`` in upstream's bundle."""
        return cls.from_dict(v3_data.get("hidden_inputs") if v3_data else None)
