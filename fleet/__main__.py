"""``python -m fleet up --servers 3 -- --ram-model-cache-mb 2000``: a fleet on this machine, or on a Ray cluster that runs already.

``python -m fleet scale --servers 5`` brings one that runs to another number of servers.
"""

import argparse
import sys

from fleet.on_ray.installed import is_installed
from fleet.settings import ScaleSettings, UpSettings


def parse(arguments: list[str]) -> UpSettings | ScaleSettings:
    """The settings that a command line gives; what follows ``--`` goes to every server. Prints errors and raises ``SystemExit``."""
    own, _, flags = _split(arguments)
    parser = argparse.ArgumentParser(prog="python -m fleet", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start a fleet and serve until Ctrl-C; flags of main.py follow --")
    up.add_argument("--servers", type=_positive, default=1, metavar="N", help="how many servers (default: 1)")
    up.add_argument("--gateways", type=int, default=1, metavar="N", help="how many gateways share the port; 0: none (default: 1)")
    up.add_argument("--listen", default="127.0.0.1", metavar="IP", help="address of the gateways (default: 127.0.0.1)")
    up.add_argument("--port", type=int, default=8188, help="their port (default: 8188)")
    up.add_argument("--address", default=None, metavar="HOST:PORT", help="a Ray cluster that runs already (default: start one here)")
    up.add_argument("--gpus-per-server", type=float, default=None, metavar="N", help="default: 1 where Ray finds one, else 0")
    up.add_argument("--most-per-server", type=_positive, default=100, metavar="N", help="jobs that wait or run at a server (default: 100)")
    up.add_argument("--folder", default="user/fleet", metavar="DIR", help="logs, the token, folders of the servers (default: user/fleet)")
    up.add_argument("--shared-folders", action="store_true", help="all servers use this project's input, output and user folders")
    up.add_argument("--allowed-host", action="append", default=[], metavar="NAME", help="a further name that the gateways answer to")
    up.add_argument("--most-servers", type=int, default=0, metavar="N", help="with more than --servers, their number follows the jobs")
    up.add_argument("--jobs-per-server", type=float, default=2.0, metavar="N", help="jobs on each then, waiting and running (default: 2)")
    up.add_argument("--shrink-after-s", type=float, default=300.0, metavar="S", help="a server too many goes after so long (default: 300)")
    scale = commands.add_parser("scale", help="bring a fleet that runs to another number of servers")
    scale.add_argument("--servers", type=_positive, required=True, metavar="N", help="how many servers")
    scale.add_argument("--address", default=None, metavar="HOST:PORT", help="its Ray cluster (default: the one on this machine)")
    scale.add_argument("--folder", default="user/fleet", metavar="DIR", help="the fleet's folder, with its token (default: user/fleet)")
    given = vars(parser.parse_args(own))
    if given.pop("command") == "scale":
        return ScaleSettings(**given)
    return UpSettings(flags=tuple(flags), **given)


def _split(arguments: list[str]) -> tuple[list[str], bool, list[str]]:
    if "--" not in arguments:
        return arguments, False, []
    position = arguments.index("--")
    return arguments[:position], True, arguments[position + 1 :]


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    settings = parse(sys.argv[1:] if arguments is None else arguments)
    if sys.platform != "linux":
        print("The fleet needs Linux: only there the system ends servers when their supervisor is killed.", file=sys.stderr)
        return 2
    if not is_installed():
        print("The fleet needs Ray Serve: pip install -r requirements-fleet.txt", file=sys.stderr)
        return 2
    from fleet.on_ray.up import scale, up

    return scale(settings) if isinstance(settings, ScaleSettings) else up(settings)


if __name__ == "__main__":
    sys.exit(main())
