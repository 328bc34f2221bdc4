"""Marker of a comment: one for each set of inputs, and only on our own text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_iac.ci.marker import is_marked, marker_of, own, with_marker
from tests.support.comments import read_comment


def marker(directory: str = ".", file: str = "meters.yaml", environments: str = "sandbox") -> str:
    return marker_of(
        {"INPUT_WORKING_DIRECTORY": directory, "INPUT_FILE": file, "INPUT_ENVIRONMENTS": environments}
    )


def test_a_marker_is_what_earlier_versions_wrote() -> None:
    """Or else each open pull request would get a second comment."""
    assert marker() == "<!-- polar-iac:meters.yaml:+sandbox -->"
    assert marker("eu west", "zähler.yaml", "sandbox production") == (
        "<!-- polar-iac:eu:20west/z:c3:a4hler.yaml:+production:20sandbox -->"
    )


@pytest.mark.parametrize("directory", [".", "./", "", "./.", ".//./"])
def test_one_directory_has_one_marker(directory: str) -> None:
    assert marker(directory) == marker()
    assert marker(f"{directory}/eu/.") == marker("eu") == marker(file="./eu//meters.yaml")
    assert marker("eu") != marker()


def test_neither_order_nor_repetition_of_environments_counts() -> None:
    assert marker(environments=" production\n sandbox sandbox ") == marker(environments="sandbox production")
    assert marker(environments="production") != marker()


PATH_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@given(PATH_TEXT, PATH_TEXT)
def test_no_input_ends_the_comment_and_no_two_share_a_marker(one: str, other: str) -> None:
    read_comment(f"Text.\n\n{marker(file=one)}\n")
    names = [[part for part in text.split("/") if part not in ("", ".")] for text in (one, other)]
    assert (marker(file=one) == marker(file=other)) == (names[0] == names[1])


def test_the_marker_takes_the_place_of_the_last_line() -> None:
    report = "### Plan\n\n- a change\n\n<!-- polar-iac:acme:sandbox -->\n"
    assert with_marker(report, marker()) == f"### Plan\n\n- a change\n\n{marker()}\n"
    assert with_marker(report, marker(), "> More.") == f"### Plan\n\n- a change\n\n> More.\n\n{marker()}\n"


@pytest.mark.parametrize(
    ("body", "marked"),
    [
        ("text\n\nMARKER", True),
        ("text\r\n\r\nMARKER\r\n \n", True),
        ("MARKER", True),
        ("text MARKER", False),
        ("> MARKER", False),
        ("MARKER\nmore", False),
        ("", False),
    ],
)
def test_only_the_last_line_marks(body: str, marked: bool) -> None:
    assert is_marked(body.replace("MARKER", marker()), marker()) == marked


def test_only_what_is_by_us_is_our_own() -> None:
    texts = [
        ("1", marker(), False),
        ("2", f"> {marker()}", True),
        ("3", "", True),
        ("4", f"a\n{marker()}", True),
    ]
    assert own([*texts, ("5", marker(), True)], marker()) == "4"
    assert own(texts[:3], marker()) is None
