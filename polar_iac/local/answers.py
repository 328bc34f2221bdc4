"""Answers of the application, and the errors that end a request with one."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from decimal import Decimal

from pydantic import BaseModel


class NotFoundError(Exception):
    """Error for something that does not exist."""


class ServerError(Exception):
    """Error for a request that Polar answers with a 500."""


@dataclass(frozen=True)
class Answer:
    """The status, body and headers of an answer."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


BROKEN = Answer(500, b"Internal Server Error", (("content-type", "text/plain; charset=utf-8"),))


class AnswerError(Exception):
    """Signal that ends a request with this answer."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        super().__init__(answer.status)


def answer_json(status: int, content: object, *headers: tuple[str, str]) -> Answer:
    """Return an answer of data. Raises ServerError when Polar cannot write it as JSON."""
    try:
        text = json.dumps(
            content, default=_encode, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        )
    except (ValueError, RecursionError):
        raise ServerError from None
    return answer_text(status, text, *headers)


def answer_text(status: int, text: str, *headers: tuple[str, str]) -> Answer:
    """Return an answer of JSON text. Raises ServerError when the text cannot be sent."""
    try:
        body = text.encode()
    except UnicodeEncodeError:  # the answer echoes a lone surrogate
        raise ServerError from None
    return Answer(status, body, (("content-type", "application/json"), *headers))


def _encode(value: object) -> object:
    """Encode values that JSON does not support, as FastAPI's encoder does (read)."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, Decimal):
        return float(value)
    return {}  # the exception that a validator raised
