"""The command without its start-up: a warmed process that forks it for whoever connects.

`python -m tests.support.warm_command SOCKET` serves.
`python -I -S tests/support/warm_command.py SOCKET ARGUMENTS...` is `polar-iac` for the caller, with its
directory, environment, streams and signals. For scripts that run the command by its path.
"""

# The client must start quickly: it imports little, and nothing from here.
import json
import os
import signal
import socket
import sys

_STREAMS = (0, 1, 2)


def client(address: str, arguments: list[str]) -> int:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        request = {"argv": arguments, "cwd": os.getcwd(), "environ": dict(os.environ)}  # noqa: PTH109
        data = json.dumps(request).encode()
        socket.send_fds(connection, [len(data).to_bytes(4, "big")], _STREAMS)
        connection.sendall(data)
        answers = connection.makefile()
        pid = int(answers.readline())
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _frame: os.kill(pid, number))
        return int(answers.readline())


def serve(address: str) -> None:
    import importlib

    from tests.support.fork_server import WARM

    for name in WARM:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes below
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(16)
        print("ready", flush=True)
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _attend(connection)
            connection.close()


def _attend(connection: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams, _, _ = socket.recv_fds(connection, 4, len(_STREAMS))
    request = json.loads(connection.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
    pid = os.fork()
    if pid == 0:
        connection.close()
        for stream, given in zip(_STREAMS, streams, strict=True):
            os.dup2(given, stream)
            os.close(given)
        _command(request)
    connection.sendall(b"%d\n" % pid)
    for given in (*_STREAMS, *streams):
        os.close(given)
    _, status = os.waitpid(pid, 0)
    connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _command(request: dict[str, object]) -> None:
    from tests.support.fork_server import run_main

    os.chdir(str(request["cwd"]))
    os.environ.clear()
    os.environ.update(request["environ"])  # type: ignore[call-overload]
    run_main(request["argv"])  # type: ignore[arg-type]


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    else:
        sys.exit(client(sys.argv[1], sys.argv[2:]))
