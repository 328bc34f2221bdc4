"""The manifest file of a command that edits it."""

from __future__ import annotations

import shlex
from pathlib import Path

from polar_iac.cli.options import DEFAULT_FILE
from polar_iac.errors import PolarIacError
from polar_iac.files import open_file, write_file
from polar_iac.yaml.messages import MAX_BYTES


def read_source(file: Path) -> bytes | None:
    """Return the bytes of a manifest, or None where there is no file. Raises PolarIacError."""
    try:
        with open_file(file) as stream:
            return stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        raise PolarIacError(f"{file} is a directory (use -f FILE)") from None
    except OSError as error:
        raise PolarIacError(f"cannot read {file}: {error.strerror}") from None


def write_source(file: Path, before: bytes | None, after: bytes) -> None:
    """Write an edited manifest. `before` is what was edited. Raises PolarIacError.

    A link to a manifest stays a link. Nothing is written where someone has edited the file meanwhile.
    """
    if read_source(file) != before:
        raise PolarIacError(f"{file} was edited meanwhile, and is left as it is: run this again")
    write_file(file.resolve(), after.decode())


def command_line(command: str, environment: str, file: Path, lockfile_path: Path | None) -> str:
    """Return a command to go on with, for the same files. Example: `polar-iac plan -e sandbox`."""
    words = ["polar-iac", command, "-e", environment]
    words += ["-f", str(file)] if str(file) != DEFAULT_FILE else []
    return shlex.join([*words, *(["--lockfile", str(lockfile_path)] if lockfile_path else [])])
