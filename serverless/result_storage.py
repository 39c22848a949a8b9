"""Puts result files into an S3-compatible bucket and makes links to them."""

import importlib
import mimetypes
import os
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

REQUEST_TIMEOUT_S = 120


class StorageError(RuntimeError):
    """Results cannot be stored; the message says which setting or file is meant."""


@dataclass(frozen=True, slots=True)
class BucketSettings:
    """Where results go. Objects lie at ``{endpoint_url}/{name}/{prefix}/{job id}/…``; links are good for *expires_s* seconds."""

    endpoint_url: str
    access_key_id: str
    secret_access_key: str
    name: str
    prefix: str = ""
    region: str = ""
    expires_s: int = 604_800

    def problem(self) -> str | None:
        """What is missing, None when it is complete."""
        missing = [
            variable
            for variable, value in (("BUCKET_ACCESS_KEY_ID", self.access_key_id), ("BUCKET_SECRET_ACCESS_KEY", self.secret_access_key))
            if not value
        ]
        if missing:
            return (
                f"BUCKET_ENDPOINT_URL is set, but {' and '.join(missing)} not: set it, or unset BUCKET_ENDPOINT_URL to get results "
                "as base64"
            )
        if not urlsplit(self.endpoint_url).netloc:
            return f"BUCKET_ENDPOINT_URL is not a URL: {self.endpoint_url!r}"
        return None


def region_of(endpoint_url: str) -> str:
    """The region that an endpoint's host names (``….s3.<region>.…`` or DigitalOcean's), else ``us-east-1``, which others accept."""
    host = urlsplit(endpoint_url).hostname or ""
    if ".s3." in f".{host}":
        rest = f".{host}".split(".s3.", 1)[1].split(".")
        return rest[0] if len(rest) > 2 else "us-east-1"
    if host.endswith(".digitaloceanspaces.com"):
        return host.removesuffix(".digitaloceanspaces.com").rpartition(".")[2]
    return "us-east-1"


class ResultStorage:
    """Uploads through obstore. Calls are independent and may run at the same time."""

    def __init__(self, settings: BucketSettings) -> None:
        """Raises ``StorageError`` when a setting or the package obstore is missing."""
        problem = settings.problem()
        if problem:
            raise StorageError(problem)
        self._settings = settings
        try:
            self._obstore = importlib.import_module("obstore")
            stores = importlib.import_module("obstore.store")
        except ImportError:
            raise StorageError("BUCKET_ENDPOINT_URL needs the package obstore: pip install 'obstore>=0.6'") from None
        try:
            self._store: Any = stores.S3Store(
                settings.name,
                endpoint=settings.endpoint_url.rstrip("/"),
                region=settings.region or region_of(settings.endpoint_url),
                access_key_id=settings.access_key_id,
                secret_access_key=settings.secret_access_key,
                virtual_hosted_style_request=False,
                client_options={
                    "timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
                    "connect_timeout": timedelta(seconds=5),
                    "allow_http": settings.endpoint_url.startswith("http://"),
                },
                retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=15)},
            )
        except Exception as error:
            raise StorageError(f"the bucket {settings.name!r} at {settings.endpoint_url} cannot be used: {error}") from error

    def key(self, job_id: str, filename: str) -> str:
        """Where a file goes: with a prefix under its own name, without one under a random name with its extension."""
        if self._settings.prefix:
            return f"{self._settings.prefix}/{job_id}/{filename}"
        return f"{job_id}/{uuid.uuid4().hex[:8]}{os.path.splitext(filename)[1] or '.png'}"

    async def store(self, job_id: str, filename: str, data: bytes) -> str:
        """Upload *data* and return a link to it. Raises ``StorageError``."""
        key = self.key(job_id, filename)
        content_type = mimetypes.guess_type(filename)[0] or "application/octet-stream"
        try:
            await self._obstore.put_async(self._store, key, data, attributes={"Content-Type": content_type})
            link = await self._obstore.sign_async(self._store, "GET", key, timedelta(seconds=self._settings.expires_s))
        except Exception as error:
            raise StorageError(f"{type(error).__name__} at {self._settings.endpoint_url}/{self._settings.name}/{key}: {error}") from error
        return str(link)
