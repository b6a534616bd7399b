"use strict";
// Forms that stay where they are: what was sent is said beside the form, and the page keeps its scroll and its focus.
// A form that leads to another page leads there; one that could not be sent keeps what was typed.

const SENT_WITHIN = 60_000; // milliseconds

function say(form, text, good) {
  const said = document.createElement("p");
  said.setAttribute("role", good ? "status" : "alert");
  said.className = "said notice" + (good ? " fine" : "");
  said.textContent = text;
  if (form.isConnected) form.after(said);
  else document.getElementById("main").prepend(said); // the page has moved on meanwhile, and the form is gone
}

// Sends the form. A browser follows the redirect of a form that was accepted, so that the answer is a page.
async function send(form, button) {
  const fields = new URLSearchParams(new FormData(form, button));
  const answer = await fetch(button?.hasAttribute("formaction") ? button.formAction : form.action, {
    method: "POST",
    body: fields,
    signal: AbortSignal.timeout(SENT_WITHIN),
  });
  return { answer, page: new DOMParser().parseFromString(await answer.text(), "text/html") };
}

async function pageHere() {
  const answer = await fetch(location.href, { signal: AbortSignal.timeout(SENT_WITHIN) });
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

function showPage(page) {
  document.title = page.title;
  Idiomorph.morph(document.getElementById("main"), page.getElementById("main"), { morphStyle: "outerHTML" });
  htmx.process(document.getElementById("main"));
  Times.show();
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  const button = event.submitter;
  if (event.defaultPrevented || form.getAttribute("method") !== "post") return;
  event.preventDefault();
  if (form.dataset.sending) return;
  form.dataset.sending = "yes";
  document.querySelectorAll(".said").forEach((old) => old.remove());
  button?.setAttribute("aria-busy", "true");
  const verb = button?.textContent.trim() || "Sent";
  try {
    const { answer, page } = await send(form, button);
    if (!answer.ok) {
      const problem = page.querySelector("#main [role=alert]") || page.querySelector("#main p");
      say(form, problem ? problem.textContent.trim() : "It was refused: HTTP " + answer.status + ".");
      announceChange(); // what refused it is on the page now
    } else if (answer.redirected && new URL(answer.url).pathname !== location.pathname) {
      location.assign(answer.url);
    } else {
      showPage(answer.redirected ? await pageHere() : page);
      const at = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" }).format(new Date());
      if (form.isConnected) say(form, "✔ " + verb + ": accepted at " + at + ".", true);
      else done("✔ " + verb + ": accepted at " + at + ".");
    }
  } catch {
    say(form, "Not sent: the orchestrator does not answer. What you entered is still here.");
    probe();
  } finally {
    delete form.dataset.sending;
    button?.removeAttribute("aria-busy");
  }
});

// Where the form is gone with what it was for, the page says at its foot what came of it.
function done(text) {
  const line = document.getElementById("done");
  line.textContent = text;
  line.hidden = false;
  clearTimeout(done.timer);
  done.timer = setTimeout(() => (line.hidden = true), 8000);
}

// Copy: a button beside a text, or one that carries the text.
document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("button[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(button.dataset.copy || button.parentElement.querySelector("pre").textContent);
  if (button.dataset.copy) {
    button.classList.add("copied");
    setTimeout(() => button.classList.remove("copied"), 1500);
  } else {
    button.textContent = "copied";
    setTimeout(() => (button.textContent = "copy"), 1500);
  }
});
