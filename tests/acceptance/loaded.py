"""Runs commands in children of a process that has loaded them: real processes, without their half second.

Owns one request at a time on the socket that is its standard input: what the command is, and three files for
its inputs and outputs. Refuses: anything but what `python -m worker.cli` would do from there on.
"""

import gc
import importlib
import json
import os
import signal
import socket
import sys
from typing import Any

#: The rest is loaded by the command that needs it, as always.
_COMMANDS = (
    "accounts",
    "audit",
    "campaigns",
    "lists",
    "sending",
    "session",
    "statuses",
    "stores",
    "suppress",
)


def serve(link: socket.socket) -> None:
    """Run commands until the other end is closed; return in a child, whose command is to be run."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps whoever waits for a command
    while True:
        asked, files, _, _ = socket.recv_fds(link, 1 << 20, 4)
        if not asked:
            sys.exit()
        if not os.fork():
            link.close()
            _attend(json.loads(asked), files)
            return
        for file in files:
            os.close(file)


def _attend(asked: dict[str, Any], files: list[int]) -> None:
    """Become the command, and leave a parent behind that tells its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *streams, told = files
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os.write(told, str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    os.close(told)
    for number, file in enumerate(streams):
        os.dup2(file, number)
        os.close(file)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.argv[1:] = asked["words"]
    # As Python itself does at its start.
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - until the process ends
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - until the process ends
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115 - until the process ends


if __name__ == "__main__":
    from worker.cli import main

    for name in _COMMANDS:
        importlib.import_module(f"worker.cli.{name}")
    gc.freeze()
    serve(socket.socket(fileno=0))
    sys.exit(main())
