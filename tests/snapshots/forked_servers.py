"""Loads models as the first phase of a start does, then forks: each child serves on, as a restore of one image would.

    python tests/snapshots/forked_servers.py REQUEST.json

For machines without CRIU. REQUEST: ``flags`` of the server; ``children``, of each its ``port``, ``output`` folder, ``log`` and, perhaps,
the memory control ``group`` that it enters. Forking leaves all threads but one behind, so the children make theirs: they run the whole
start, with the models already there. Ends when all children have.
"""

import gc
import json
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def load(flags):
    """The first phase: everything that the config names is read and held."""
    os.chdir(ROOT)
    sys.argv[:] = ["main.py", *flags]
    sys.path[0] = str(ROOT)
    import main

    main.set_directories()
    import folder_paths
    import nodes
    from comfy.cli_args import args
    from custom_nodes.keepwarm.preload.config import read_config
    from custom_nodes.keepwarm.preload.keepers import keeper_for
    from custom_nodes.keepwarm.preload.preloader import Preloader, State, make_plan

    plan = make_plan(read_config(args.preload_config), nodes.NODE_CLASS_MAPPINGS, folder_paths)
    Preloader(plan, keeper_for(nodes.NODE_CLASS_MAPPINGS)).run()
    assert plan.entries and {entry.state for entry in plan.entries} == {State.HELD}, plan
    gc.collect()
    gc.freeze()


def serve(child):
    """What a child does: the server's own start, from the second phase on its own."""
    with open(child["log"], "ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    if child.get("group"):
        with open(os.path.join(child["group"], "cgroup.procs"), "w", encoding="ascii") as group:
            group.write("0")
    import main
    from comfy.cli_args import args

    args.port, args.output_directory, args.temp_directory = child["port"], child["output"], child["output"]
    main.main()


def main():
    """Load, fork, wait."""
    with open(sys.argv[1], encoding="utf-8") as file:
        request = json.load(file)
    load(request["flags"])
    for child in request["children"]:
        if os.fork() == 0:
            serve(child)
            return
    print("forked", flush=True)
    for _ in request["children"]:
        os.wait()


if __name__ == "__main__":
    main()
