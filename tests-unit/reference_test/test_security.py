"""docs/reference/security.md: the limits are those of the code."""

import pathlib

from app import app_settings, user_manager
from app.files import body_budget, json_body, json_file, off_loop
from app.logger import MAX_ENTRY_LENGTH
from app.routes import object_info, upload_form, view
from app.running import prompt_checking, stop_watch
from app.sockets import connection_gate, hub, inbound_budget, outbox
from comfy.cli_args import args
from comfy.images import picture_files
from comfy.units import MIB
from comfy_execution.prompt_checks import failures
from utils import folder_walk

ROWS = {
    row[1].strip(): row[2].strip()
    for line in (pathlib.Path(__file__).resolve().parents[2] / "docs/reference/security.md").read_text(encoding="utf-8").splitlines()
    if len(row := line.split("|")) == 6
}


def test_every_limit_is_that_of_the_code():
    expected = {
        "request body": f"{args.max_upload_size:.0f} MB",
        "values in a JSON body": f"{json_body.MAX_VALUES:,}",
        "request bodies in memory, all clients together": f"{body_budget.MOST_BYTES // MIB} MiB, at most a tenth of the free RAM",
        "time for a body to arrive": f"{body_budget.BODY_LIMIT_S:.0f} s; an upload's form {upload_form.FORM_LIMIT_S:,.0f} s",
        "parts of an upload's form": f"{upload_form.MAX_PARTS}, texts of {upload_form.MAX_TEXT_BYTES // MIB} MiB",
        "depth of paths, sent or saved to": f"{folder_walk.MAX_DEPTH} folders",
        "settings of a user": f"{app_settings.MAX_SETTINGS_BYTES // MIB} MiB, {json_file.MAX_DEPTH} levels",
        "users": f"{user_manager.MAX_USERS:,}, names of {user_manager.MAX_NAME_LENGTH} characters",
        "pixels of a picture": "16,384 × 16,384",
        "memory to decode a picture, all its frames": f"{picture_files.SHARE_OF_FREE_RAM:.0%} of the RAM that is free".replace("%", " %"),
        "pictures over 16 megapixels": "one at a time",
        "reading from disk for a request": f"{off_loop.READ_LIMIT_S:.0f} s; writing {off_loop.WRITE_LIMIT_S:.0f} s; "
        f"describing nodes {object_info.DESCRIBE_LIMIT_S:.0f} s; a preview {view.ENCODE_LIMIT_S:.0f} s",
        "checking a prompt, with what its nodes' classes do meanwhile": f"{prompt_checking.CHECK_LIMIT_S:.0f} s; "
        f"after {prompt_checking.TURN_S:.0f} s the next prompt is checked beside it",
        "checks left behind that still hang": f"{prompt_checking.MAX_LEFT_BEHIND}",
        "errors in the answer to a prompt": f"{failures.MAX_ANSWER:,} characters",
        "folders listed": f"{folder_walk.MAX_FOLDERS:,}, {folder_walk.MAX_DEPTH} deep",
        "connections": f"as many files as the process may open less {connection_gate.RESERVED_FILES}, "
        f"at most {connection_gate.MOST_CONNECTIONS:,}",
        "connections of one address without a request": f"{connection_gate.UNFINISHED_PER_PEER}, "
        f"{connection_gate.HANDSHAKE_LIMIT_S:.0f} s each",
        "WebSocket message from a client": f"{hub.MAX_INBOUND_BYTES // 1024} KiB",
        "WebSocket messages from a client": f"{inbound_budget.MOST_FRAMES:,.0f} at once, {inbound_budget.FRAMES_PER_S:.0f} a second; "
        f"{inbound_budget.MOST_BYTES / MIB:.0f} MiB at once, {inbound_budget.BYTES_PER_S / MIB:.0f} MiB a second",
        "messages that wait for a client": f"{outbox.MAX_FRAMES:,}, {outbox.MAX_BYTES // MIB} MiB",
        "the end after SIGTERM or Ctrl-C": f"{stop_watch.STOP_LIMIT_S} s",
    }
    assert {name: ROWS.get(name) for name in expected} == expected
    assert picture_files.MAX_PIXELS == 16384 * 16384 and picture_files.LARGE_PIXELS == 16_000_000
    assert body_budget.SHARE_OF_FREE_RAM == 0.1
    assert f"{MAX_ENTRY_LENGTH:,} characters" in ROWS["a line of the log"]
