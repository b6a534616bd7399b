"""`python -m tests.record_histories`: records anew the workflow histories that the replay test goes through.

Do so where a workflow may do something new; keep the old ones where sagas that were started before it may still run.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import requests
from temporalio.client import Client

from tests.support.stack import Stack, eventually, free_port, impatient_sagas, own_ports
from tests.support.temporal_server import TemporalServer

HISTORIES = Path(__file__).parent / "integration" / "histories"
SAGAS = {
    "completed": "",
    "a step in doubt is compensated": "fail=b:after",
    "refused": "fail=b:refuse",
    "the pivot is in doubt and had committed": "fail=c:lost",
    "the pivot is sealed": "fail=c:late",
    "a compensation stalls twice": "fail=b&fail=a:undo:7",
    "sealing stalls": "fail=c:late&fail=c:undo:4",
    "the worker dies before and after a call": "fail=orchestrator:before-B&fail=orchestrator:after-C",
    "the deadline passes": "saga=hasty&fail=b:lost",
    "cancelled": "delay=b:800",
    "cancelled while the pivot decides": "delay=c:900",
    "resolved": "fail=b&fail=a:undo",
}
# (once this event has been logged so often, this word is said)
WORDS = {
    "cancelled": ("action_done", 1, "cancel"),
    "cancelled while the pivot decides": ("action_done", 2, "cancel"),
    "resolved": ("compensation_refused", 2, "resolve"),
}
ENVIRON = {"LEASE_SECONDS": "2", "STALL_BASE_SECONDS": "0.5", "STALL_MAX_SECONDS": "1", "FAULT_HOLD_SECONDS": "3"}


def main() -> None:
    """Run the sagas, and write down their histories."""
    HISTORIES.mkdir(exist_ok=True)
    ports = own_ports()
    with tempfile.TemporaryDirectory() as directory, TemporalServer(free_port(ports)) as server:
        sagas = impatient_sagas(Path(directory), 1)
        signup = (sagas / "signup.yaml").read_text()
        hasty = signup.replace("name: signup", "name: hasty", 1).replace("deadline: 60", "deadline: 1.5")
        (sagas / "hasty.yaml").write_text(hasty)
        environ = {**ENVIRON, "SAGAS_DIR": str(sagas)}
        databases = lambda name: f"sqlite:///{directory}/{name}.db"  # noqa: E731
        stack = Stack(databases, Path(directory), ports, environ, temporal=server.address)
        try:
            stack.start_all()
            for name, flags in SAGAS.items():
                saga_id = _run(stack, name, flags)
                history = asyncio.run(_history(server.address, saga_id))
                path = HISTORIES / f"{name.replace(' ', '_')}.json"
                path.write_text(_written(_scrubbed(history)))
                sys.stdout.write(f"{path.name}: {len(history['events'])} events\n")
        finally:
            stack.stop_all()


def _run(stack: Stack, name: str, flags: str) -> str:
    saga_id = str(stack.post_start(f"wait=0&{flags}").json()["saga_id"])
    if name in WORDS:
        event, times, verb = WORDS[name]
        eventually(lambda: [line["event"] for line in stack.lines(saga_id)].count(event) >= times)
        url = f"{stack.url}/sagas/{saga_id}/{verb}"
        eventually(lambda: requests.post(url, json={"note": "by hand"}, timeout=30).status_code == 202)
    stack.ended(saga_id)
    return saga_id


async def _history(address: str, saga_id: str) -> dict[str, Any]:
    client = await Client.connect(address)
    handle = client.get_workflow_handle(saga_id)
    await handle.result()
    return {"workflow_id": saga_id, **(await handle.fetch_history()).to_json_dict()}


def _written(history: dict[str, Any]) -> str:
    """As JSON, a line for each event."""
    events = ",\n".join(json.dumps(event) for event in history["events"])
    return f'{{"workflow_id": "{history["workflow_id"]}", "events": [\n{events}\n]}}\n'


def _scrubbed(part: Any) -> Any:
    """Without the name of the machine that it was recorded on."""
    if isinstance(part, dict):
        return {key: "somebody" if key == "identity" else _scrubbed(value) for key, value in part.items()}
    return [_scrubbed(each) for each in part] if isinstance(part, list) else part


if __name__ == "__main__":
    main()
