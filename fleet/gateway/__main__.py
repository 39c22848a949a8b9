"""``python -m fleet.gateway --server URL --server URL``: a gateway over servers that run already, without Ray."""

import argparse
import asyncio
import logging
import signal

from aiohttp import web

from comfy.units import MIB
from fleet.gateway.app import Gateway
from fleet.gateway.settings import GatewaySettings
from fleet.plain.static_fleet import StaticFleet

log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> None:
    """Serve until the process is told to end."""
    parser = argparse.ArgumentParser(prog="fleet.gateway", description="One ComfyUI API over several running servers.")
    parser.add_argument("--server", action="append", required=True, metavar="URL", help="a server; once for each of them")
    parser.add_argument("--listen", default="127.0.0.1", help="addresses to listen on, comma-separated (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8188, help="the port (default: %(default)s)")
    parser.add_argument("--folder", default="user/gateway", help="where uploads and users' files are kept (default: %(default)s)")
    parser.add_argument("--own-url", default="", metavar="URL", help="where the servers reach the gateway, if not where it listens")
    parser.add_argument("--max-upload-size", type=float, default=100.0, metavar="MB", help="largest body of a request (default: 100)")
    parser.add_argument("--max-waiting", type=int, default=100, metavar="N", help="most jobs a server may have (default: %(default)s)")
    parser.add_argument("--allowed-host", action="append", default=[], metavar="NAME", help="a further name to answer to")
    parser.add_argument("--enable-cors-header", default=None, metavar="ORIGIN", help="the one origin whose pages may use the gateway")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = GatewaySettings(
        given.folder,
        given.listen,
        given.port,
        given.own_url,
        round(given.max_upload_size * MIB),
        tuple(given.allowed_host),
        given.enable_cors_header,
    )
    urls = {f"s{number}": url for number, url in enumerate(given.server, 1)}
    asyncio.run(_serve(urls, given.max_waiting, settings))


async def _serve(urls: dict[str, str], most_per_server: int, settings: GatewaySettings) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    fleet = StaticFleet(urls, most_per_server)
    await fleet.start()
    gateway = Gateway(fleet, settings)
    runner = web.AppRunner(gateway.make_app(), access_log=None, shutdown_timeout=2.0, auto_decompress=False)
    await runner.setup()
    if runner.server is not None:
        gateway.gate.guard(runner.server)
    try:
        for address in settings.listen.split(","):
            await web.TCPSite(runner, address.strip(), settings.port).start()
        log.info("To see the GUI go to: %s", settings.address)
        log.info("To see the fleet go to: %s/fleet", settings.address)
        await stopping.wait()
    finally:
        await runner.cleanup()
        await fleet.close()


if __name__ == "__main__":
    main()
