"""Finds the socket that a link leads to. The file counts sockets as the page that saved it laid them out; this class's layout may differ.

As in the page a link first takes the socket with its number, then moves to the one whose name the file gives. A link that finds no
such name stays, unless another needs its place.
"""

from collections.abc import Iterable, Mapping, Sequence

from app.workflow_pages.dynamic_inputs import grow_behind
from app.workflow_pages.graph import Link, Node, Socket
from app.workflow_pages.page_file import SavedSocket


def place_links(node: Node, links: Iterable[Link]) -> None:
    """Lead each link to the socket with its number; one beyond the last socket leads nowhere yet."""
    for link in links:
        if 0 <= link.target_slot < len(node.inputs):
            connect(link, node.inputs[link.target_slot])


def connect(link: Link, socket: Socket) -> None:
    """Lead *link* to *socket*, away from where it led."""
    if link.socket is not None and link.socket.link is link:
        link.socket.link = None
    link.socket, socket.link = socket, link


def align_group_links(node: Node, incoming: Mapping[str, Link], laid_out: Sequence[str]) -> None:
    """Before a combo that brings its own inputs gets its value, move links to their names; growing lists wait for the last round.

    *laid_out* are the names of the node's sockets before its lists grew.
    """
    names = {widget.name for widget in node.widgets}
    if any(_group(name) in names and _group(name) not in node.growers for name in laid_out):
        align_links(node, incoming, [one for one in node.saved.inputs if _group(one.name) not in node.growers])


def align_links(node: Node, incoming: Mapping[str, Link], saved_inputs: Sequence[SavedSocket]) -> None:
    """Move links to the sockets whose names *saved_inputs* give them; lists grow on the way and let further links find theirs."""
    wanted: dict[str, list[str]] = {}
    for saved in saved_inputs:
        if saved.link is not None and saved.link in incoming and not incoming[saved.link].removed:
            wanted.setdefault(saved.link, []).append(saved.name)
    skipped: set[str] = set()
    for _ in range(len(wanted)):
        moves, lost = _moves(node, incoming, wanted, skipped)
        if not moves:
            return
        blocked = _blocked(node, moves, lost)
        if blocked:
            skipped |= blocked
            continue
        for link in lost:
            _remove(link)
        _move(node, moves)


def _moves(
    node: Node, incoming: Mapping[str, Link], wanted: Mapping[str, list[str]], skipped: set[str]
) -> tuple[list[tuple[Link, Socket]], list[Link]]:
    """The links that have to move with their sockets, and those without a name here whose places are needed."""
    places: dict[str, tuple[int, Socket]] = {}
    for index, socket in enumerate(node.inputs):
        places.setdefault(socket.name, (index, socket))
    moves: list[tuple[Link, Socket]] = []
    nameless: list[Link] = []
    for link_id, names in wanted.items():
        link = incoming[link_id]
        fitting = [places[name] for name in names if name in places]
        if not fitting:
            nameless.append(link)
        elif link_id not in skipped and not link.removed and (link.socket is None or link.socket.name not in names):
            moves.append((link, min(fitting, key=lambda place: place[0])[1]))
    taken = {id(socket) for _, socket in moves}
    return moves, [link for link in nameless if not link.removed and link.socket is not None and id(link.socket) in taken]


def _blocked(node: Node, moves: Sequence[tuple[Link, Socket]], lost: Sequence[Link]) -> set[str]:
    """The moves that cannot be made because a link that stays is in the way."""
    going = {id(link) for link, _ in moves} | {id(link) for link in lost}
    blocked = {link.id for link, socket in moves if socket.link is not None and id(socket.link) not in going}
    if not blocked and len({id(socket) for _, socket in moves}) < len(moves):
        return {link.id for link, _ in moves}
    return blocked


def _move(node: Node, moves: Sequence[tuple[Link, Socket]]) -> None:
    for link, _ in moves:
        if link.socket is not None:
            link.socket.link = None
            link.socket = None
    for link, socket in moves:
        connect(link, socket)
    for _, socket in moves:
        grow_behind(node, socket.name)


def _remove(link: Link) -> None:
    if link.socket is not None:
        link.socket.link = None
    link.socket, link.removed = None, True


def _group(name: str) -> str | None:
    at = name.rfind(".")
    return name[:at] if at > 0 else None
