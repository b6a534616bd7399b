"""Pictures of the dashboard, from a real run: `make screenshots [OUT=docs/images]`."""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.support.browser import SIZES, chromium
from tests.support.stack import Stack, eventually

# name of the file: page, colour scheme, size, height in pixels or the part of the page
PICTURES: dict[str, tuple[str, str, str, int | str]] = {
    "saga": ("saga", "light", "wide", 980),
    "list": ("/", "light", "wide", 620),
    "break-it": ("/ui/break-it", "light", "wide", 980),
    "lesson": ("/ui/break-it?lesson=3", "light", "wide", 720),
    "stalled": ("stalled", "dark", "wide", 980),
    "both": ("both", "light", "wide", 1060),
    "sequence": ("choreographed", "dark", "wide", "section[aria-labelledby=sequence]"),
    "isolation": ("/ui/isolation?compare=all", "light", "wide", "#counts"),
    "dead-letters": ("/ui/dead-letters", "light", "wide", 290),
}


def main(out: Path) -> None:
    """Start a stack, run some sagas, and take all pictures."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as playwright:
        database, environ = (lambda name: f"sqlite:///{directory}/{name}.db"), {"STALL_BASE_SECONDS": "0.05"}
        environ["STALL_MAX_SECONDS"] = "0.5"
        stack = Stack(database, Path(directory), itertools.count(15_200), environ, broker=True)
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        try:
            stack.start_all()
            pages = _run_sagas(stack)
            for name, (page, scheme, size, part) in PICTURES.items():
                sys.stderr.write(f"{out / name}.png\n")
                shown = browser.new_page(color_scheme=scheme, viewport=SIZES[size])  # type: ignore[arg-type]
                shown.goto(stack.url + pages.get(page, page))
                shown.wait_for_selector("#live.good")
                shown.wait_for_selector("#invariant.good")
                if isinstance(part, str):
                    shown.locator(part).screenshot(path=out / f"{name}.png")
                else:
                    clip = {"x": 0.0, "y": 0.0, "width": float(SIZES[size]["width"]), "height": float(part)}
                    shown.screenshot(path=out / f"{name}.png", full_page=True, clip=clip)  # type: ignore[arg-type]
                shown.close()
        finally:
            browser.close()
            stack.stop_all()


def _run_sagas(stack: Stack) -> dict[str, str]:
    """One of each kind, in either mode; gives the pages of some of them."""
    for flags in ("", "fail=b:refuse", "fail=c:after", "", "fail=b:after:1", "fail=c"):
        stack.post_start(flags)
    stalled = stack.post_start("fail=b&fail=a:undo&wait=0").json()["saga_id"]
    saga = stack.post_start("fail=b:after").json()["saga_id"]
    stack.mode = "choreography"
    choreographed = stack.post_start("fail=b:after").json()["saga_id"]
    stack.post_start("fail=b&fail=a:undo&wait=0")
    stack.post_start("fail=c:after")
    stack.post_start()
    eventually(lambda: stack.get("/dead-letters").json()["dead_letters"])
    eventually(lambda: stack.saga(stalled)["needs_attention"] and stack.saga(stalled)["status"] == "STALLED")
    return {
        "saga": f"/ui/sagas/{saga}",
        "stalled": f"/ui/sagas/{stalled}",
        "choreographed": f"/ui/sagas/{choreographed}",
        "both": f"/ui/both/{saga}/{choreographed}?scenario=after-commit",
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
