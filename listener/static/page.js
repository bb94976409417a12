// What the pages do beyond links and forms: messages that float, files that are dropped, and a word when the server is away.
// Every page can be read, and every form posts, without it.
"use strict";

const said = document.body.dataset;
const toasts = document.getElementById("toasts");

const filled = (sentence, values) => sentence.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);

// A message that is put into the page after it was loaded is read aloud; one that came with it may not be.
function tell(text, kind) {
  const toast = document.createElement("div");
  toast.className = `toast ${kind}`;
  toast.setAttribute("role", kind === "bad" ? "alert" : "status");
  toast.append(Object.assign(document.createElement("p"), { textContent: text }));
  toasts.append(withClose(toast));
  return toast;
}

function withClose(toast) {
  if (!toast.querySelector("button")) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: "×", className: "close" });
    button.setAttribute("aria-label", said.close);
    button.addEventListener("click", () => toast.remove());
    toast.append(button);
  }
  return toast;
}

for (const toast of toasts.querySelectorAll(".toast")) {
  const place = toast.nextSibling;
  toast.remove();
  setTimeout(() => toasts.insertBefore(withClose(toast), place), 100);
}

// Why a request failed, in the words of the page that says so.
function reasonOf(text, status) {
  const page = new DOMParser().parseFromString(text, "text/html");
  const told = page.querySelector("[data-problem] [role=alert]");
  if (told) return told.textContent.trim();
  try {
    const answer = JSON.parse(text);
    return String(answer.detail ?? answer.error ?? status);
  } catch {
    return String(status);
  }
}

// ---------------------------------------------------------------------------------------------------------- what htmx asks
let asOf = new Date();
let stale = null;

const isPoll = (ctx) => ctx?.sourceEvent?.type === "every";
const clock = (moment) => moment.toLocaleTimeString([], { hour12: false });

function away() {
  stale ??= tell(filled(said.stale, { time: clock(asOf) }), "bad");
}

document.addEventListener("htmx:response:error", (event) => {
  const { ctx } = event.detail;
  const status = ctx.response.status;
  if (isPoll(ctx) && status >= 500) {
    away();
    return;
  }
  tell(filled(said.failed, { reason: reasonOf(ctx.text, status) }), "bad");
  // What is gone, or no longer ours to see, is not asked for again.
  if (isPoll(ctx)) ctx.sourceElement.replaceWith(...ctx.sourceElement.childNodes);
});

document.addEventListener("htmx:error", (event) => {
  const { ctx, error } = event.detail;
  if (isPoll(ctx)) away();
  else tell(filled(said.failed, { reason: error?.message ?? String(error) }), "bad");
});

document.addEventListener("htmx:after:swap", () => {
  asOf = new Date();
  stale?.remove();
  stale = null;
});

// -------------------------------------------------------------------------------------------------------------- drop zone
const drop = document.getElementById("drop");

async function analyse(files) {
  const state = document.getElementById("drop-state");
  if (!files.length) {
    tell(drop.dataset.none, "bad");
    return;
  }
  const body = new FormData();
  for (const file of files) body.append("files", file);
  state.textContent = filled(drop.dataset.busy, { count: files.length });
  drop.classList.add("busy");
  try {
    const answer = await fetch(drop.action, { method: "POST", body, headers: { Accept: "application/json" } });
    const text = await answer.text();
    let results;
    try {
      results = JSON.parse(text);
    } catch {
      results = null;
    }
    if (!Array.isArray(results)) throw new Error(reasonOf(text, answer.status));
    const studies = [...new Set(results.map((one) => one.study_instance_uid).filter(Boolean))];
    const failed = results.filter((one) => one.error);
    for (const one of failed) tell(filled(drop.dataset.failed, { name: files[one.index]?.name ?? one.index + 1, reason: one.error }), "bad");
    state.textContent = "";
    if (studies.length === 1 && !failed.length) location.href = `/studies/${studies[0]}`;
    else if (studies.length) listed(state, studies);
  } catch (error) {
    state.textContent = "";
    tell(filled(said.failed, { reason: error.message }), "bad");
  } finally {
    drop.classList.remove("busy");
  }
}

function listed(state, studies) {
  state.textContent = `${studies.length === 1 ? drop.dataset.one : drop.dataset.several} `;
  for (const uid of studies) {
    state.append(Object.assign(document.createElement("a"), { href: `/studies/${uid}`, textContent: uid, className: "uid" }), " ");
  }
}

if (drop) {
  const input = document.getElementById("files");
  drop.addEventListener("submit", (event) => {
    event.preventDefault();
    analyse([...input.files]);
  });
  let inside = 0;
  const over = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragenter", (event) => {
    if (over(event) && ++inside) drop.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (over(event) && !--inside) drop.classList.remove("over");
  });
  document.addEventListener("dragover", (event) => {
    if (over(event)) event.preventDefault();
  });
  document.addEventListener("drop", (event) => {
    if (!over(event)) return;
    event.preventDefault();
    inside = 0;
    drop.classList.remove("over");
    analyse([...event.dataTransfer.files]);
  });
}
