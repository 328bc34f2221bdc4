"""The locked requirements of the actions: complete, pinned, hashed, and those of polar-iac."""

from __future__ import annotations

import re
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.rehearsal import ROOT, load

COMMON = ROOT / ".github" / "actions" / "common"
PIN = re.compile(
    r"(?P<pin>[a-z0-9.-]+==[0-9A-Za-z.]+)(?P<marker> ; [^\\]+)?(?P<hashes>( --hash=sha256:[0-9a-f]{64})+)"
)


def lines(name: str) -> list[str]:
    """The lines of a requirements file, joined where they go on, without comments."""
    text = re.sub(r"(?m)^#.*\n", "", (COMMON / name).read_text(encoding="utf-8"))
    return [re.sub(r" +", " ", line) for line in re.sub(r"\\\n", " ", text).splitlines()]


def test_the_requirements_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert (
        lines("requirements.in") == project["project"]["dependencies"] + project["build-system"]["requires"]
    )


def test_each_requirement_is_pinned_hashed_and_comes_from_the_index() -> None:
    locked: dict[str, str] = {}
    for line in lines("requirements.txt"):
        match = PIN.fullmatch(line.strip())
        assert match, f"not a pin with hashes: {line}"
        name, _, version = match["pin"].partition("==")
        assert locked.setdefault(canonicalize_name(name), version) == version, f"twice: {name}"
    for line in lines("requirements.in"):
        wanted = Requirement(line)
        assert wanted.specifier.contains(locked[canonicalize_name(wanted.name)]), line


def test_nothing_is_installed_but_by_hash() -> None:
    """Pinning the action to a commit pins all that it runs."""
    script = re.sub(r"\\\n", " ", (COMMON / "install.sh").read_text(encoding="utf-8"))
    installs = [line for line in script.splitlines() if "pip install" in line]
    hashed, own = installs
    assert "--require-hashes" in hashed
    assert "--only-binary :all:" in hashed
    assert all(option in own for option in ("--no-index", "--no-deps", "--no-build-isolation"))
    for action in ("plan", "apply", "drift"):
        assert "version" not in load(COMMON.parent / action / "action.yml")["inputs"]


def test_dependabot_keeps_the_requirements_fresh() -> None:
    updates = load(ROOT / ".github" / "dependabot.yml")["updates"]
    assert "/.github/actions/common" in {u["directory"] for u in updates if u["package-ecosystem"] == "pip"}
