"use strict";
// What HTML cannot do by itself: say whether the page is live, show times in the reader's zone, copy a text.

const CHANGED = "changed"; // tells every part of the page with hx-trigger="changed from:body" to look again
const GATHER = 400; // milliseconds: changes that come together are looked at together
const HIDDEN_FOR = 10_000; // milliseconds after which a page that nobody looks at gives its connection back

// A page keeps what its reader typed, chose and unfolded while the rest of it changes.
Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name) => !["value", "open", "checked", "selected"].includes(name);

// Live: htmx's SSE extension connects and reconnects; here what it brings is passed on, and its state shown.
let source = null;

let gathering = null;

function announceChange() {
  gathering ??= setTimeout(() => {
    gathering = null;
    htmx.trigger(document.body, CHANGED);
  }, GATHER);
}

function sayLive(live) {
  const sign = document.getElementById("live");
  sign.className = "status " + (live ? "good" : "bad");
  sign.textContent = live ? "● live" : "○ disconnected: trying again";
}

document.addEventListener("htmx:sseOpen", (event) => {
  source = event.detail.source;
  source.onmessage = announceChange;
  sayLive(true);
  announceChange(); // what happened meanwhile
});
document.addEventListener("htmx:sseError", () => sayLive(false));

// A browser keeps six connections to a server, for all its tabs: one that is not looked at takes none.
let hiding;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiding);
  if (document.hidden) {
    hiding = setTimeout(() => source && source.close(), HIDDEN_FOR);
  } else if (source && source.readyState === EventSource.CLOSED) {
    const stream = document.getElementById("stream");
    const fresh = stream.cloneNode(false);
    stream.replaceWith(fresh);
    htmx.process(fresh);
  }
});

// Times: <time datetime="…"> in UTC becomes the reader's own; data-since shows how long ago, data-until how long yet.
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 });
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

function distance(seconds) {
  const size = Math.abs(seconds);
  if (size < 60) return relative.format(Math.round(seconds), "second");
  if (size < 3600) return relative.format(Math.round(seconds / 60), "minute");
  if (size < 86400) return relative.format(Math.round(seconds / 3600), "hour");
  return relative.format(Math.round(seconds / 86400), "day");
}

function showTimes() {
  for (const element of document.querySelectorAll("time[datetime]")) {
    const at = new Date(element.dateTime);
    element.title = exact.format(at) + " (" + element.dateTime + ")";
    const kind = element.dataset.time;
    const text = kind === "since" || kind === "until" ? distance((at - Date.now()) / 1000) : kind === "clock" ? clock.format(at) : exact.format(at);
    if (element.textContent !== text) element.textContent = text;
  }
}

document.addEventListener("DOMContentLoaded", showTimes);
document.addEventListener("htmx:afterSettle", showTimes);
setInterval(showTimes, 1000);

// Copy: a button beside a text.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(button.parentElement.querySelector("pre").textContent);
  button.textContent = "copied";
  setTimeout(() => (button.textContent = "copy"), 1500);
});
