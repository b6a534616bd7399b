"use strict";
// Times that tick. What a page's author writes, in any element, of HTML or SVG:
//
//   <time datetime="…Z">             a time, shown in the reader's zone or in UTC, as the reader has chosen;
//                                    data-time="clock" shows only the clock, data-time="since" how long ago it was
//   <b data-since="…Z">3.2 s</b>     how long it has been since then, ticking
//   <b data-until="…Z">1:29</b>      how long it is until then, counting down to "now"; with data-in: "in 1:29"
//   <rect class="grows" data-since="…Z" data-until="…Z">
//                                    no text of its own: --share goes from 0 to 1 between the two, and `.grows` in
//                                    style.css draws that much of the full width; data-since alone and data-per="60"
//                                    reach 1 after so many seconds
//
// All clocks count from the server's time, which the page's head brings along: the reader's clock may be wrong.

const Times = (() => {
  const TICK = 250; // milliseconds
  const zone = () => (localStorage.getItem("zone") === "UTC" ? "UTC" : undefined);
  let exact, clock, day;

  function formats() {
    const timeZone = zone();
    exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium", timeZone });
    day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeZone });
    clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, timeZone });
  }
  formats();
  const brief = () => new Intl.DateTimeFormat(undefined, { timeStyle: "medium", timeZone: zone() });
  const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

  // The server's clock less the reader's, in milliseconds, as the part of the page that came last says it.
  let ahead = 0;
  let heardAt = null;
  function listen() {
    const said = document.getElementById("signs")?.dataset.now;
    if (!said || said === heardAt) return;
    heardAt = said;
    ahead = Date.parse(said) - Date.now();
  }
  const serverTime = (at) => at + ahead;

  function distance(seconds) {
    const size = Math.abs(seconds);
    if (size < 60) return relative.format(Math.round(seconds), "second");
    if (size < 3600) return relative.format(Math.round(seconds / 60), "minute");
    if (size < 86400) return relative.format(Math.round(seconds / 3600), "hour");
    return relative.format(Math.round(seconds / 86400), "day");
  }

  // How long: 3.2 s, 1:29, 2:05:00, 3 d 4 h.
  function length(seconds, tenths) {
    if (seconds < 60 && tenths) return seconds.toFixed(1) + " s";
    const whole = Math.floor(seconds);
    const two = (number) => String(number).padStart(2, "0");
    if (whole < 3600) return Math.floor(whole / 60) + ":" + two(whole % 60);
    if (whole < 86400) return Math.floor(whole / 3600) + ":" + two(Math.floor(whole / 60) % 60) + ":" + two(whole % 60);
    return Math.floor(whole / 86400) + " d " + (Math.floor(whole / 3600) % 24) + " h";
  }

  function write(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function tick(element, now) {
    const { since, until, per } = element.dataset;
    if (per || (since && until)) {
      const whole = per ? per * 1000 : Date.parse(until) - Date.parse(since);
      const share = whole > 0 ? Math.min(1, Math.max(0, (now - Date.parse(since)) / whole)) : 1;
      element.style.setProperty("--share", share.toFixed(4));
    } else if (since) {
      write(element, length(Math.max(0, now - Date.parse(since)) / 1000, element.dataset.whole === undefined));
    } else {
      const left = Math.ceil((Date.parse(until) - now) / 1000);
      write(element, left > 0 ? (element.dataset.in === undefined ? "" : "in ") + length(left) : "now");
    }
  }

  function show() {
    listen();
    const now = serverTime(Date.now());
    for (const element of document.querySelectorAll("time[datetime]")) {
      const at = new Date(element.dateTime);
      if (isNaN(at)) continue;
      const kind = element.dataset.time;
      const title = exact.format(at) + " (" + element.dateTime + ")";
      if (element.title !== title) element.title = title;
      if (kind === "since" || kind === "until") write(element, distance((at - now) / 1000));
      else if (kind === "clock") write(element, clock.format(at));
      else if (kind === "brief") write(element, day.format(at) === day.format(now) ? brief().format(at) : exact.format(at));
      else write(element, exact.format(at));
    }
    const frozen = document.body.classList.contains("cut");
    for (const element of document.querySelectorAll("[data-since], [data-until]")) {
      if ((!frozen && element.dataset.since !== "") || element.closest("#cut:not([hidden])")) tick(element, now); // what is not known to go on does not move
    }
  }

  // The reader's choice, kept for all pages: their own zone, or UTC as in the logs.
  function showChoice() {
    for (const button of document.querySelectorAll("[data-zone]")) {
      button.hidden = false;
      write(button, zone() ? "UTC" : "local time");
    }
  }
  // Fields for a time are filled in in that zone, and sent in UTC; without this script they are in UTC.
  function showFields() {
    for (const name of document.querySelectorAll("[data-zone-name]")) write(name, zone() ? "(UTC)" : "(local time)");
    for (const field of document.querySelectorAll("input[data-at]")) {
      const at = new Date(field.dataset.at + (/Z$|[+-]\d\d:\d\d$/.test(field.dataset.at) ? "" : "Z"));
      if (!isNaN(at)) field.value = new Date(at - (zone() ? 0 : at.getTimezoneOffset() * 60_000)).toISOString().slice(0, 16);
    }
  }
  document.addEventListener("submit", (event) => {
    for (const field of event.target.querySelectorAll("input[data-at]")) {
      if (!field.value || zone()) continue;
      const sent = Object.assign(document.createElement("input"), { type: "hidden", name: field.name, value: new Date(field.value).toISOString() });
      field.removeAttribute("name");
      field.after(sent);
    }
  });

  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("[data-zone]")) return;
    localStorage.setItem("zone", zone() ? "local" : "UTC");
    formats();
    showChoice();
    showFields();
    show();
  });

  document.addEventListener("DOMContentLoaded", () => (showChoice(), showFields(), show()));
  // Before what was swapped in is painted, so that no time is seen as the server has written it.
  for (const event of ["htmx:afterSwap", "htmx:oobAfterSwap", "htmx:afterSettle"]) document.addEventListener(event, show);
  setInterval(show, TICK);
  return { show, serverTime };
})();
