"""Requests: series as they would be sent to ComfyUI, smaller than those for users, by name. Applied only when they are named."""

from patchset.requests import provider_requests, ram_models, ram_models_more
from patchset.series.definition import Series

_CACHE = (ram_models.CORE, ram_models_more.PRESSURE, ram_models_more.RECEIPTS, ram_models_more.READER)
_PROVIDERS = (provider_requests.STORES, provider_requests.DEADLINE, provider_requests.DEMAND, provider_requests.SUBGRAPHS)
REQUESTS: dict[str, Series] = {request.name: request for request in (*_PROVIDERS, *_CACHE)}
