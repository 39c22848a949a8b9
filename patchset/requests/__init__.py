"""Requests: series as they would be sent to ComfyUI, smaller than those for users, by name. Applied only when they are named."""

from patchset.requests import provider_requests, ram_models
from patchset.series.definition import Series

_ALL = (provider_requests.STORES, provider_requests.DEADLINE, provider_requests.DEMAND, provider_requests.SUBGRAPHS, ram_models.CORE)
REQUESTS: dict[str, Series] = {request.name: request for request in _ALL}
