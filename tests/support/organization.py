"""The meters of a served Polar, made and changed past the tool, as people do in the dashboard."""

from __future__ import annotations

from typing import Any

import httpx

from tests.support.served_polar import Served


class Organization:
    """Things that people do with the meters of a served Polar."""

    def __init__(self, served: Served) -> None:
        headers = {"Authorization": "Bearer polar_oat_dashboard"}
        self.client = httpx.Client(base_url=f"{served.url}/v1/meters/", headers=headers)

    def make(self, body: dict[str, Any]) -> str:
        answer = self.client.post("", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def change(self, meter_id: str, **body: Any) -> None:
        answer = self.client.patch(meter_id, json=body)
        assert answer.status_code == 200, answer.text

    def metadata(self) -> dict[str, dict[str, Any]]:
        """The metadata of each meter but our marker."""
        found, page = dict[str, dict[str, Any]](), 1
        while items := self.client.get("", params={"limit": 100, "page": page}).json()["items"]:
            found |= {item["id"]: item["metadata"] for item in items}
            page += 1
        for metadata in found.values():
            metadata.pop("polar_iac", None)
        return found
