"""Which middlewares the settings ask for, and in which order."""

import argparse

from aiohttp.typedefs import Middleware

from middleware.cache_middleware import cache_control
from middleware.compressed_bodies import make_compressed_bodies
from middleware.compression import compress_body
from middleware.content_security import same_origin_content
from middleware.cross_origin import ANY_ORIGIN, OriginRules, make_cors, make_origin_guard
from middleware.deprecation import make_deprecation_warning
from middleware.errors import json_errors


def build_middlewares(args: argparse.Namespace) -> list[Middleware]:
    """From the outermost to the innermost. Errors become answers inside all others, so that every answer gets its headers."""
    middlewares: list[Middleware] = [cache_control, make_deprecation_warning()]
    if args.enable_compress_response_body:
        middlewares.append(compress_body)
    if args.disable_api_nodes:
        middlewares.append(same_origin_content)
    if args.enable_cors_header:
        middlewares.append(make_cors(args.enable_cors_header))
    if args.enable_cors_header != ANY_ORIGIN:
        middlewares.append(make_origin_guard(OriginRules.of(args.listen, args.allowed_host, args.enable_cors_header)))
    middlewares += [json_errors, make_compressed_bodies()]
    return middlewares
