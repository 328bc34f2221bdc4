"""Texts of the files that `init` writes, and what it leaves to do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files

from polar_iac import SLUG
from polar_iac.cli.repository import Source

WORKFLOWS = ("meters.yml", "drift.yml")
_TEMPLATES = files("polar_iac.cli") / "templates"


def project_name(name: str) -> str | None:
    """Return the project that a repository or directory is called after, or None for a name like `…`."""
    slug = re.sub("[^a-z0-9_-]+", "-", name.lower()).lstrip("-_")[:63].rstrip("-_")
    return slug if re.fullmatch(SLUG, slug) else None


def manifest_text(project: str, source: Source) -> str:
    """Return a manifest without meters, with comments that show how to declare one."""
    schema = (
        f"https://raw.githubusercontent.com/{source.repository}/{source.ref}"
        "/polar_iac/manifest/meters.schema.json"
    )
    return _template("meters.yaml").replace("SCHEMA", schema).replace("PROJECT", project)


def workflow_text(name: str, source: Source, branch: str, inputs: Mapping[str, str]) -> str:
    """Return a workflow for a repository. `inputs` are those of each action, besides its own."""
    tag = f" # {source.tag}" if source.commit and source.tag else ""
    text = re.sub(r"OWNER/polar-iac/(\S+)@v1", rf"{source.repository}/\1@{source.ref}{tag}", _template(name))
    if branch != "main":
        text = text.replace("branches: [main]", f"branches: [{json.dumps(branch)}]")
        text = text.replace("'refs/heads/main'", f"'refs/heads/{branch}'")
    return _with_inputs(text, [f"{key}: {json.dumps(value)}" for key, value in inputs.items()])


def _with_inputs(text: str, inputs: list[str]) -> str:
    """Add inputs to each step with `environments`: in one line, or under one another."""
    flow = "".join(f", {line}" for line in inputs)
    text = re.sub(r"(with: \{environments: [^}]*)\}", lambda match: f"{match[1]}{flow}}}", text)
    return re.sub(
        r"^( +)environments: \w+$",
        lambda match: "\n".join([match[0], *(match[1] + line for line in inputs)]),
        text,
        flags=re.MULTILINE,
    )


def left_to_do(source: Source, branch: str, *, github: bool) -> Iterator[str]:
    """Yield what a person has to do, in order."""
    yield "Declare your meters in the manifest; `polar-iac apply -e local -y` tries it without an account."
    yield (
        "In each Polar organization (sandbox, production) make two organization access tokens: one with the "
        "scope meters:read to plan, one with meters:write to apply."
    )
    if not github:
        yield "`polar-iac plan -e sandbox` shows what an apply would change. `init --github` lets CI do both."
        return
    yield (
        "At GitHub, make the secrets POLAR_READ_TOKEN_SANDBOX and POLAR_READ_TOKEN_PRODUCTION of the "
        "repository, and the environments `sandbox` and `production`, each with a secret POLAR_WRITE_TOKEN. "
        f"Let both be used from `{branch}` only, and give production required reviewers."
    )
    if not source.is_known:
        yield f"In the files, replace OWNER in {source.repository} by the account that polar-iac comes from."
    if source.commit is None:
        yield f"In the workflows, pin the actions to the commit of {source.ref}."
    yield "Commit the files and open a pull request: its comment is the plan."


def _template(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")
