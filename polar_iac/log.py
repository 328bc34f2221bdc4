"""Safe output: makes text printable on a terminal or in a log, whatever it quotes."""

from __future__ import annotations

from collections.abc import Mapping

from polar_iac import github_run
from polar_iac.errors import PolarIacError
from polar_iac.render import WIDTH


def for_log(text: str, variables: Mapping[str, str]) -> str:
    """Return text of our renderers in a form that is safe to print here.

    Whatever it quotes, nothing moves the cursor. On GitHub, where the runner reads commands from a step's
    output, no line is a command.
    """
    from polar_iac.render.words import printable_styled

    text = printable_styled(text)
    if not github_run.on_github(variables):
        return text
    from polar_iac.render.github import inert

    return inert(text)


def plain(text: str, variables: Mapping[str, str]) -> str:
    """Return other text, without our colors, in a form that is safe to print here."""
    from polar_iac.render.words import printable_lines

    return for_log(printable_lines(text), variables)


def told_of(error: Exception, variables: Mapping[str, str], width: int = WIDTH) -> str:
    """Return the stderr text for an error, with an annotation on GitHub.

    User lines are limited to `width` columns.
    """
    from polar_iac.errors import DiagnosticError
    from polar_iac.render.github import diagnostic_commands, error_command
    from polar_iac.render.text import diagnostics_text, error_text

    if isinstance(error, DiagnosticError):
        text = diagnostics_text(error.diagnostics, width)
        commands = diagnostic_commands(error.diagnostics, directory=github_run.directory(variables))
    else:
        message = str(error)
        if not isinstance(error, PolarIacError):
            told = f"{type(error).__name__}: {error}"
            message = f"polar-iac itself failed ({told}): please report this with what --debug prints"
        text, commands = error_text(message), error_command(message)
    return (commands if github_run.on_github(variables) else "") + for_log(text, variables)
