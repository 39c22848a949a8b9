"""What the routes need to know about users."""

from typing import Protocol

from aiohttp import web


class UserFiles(Protocol):
    """Finds the files of the user who sent a request; ``UserManager`` is the one implementation."""

    def get_request_user_filepath(
        self,
        request: web.Request,
        file: str | None,
        type: str = "userdata",  # noqa: A002
        create_dir: bool = True,
    ) -> str | None:
        """The path of *file* (None: the folder itself) in the folder of the user who sent *request*; None outside that folder."""
        ...
