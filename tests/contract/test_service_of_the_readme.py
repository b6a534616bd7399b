"""The service that the README shows, as it stands there: it keeps the participant contract."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from saga.process.settings import load_settings
from tests.support.stack import ROOT


def test_the_service_that_the_readme_shows_keeps_the_contract(tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert code
    names: dict[str, Any] = {"__name__": "stock"}
    exec(compile(code[1], "README.md", "exec"), names)
    settings = {"SERVICE_STOCK_DB_URL": f"sqlite:///{tmp_path}/stock.db", "NATS_URL": "off", "SAGAS_DIR": ""}
    app = names["service"].create_app(load_settings(settings))
    client, headers = app.test_client(), {"Saga-Id": "s1", "Saga-Step": "Stock"}

    def post(path: str, item: str, saga_id: str = "s1") -> int:
        answer = client.post(path, json={"item": item}, headers={**headers, "Saga-Id": saga_id})
        return int(answer.status_code)

    def records(saga_id: str) -> int:
        return len(client.get(f"/records/{saga_id}").json["records"])

    assert [post("/invoke", "lamp"), post("/invoke", "lamp")] == [200, 200]
    assert records("s1") == 1
    assert (post("/invoke", "unicorn", "s2"), records("s2")) == (409, 0)
    assert [post("/compensate", "lamp"), post("/compensate", "lamp")] == [200, 200]
    assert records("s1") == 0
    assert post("/invoke", "lamp") == 409
