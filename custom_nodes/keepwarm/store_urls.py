"""``--cache-provider`` URLs: where results are kept and under which conditions. They never hold credentials."""

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
    """A URL that cannot be used; the message says what to write instead."""


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
    shown = redacted(text)
    if _may_hold_credentials(text):
        raise BadUrl(
            f"{shown}: user name and password do not belong into the URL, where every client can read them. Set "
            f"{_credentials(text.partition('://')[0])} instead (an @ that means itself is written %40)"
        )
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise BadUrl(f"{shown}: {error}") from None
    if parts.scheme not in SCHEMES:
        raise BadUrl(f"{shown}: the scheme {parts.scheme!r} is unknown; use one of {', '.join(SCHEMES)}")
    if parts.fragment:
        raise BadUrl(f"{shown}: what follows a # does not belong to a URL; a # that means itself is written %23")
    if port is not None and parts.scheme in OBJECTS:
        raise BadUrl(f"{shown}: a bucket has no port; another server is given as endpoint=http://HOST:PORT")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    _check_options(shown, parts.scheme, options)
    path = url2pathname(parts.path) if parts.scheme == "file" else unquote(parts.path)
    _check_place(shown, parts.scheme, parts.netloc, path)
    return StoreUrl(text, parts.scheme, urlunsplit(parts._replace(query="", fragment="")), parts.netloc, path, options)


def redacted(text: str) -> str:
    """*text* for people: without what may be credentials, and with values of known options only. Never raises."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    if _may_hold_credentials(text):
        rest = "***@" + rest.rpartition("@")[2]
    place, question_mark, query = rest.partition("?")
    known = _OPTIONS.get(scheme, ())
    options = [option if option.partition("=")[0] in known else f"{option.partition('=')[0]}=***" for option in query.split("&") if option]
    return f"{scheme}{separator}{place}{question_mark}{'&'.join(options)}"


def _may_hold_credentials(text: str) -> bool:
    """Whether there is an @ before which a user name may stand, also where a careless password moved it out of the host part."""
    scheme, separator, rest = text.partition("://")
    if scheme in FILE or scheme == "unix":
        rest = rest.partition("/")[0]
    return bool(separator) and "@" in rest


def _check_options(shown: str, scheme: str, options: Mapping[str, str]) -> None:
    known = _OPTIONS[scheme]
    for name, value in options.items():
        if name not in known:
            raise BadUrl(f"{shown}: {scheme} URLs have no option {name!r}; they have {', '.join(known)}")
        if name in _POSITIVE and not _is_positive(value):
            raise BadUrl(f"{shown}: {name} must be a number above 0, not {value!r}")
    if options.get("mode", "rw") not in ("ro", "rw"):
        raise BadUrl(f"{shown}: mode is ro (only read) or rw, not {options['mode']!r}")
    if not options.get("db", "0").isdecimal():
        raise BadUrl(f"{shown}: db is the number of a database, not {options['db']!r}")
    if float(options.get("ttl", "1")) < 1:
        raise BadUrl(f"{shown}: ttl is in seconds, 1 or more")
    if not options.get("endpoint", "https://").startswith(("http://", "https://")):
        raise BadUrl(f"{shown}: endpoint begins with http:// or https://")


def _check_place(text: str, scheme: str, host: str, path: str) -> None:
    if scheme == "file" and (host not in ("", "localhost") or len(path) < 2):
        raise BadUrl(f"{text}: a folder is given as file:///absolute/path, with three slashes")
    if scheme == "unix" and (host or len(path) < 2):
        raise BadUrl(f"{text}: a socket is given as unix:///absolute/path, with three slashes")
    if scheme in ("redis", "rediss") and path.strip("/") and not path.strip("/").isdecimal():
        raise BadUrl(f"{text}: after the host stands the number of a database, as in {scheme}://HOST:6379/0")
    if scheme not in ("file", "unix") and not host:
        raise BadUrl(f"{text}: the {'bucket' if scheme in OBJECTS else 'host'} is missing: {scheme}://NAME")


def _is_positive(value: str) -> bool:
    try:
        return 0 < float(value) < float("inf")
    except ValueError:
        return False


def _credentials(scheme: str) -> str:
    redis = "KEEPWARM_REDIS_USERNAME and KEEPWARM_REDIS_PASSWORD (or KEEPWARM_REDIS_PASSWORD_FILE)"
    return {
        "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        "gs": "GOOGLE_APPLICATION_CREDENTIALS",
        "az": "AZURE_STORAGE_ACCOUNT_KEY",
    }.get(scheme, redis)
