"""The command without its start-up, for scripts that run it by its path.

`python -I -S tests/support/warm_command.py SOCKET ARGUMENTS...` is `polar-iac` for the caller, with its
directory, environment, streams and signals. The server at the socket is `tests.support.fork_server`.
"""

# This must start quickly: it imports little, and nothing from here.
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence


class Run:
    """A run of the command, forked by the server at `address`."""

    def __init__(self, address: str, request: Mapping[str, object], streams: Sequence[int]) -> None:
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(address)
        data = json.dumps(request).encode()
        socket.send_fds(self._connection, [len(data).to_bytes(4, "big")], streams)
        self._connection.sendall(data)
        self._answers = self._connection.makefile()
        self.pid = int(self._answers.readline())

    def wait(self) -> int:
        """Return the exit code, negative for a signal. Until now the process id was not free for others."""
        with self._connection, self._answers:
            self._connection.sendall(b"w")
            return int(self._answers.readline())


def main(address: str, arguments: list[str]) -> int:
    request = {"argv": arguments, "cwd": os.getcwd(), "environ": dict(os.environ)}  # noqa: PTH109
    run = Run(address, request, (0, 1, 2))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: os.kill(run.pid, number))
    return run.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
