"use strict";
// The inspector: a link with data-inspect opens its part in a panel beside the page. Escape closes it, and the focus
// returns to what opened it. Without this file the same links load the page with the panel.
(() => {
  let opener = null;
  let opening = false;

  const panel = () => document.getElementById("inspector");
  const isPlain = (event) => !(event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);

  function open(link) {
    if (!link.closest("#inspector")) opener = link;
    opening = true;
    htmx.ajax("GET", link.dataset.inspect, { target: "#inspector", swap: "outerHTML" });
    history.replaceState(history.state, "", link.getAttribute("href").replace("#inspector", ""));
  }

  document.addEventListener("htmx:afterSettle", (event) => {
    if (!opening || event.target.id !== "inspector") return;
    opening = false;
    panel().focus({ preventScroll: true });
    const asked = panel().querySelector("li[aria-current]"); // scrollIntoView would move the page, too
    if (asked) panel().scrollTop = asked.offsetTop - panel().clientHeight / 4;
  });

  function close() {
    const shows = panel().dataset.shows;
    panel().outerHTML = '<section id="inspector" hidden></section>';
    const url = new URL(location);
    for (const name of ["step", "seq"]) url.searchParams.delete(name);
    url.hash = "";
    history.replaceState(history.state, "", url);
    // The page may have changed meanwhile, or the panel was there from the beginning.
    const back = opener?.isConnected ? opener : document.querySelector(`[data-inspect="${CSS.escape(opener?.dataset.inspect ?? shows)}"]`);
    back?.focus();
    opener = null;
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-inspect], [data-close-inspector]");
    if (!link || !isPlain(event) || !panel()) return;
    event.preventDefault();
    if ("closeInspector" in link.dataset) close();
    else open(link);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.defaultPrevented || !panel() || panel().hidden) return;
    if (document.querySelector("dialog[open]")) return;
    close();
  });
})();
