"""The command `schema`."""

from __future__ import annotations

from polar_iac.cli import options
from polar_iac.cli.error_boundary import command
from polar_iac.cli.output import print_result
from polar_iac.errors import ExitCode
from polar_iac.manifest.schema import schema_json


@command
def schema(common: options.Options) -> ExitCode:  # noqa: ARG001  the schema is the same for every manifest
    """Print the JSON Schema of manifests, for editors."""
    print_result(schema_json())
    return ExitCode.OK
