"""Saying at start who may use this server."""

import argparse
import logging

from middleware.cross_origin import ANY_ORIGIN, listens_on_loopback_only

log = logging.getLogger(__name__)


def say_who_may_use(args: argparse.Namespace) -> None:
    """One line for each flag that opens the server to more than programs and users of this machine."""
    if not listens_on_loopback_only(args.listen):
        log.warning(
            "--listen %s: whoever can reach port %d may run every installed node, read and write input, output and user data, and stop "
            "others' prompts; there are no passwords (docs/reference/security.md)",
            args.listen,
            args.port,
        )
    if args.enable_cors_header == ANY_ORIGIN:
        log.warning("--enable-cors-header: pages of every site that a user of this server visits may do the same in that user's browser")
    elif args.enable_cors_header:
        log.info("--enable-cors-header: pages of %s may use this server, those of other sites may not", args.enable_cors_header)
