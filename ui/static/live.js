"use strict";
// Whether the page is live: it follows the stream of changes, and says where the orchestrator is not reachable.

const CHANGED = "changed"; // tells every part of the page with hx-trigger="changed from:body" to look again
const GATHER = 400; // milliseconds: changes that come together are looked at together
const HIDDEN_FOR = 10_000; // milliseconds after which a page that nobody looks at gives its connection back
const PROBE = 1000; // milliseconds between two questions whether the orchestrator is back
const ANSWERS_WITHIN = 3000; // milliseconds

// A page keeps what its reader typed, chose and unfolded while the rest of it changes. What the scripts have added or
// set (see times.js and forms.js) is kept, too.
Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name) => !["value", "open", "checked", "selected", "style"].includes(name);
Idiomorph.defaults.callbacks.beforeNodeRemoved = (node) => !node.classList?.contains("said");

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
  sign.className = "status " + (live ? "good" : "");
  sign.textContent = live ? "● live" : "○ disconnected";
}

document.addEventListener("htmx:sseOpen", (event) => {
  source = event.detail.source;
  source.onmessage = announceChange;
  sayLive(true);
  reached();
  announceChange(); // what happened meanwhile
});
document.addEventListener("htmx:sseError", () => {
  sayLive(false);
  probe();
});

// A browser keeps six connections to a server, for all its tabs: one that is not looked at takes none.
let hiding;
function connect() {
  const stream = document.getElementById("stream");
  const fresh = stream.cloneNode(false);
  stream.replaceWith(fresh);
  htmx.process(fresh);
}
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiding);
  if (document.hidden) {
    hiding = setTimeout(() => source && source.close(), HIDDEN_FOR);
  } else if (source && source.readyState === EventSource.CLOSED) {
    connect();
  }
});

// Not reachable: a bar says so across the page, with the age of what is shown; until it is back the lights are grey,
// nothing pulses, and no button sends anything.
let seenAt = Date.now(); // when the orchestrator answered last
let probing = false;

function reached() {
  seenAt = Date.now();
  if (!document.body.classList.contains("cut")) return;
  document.body.classList.remove("cut");
  document.getElementById("cut").hidden = true;
  for (const button of document.querySelectorAll("[data-cut]")) {
    button.disabled = false;
    delete button.dataset.cut;
  }
}

function notReached() {
  const bar = document.getElementById("cut");
  if (bar.hidden) {
    bar.hidden = false;
    document.body.classList.add("cut");
    bar.querySelector("[data-since]").dataset.since = new Date(Times.serverTime(seenAt)).toISOString();
    bar.querySelector("time").dateTime = new Date(Times.serverTime(seenAt)).toISOString();
    Times.show();
  }
  for (const button of document.querySelectorAll("form[method=post] button:enabled, form[method=post] input[type=submit]:enabled")) {
    button.disabled = true;
    button.dataset.cut = "";
  }
}

async function probe() {
  if (probing) return;
  probing = true;
  while (!(await answers())) {
    notReached();
    await new Promise((done) => setTimeout(done, PROBE));
  }
  const back = document.body.classList.contains("cut");
  reached();
  probing = false;
  if (back && (!source || source.readyState !== EventSource.OPEN)) connect(); // its own wait may be a minute by now
}

async function answers() {
  try {
    await fetch("/healthz", { signal: AbortSignal.timeout(ANSWERS_WITHIN), cache: "no-store" });
    return true;
  } catch {
    return false;
  }
}

document.addEventListener("htmx:sendError", probe);
document.addEventListener("htmx:timeout", probe);
document.addEventListener("htmx:afterRequest", (event) => event.detail.xhr?.status && (seenAt = Date.now()));
