"""An embedded Polar that tells another time, and whose endpoints can fail, hang or answer 429."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

from polar_iac.local import LocalPolar
from tests.support.local_polar import client

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class DatedPolar(LocalPolar):
    """Tells noon of the day after tomorrow by the header `Date`: what is made now is older than a day.

    `failing` maps a part of a path to what is answered there: a status, a text of JSON, or "hang". A hanging
    answer comes when `released` is set.
    """

    def __init__(self) -> None:
        super().__init__()
        day = datetime.now(UTC) + timedelta(days=2)
        self.today = day.replace(hour=12, minute=0, second=0, microsecond=0)
        self.failing: dict[str, int | str] = {}
        self.released = threading.Event()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        date = ("date", format_datetime(self.today, usegmt=True))

        def started(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, [*headers, date], *rest)

        for part, what in self.failing.items():
            if part in environ["PATH_INFO"]:
                if what == "hang":
                    self.released.wait()
                text = what if isinstance(what, str) else ""
                headers = [("content-type", "application/json"), ("content-length", str(len(text)))]
                started(f"{200 if text else what} As told", headers)
                return [text.encode()]
        return super().__call__(environ, started)

    def day(self, days_ago: int) -> datetime:
        """A day before `today`, at the same hour."""
        return self.today - timedelta(days=days_ago)

    def shown(self, days_ago: int) -> str:
        """A day as a check shows it."""
        day = self.day(days_ago)
        return f"{day:%b} {day.day}" + ("" if day.year == self.today.year else f", {day.year}")

    def ingest(self, name: str, *days_ago: int, count: int = 1, **metadata: Any) -> None:
        """Ingest events of a name, `count` on each of some days."""
        event = {"name": name, "external_customer_id": "ada", "metadata": metadata}
        events = [{**event, "timestamp": self.day(n).isoformat()} for n in days_ago for _ in range(count)]
        answer = client(self).post("/events/ingest", json={"events": events})
        assert answer.status_code == 200, answer.text

    def sell(self, meter_id: str, *products: str) -> list[str]:
        """Make products with a price on a meter; return their ids."""
        price = {"amount_type": "metered_unit", "meter_id": meter_id, "unit_amount": "50"}
        ids = []
        for name in products:
            body = {"name": name, "recurring_interval": "month", "prices": [price]}
            answer = client(self).post("/products/", json=body)
            assert answer.status_code == 201, answer.text
            ids.append(str(answer.json()["id"]))
        return ids

    def change(self, path: str, **fields: Any) -> None:
        """Change a meter or a product, as someone does in Polar's dashboard."""
        answer = client(self).patch(path, json=fields)
        assert answer.status_code == 200, answer.text
