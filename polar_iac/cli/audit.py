"""The audit record of `apply`: written when the run begins, before anything is sent, and when it ends."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from polar_iac.ci.host import host_for
from polar_iac.cli.error_report import error_message
from polar_iac.cli.output import print_message
from polar_iac.clock import Stop, utc_now
from polar_iac.errors import ExitCode, PolarIacError
from polar_iac.files import head_of, is_replaced, write_file
from polar_iac.plan.model import Plan
from polar_iac.report.audit import AuditRecord, audit_json, redaction
from polar_iac.report.formats import check_replaceable

_TOKENS = ("POLAR_ACCESS_TOKEN", "POLAR_FACTS_TOKEN", "GH_TOKEN", "GITHUB_TOKEN", "GH_ENTERPRISE_TOKEN")
"""Beginnings of the names of variables that hold a token."""
_SHORTEST_TOKEN = 8
"""Fewest characters of a token. A shorter text may be part of a word."""


@dataclass(frozen=True)
class Audit:
    """The audit record of a run, and the files that it is written to: none, unless `--report` was given."""

    record: AuditRecord
    files: Sequence[Path]

    def begin(self, environment: str | None, manifest: Path, reviewed_digest: str | None) -> None:
        """Write down what is to be applied."""
        record = self.record
        record.environment, record.manifest = environment, str(manifest)
        record.reviewed_digest = reviewed_digest
        head = head_of(manifest) if self.files else None
        if head:
            record.commit, record.manifest_committed = head.commit, head.has_file
        elif record.run:
            record.commit = record.run.commit
        self.save()

    def execute(self, plan: Plan) -> None:
        """Write down the effects to come, so that a run that is killed leaves them as unknown."""
        self.record.plan, self.record.executing = plan, True
        self.save()

    def save(self) -> None:
        """Replace the record by what is known by now. Raises PolarIacError when it cannot be written."""
        for file in self.files:
            check_replaceable(file)
            # What is not replaced, such as a pipe or `/dev/stdout`, takes one record: the last.
            if self.record.ended_at or is_replaced(file):
                write_file(file, audit_json(self.record, _redaction(os.environ)))


@contextmanager
def audited(reports: Sequence[str], plan_file: Path | None, stop: Stop) -> Iterator[Audit]:
    """Write the audit record of a run, also when it fails, is refused, or is interrupted.

    Raises PolarIacError when the record cannot be written. After another error that is only printed. Raises
    click.UsageError when the record would replace the plan that is to be applied.
    """
    record = AuditRecord(utc_now(), host_for(os.environ).run())
    audit = Audit(record, [_file_of(report) for report in reports])
    if plan_file and plan_file.resolve() in [file.resolve() for file in audit.files]:
        raise click.UsageError(f"--report names the plan itself, {plan_file}: name another file")
    audit.save()
    try:
        yield audit
    except BaseException as error:
        record.exit_code, record.error = _ending(error)
        try:
            _end(audit, stop)
        except PolarIacError as unwritten:
            print_message(f"error: {unwritten}")
        raise
    _end(audit, stop)


def _end(audit: Audit, stop: Stop) -> None:
    audit.record.ended_at, audit.record.stopped = utc_now(), stop.reason
    audit.save()


def _ending(error: BaseException) -> tuple[ExitCode, str]:
    """Return the exit code of a run that an error ends, and the error in the words that a user reads."""
    match error:
        case click.Abort():
            return ExitCode.ERROR, "not approved"
        case click.ClickException():
            return ExitCode.ERROR, error.format_message()
        case PolarIacError():
            return error.exit_code, error_message(error)
        case Exception():
            return ExitCode.ERROR, error_message(error)
        case _:
            return ExitCode.INTERRUPTED, "interrupted"


def _file_of(report: str) -> Path:
    format_, _, file = report.partition("=")
    if format_ != "json" or not file:
        raise click.UsageError(f"--report {report}: the audit record of an apply is JSON: use json=FILE")
    return Path(file)


def _redaction(variables: Mapping[str, str]) -> Callable[[str], str]:
    """Return what takes tokens, the home directory and the name of this machine out of a text."""
    values = (value.strip() for name, value in variables.items() if name.startswith(_TOKENS))
    tokens = [value for value in values if len(value) >= _SHORTEST_TOKEN]
    names = {f"on {socket.gethostname()}": "on this machine", variables.get("HOME", ""): "~"}
    return redaction(tokens, names)
