"""Values of flags that are checked while the command line is read; an error says what to write instead."""

import argparse

CACHE_SCHEMES = ("file", "redis", "rediss", "unix", "s3", "gs", "az")


def host_name(value: str) -> str:
    """A host as a Host header names it, without scheme and port."""
    if not value or "/" in value or "@" in value or value.rpartition(":")[2].isdigit() and value.count(":") == 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a host's name alone; write it without https:// and without a port")
    return value.strip("[]").lower()


def cache_url(text: str) -> str:
    """A place to share results. The text of an error shows no credentials."""
    scheme, _, rest = text.partition("://")
    # Behind the host too: a slash in a password moves it there. Names of files may have it.
    if "@" in (rest.partition("/")[0] if scheme in ("file", "unix") else rest):
        raise argparse.ArgumentTypeError(
            "a user name or password in the URL can be read by every client; give it through the environment (KEEPWARM_REDIS_PASSWORD, "
            "AWS_SECRET_ACCESS_KEY, …) and leave it out here (an @ that means itself is written %40)"
        )
    if scheme not in CACHE_SCHEMES:
        known = ", ".join(f"{name}://" for name in CACHE_SCHEMES)
        raise argparse.ArgumentTypeError(f"{text.partition('?')[0]!r} begins with none of {known}")
    return text
