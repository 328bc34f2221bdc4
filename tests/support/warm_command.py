"""The command without its start-up, for scripts that run it by its path.

`python -I -S tests/support/warm_command.py SOCKET ARGUMENTS...` is `polar-iac` for the caller, with its
directory, environment, streams and signals. The server at the socket is `tests.support.fork_server`.
"""

# This must start quickly: it imports nothing that is not built in, and nothing from here. `socket`, `json`
# and `signal` would take longer than all the rest.
import _signal  # type: ignore[import-not-found]
import _socket
import os
import sys
from _collections_abc import Sequence
from _json import encode_basestring_ascii as quoted


class Run:
    """A run of the command, forked by the server at `address`. The request is JSON."""

    def __init__(self, address: str, request: bytes, streams: Sequence[int]) -> None:
        self._connection = _socket.socket(_socket.AF_UNIX)
        self._connection.connect(address)
        numbers = b"".join(stream.to_bytes(4, sys.byteorder) for stream in streams)
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, numbers)
        self._connection.sendmsg([len(request).to_bytes(4, "big")], [rights])
        self._connection.sendall(request)
        self.pid = self._number()

    def wait(self) -> int:
        """Return the exit code, negative for a signal. Until now the process id was not free for others."""
        self._connection.sendall(b"w")
        try:
            return self._number()
        finally:
            self._connection.close()

    def _number(self) -> int:
        """Read a line of the server's."""
        line = b""
        while not line.endswith(b"\n"):
            line += self._connection.recv(1) or b"\n"
        return int(line)


def _request(arguments: Sequence[str]) -> bytes:
    environ = ",".join(f"{quoted(name)}:{quoted(value)}" for name, value in os.environ.items())
    words = ",".join(map(quoted, arguments))
    cwd = quoted(os.getcwd())  # noqa: PTH109
    return f'{{"argv":[{words}],"cwd":{cwd},"environ":{{{environ}}}}}'.encode()


def main(address: str, arguments: list[str]) -> int:
    run = Run(address, _request(arguments), (0, 1, 2))
    for number in (_signal.SIGINT, _signal.SIGTERM):
        _signal.signal(number, lambda number, _frame: os.kill(run.pid, number))
    return run.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
