"""The command `validate`."""

from __future__ import annotations

from polar_iac.cli.error_boundary import command
from polar_iac.cli.options import Options
from polar_iac.cli.output import print_result
from polar_iac.errors import ExitCode
from polar_iac.manifest import read as manifest


@command
def validate(common: Options) -> ExitCode:
    """Check the manifest, offline; needs no environment."""
    count = len(manifest.read(common.file).meters)
    meters = "1 meter is" if count == 1 else f"{count} meters are"
    print_result(f"{common.file}: {meters} fine.\n")
    return ExitCode.OK
