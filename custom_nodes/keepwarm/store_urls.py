"""``--cache-provider`` URLs: where results are kept and under which conditions. Credentials never stand in them."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit
from urllib.request import url2pathname

FILE, REDIS, OBJECTS = ("file",), ("redis", "rediss", "unix"), ("s3", "gs", "az")
SCHEMES = FILE + REDIS + OBJECTS
_COMMON = ("mode", "max_value_mb")
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(FILE, (*_COMMON, "max_gb")),
    **dict.fromkeys(REDIS, (*_COMMON, "ttl", "db", "prefix")),
    **dict.fromkeys(OBJECTS, (*_COMMON, "endpoint", "region", "account")),
}
_POSITIVE = ("max_value_mb", "max_gb", "ttl")


class BadUrl(ValueError):
    """A URL that can not be used; the message says what to write instead."""


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """A checked URL: *text* as given, *place* without options, and the options."""

    text: str
    scheme: str
    place: str
    host: str
    path: str
    options: Mapping[str, str]

    @property
    def is_read_only(self) -> bool:
        """Whether nothing is to be stored."""
        return self.options.get("mode") == "ro"

    def number(self, name: str, default: float) -> float:
        """A numeric option."""
        return float(self.options.get(name, default))


def parse_url(text: str) -> StoreUrl:
    """Check *text* and take it apart. Raises ``BadUrl``, whose message shows no credentials."""
    parts = urlsplit(text)
    if "@" in parts.netloc:
        raise BadUrl(f"{redacted(text)}: user name and password do not belong into the URL, where every client can read them. Set "
                     f"{_credentials(parts.scheme)} instead")
    if parts.scheme not in SCHEMES:
        raise BadUrl(f"{redacted(text)}: the scheme {parts.scheme!r} is unknown; use one of {', '.join(SCHEMES)}")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    known = _OPTIONS[parts.scheme]
    for name, value in options.items():
        if name not in known:
            raise BadUrl(f"{redacted(text)}: {parts.scheme} URLs have no option {name!r}; they have {', '.join(known)}")
        if name in _POSITIVE and not _is_positive(value):
            raise BadUrl(f"{redacted(text)}: {name} must be a number above 0, not {value!r}")
    if options.get("mode", "rw") not in ("ro", "rw"):
        raise BadUrl(f"{redacted(text)}: mode is ro (only read) or rw, not {options['mode']!r}")
    path = url2pathname(parts.path) if parts.scheme == "file" else unquote(parts.path)
    _check_place(text, parts.scheme, parts.netloc, path)
    return StoreUrl(text, parts.scheme, urlunsplit(parts._replace(query="", fragment="")), parts.netloc, path, options)


def redacted(text: str) -> str:
    """*text* without what stands before an ``@`` in its host part and without the values of its options' secrets."""
    parts = urlsplit(text)
    host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"***@{host[2]}" if host[1] else host[2]))


def _check_place(text: str, scheme: str, host: str, path: str) -> None:
    if scheme == "file" and (host not in ("", "localhost") or len(path) < 2):
        raise BadUrl(f"{text}: a folder is given as file:///absolute/path, with three slashes")
    if scheme == "unix" and (host or len(path) < 2):
        raise BadUrl(f"{text}: a socket is given as unix:///absolute/path, with three slashes")
    if scheme not in ("file", "unix") and not host:
        raise BadUrl(f"{text}: the {'bucket' if scheme in OBJECTS else 'host'} is missing: {scheme}://NAME")


def _is_positive(value: str) -> bool:
    try:
        return 0 < float(value) < float("inf")
    except ValueError:
        return False


def _credentials(scheme: str) -> str:
    redis = "KEEPWARM_REDIS_USERNAME and KEEPWARM_REDIS_PASSWORD (or KEEPWARM_REDIS_PASSWORD_FILE)"
    return {"s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", "gs": "GOOGLE_APPLICATION_CREDENTIALS",
            "az": "AZURE_STORAGE_ACCOUNT_KEY"}.get(scheme, redis)
