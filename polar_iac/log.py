"""Text as it may be printed, on a terminal or in a log: whatever it quotes, it stays text."""

from __future__ import annotations

from collections.abc import Mapping

from polar_iac import github_run
from polar_iac.errors import PolarIacError
from polar_iac.render import WIDTH


def for_log(text: str, variables: Mapping[str, str]) -> str:
    """`text` of our renderers as it may be printed here, whatever it quotes: nothing moves the cursor, and
    on GitHub, where a runner reads commands from what a step prints, no line is one."""
    from polar_iac.render.words import printable_styled

    text = printable_styled(text)
    if not github_run.on_github(variables):
        return text
    from polar_iac.render.github import inert

    return inert(text)


def plain(text: str, variables: Mapping[str, str]) -> str:
    """The same for text that is no renderer's, and so has no colours of ours."""
    from polar_iac.render.words import printable_lines

    return for_log(printable_lines(text), variables)


def told_of(error: Exception, variables: Mapping[str, str], width: int = WIDTH) -> str:
    """What stderr says of an error, with its annotation on GitHub; lines of the user's in `width` columns."""
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
