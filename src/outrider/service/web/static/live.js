// Keeps the page up to date: one stream while the tab is seen, none while it is hidden.
// A browser has six connections to a host over HTTP/1.1. Where the service gives no stream, the page asks now and then.
import { age, serverTime, tick } from "./times.js";

const main = document.querySelector("main[data-stream]");
const freshness = document.getElementById("freshness");
const SILENCE_MS = 6500;
const POLL_MS = 800;
const STREAM_AGAIN_MS = 30000;

let have = main?.dataset.have ?? "";
let source = null;
let timer = null;
let failures = 0;
let heard = Date.now();
let staleS = Number(freshness?.dataset.staleS ?? 0);
let trouble = "";
let streamAgain = 0;

const focusable = "a[href],button,input,select,textarea,summary,[tabindex]";

function element(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content.firstElementChild;
}

function replace(old, next) {
  const active = document.activeElement;
  const place = old.contains(active) ? [...old.querySelectorAll(focusable)].indexOf(active) : -1;
  old.replaceWith(next);
  if (place >= 0) next.querySelectorAll(focusable)[place]?.focus({ preventScroll: true });
}

function apply(message) {
  const fresh = new Map();
  for (const [id, html] of Object.entries(message.html)) {
    const next = element(html);
    tick(next);
    const old = document.getElementById(id);
    if (old) replace(old, next);
    else fresh.set(id, next);
  }
  for (const [id, ids] of Object.entries(message.lists)) {
    const list = document.getElementById(id);
    if (!list) return location.reload();
    let at = list.firstElementChild;
    for (const name of ids) {
      const next = fresh.get(name) ?? document.getElementById(name);
      if (!next) return location.reload();
      fresh.delete(name);
      if (next === at) at = at.nextElementSibling;
      else list.insertBefore(next, at);
    }
    while (at) {
      const gone = at;
      at = at.nextElementSibling;
      gone.remove();
    }
  }
  have = message.have;
  document.dispatchEvent(new CustomEvent("outrider:live"));
}

function told(message) {
  heard = Date.now();
  failures = 0;
  trouble = "";
  staleS = message.stale_s;
  serverTime(message.now);
  apply(message);
  show();
}

function show() {
  if (!freshness) return;
  const silentMs = Date.now() - heard;
  let state = "live";
  let words = "live";
  if (trouble) [state, words] = ["stale", trouble];
  else if (silentMs > SILENCE_MS) [state, words] = ["stale", `no answer for ${age(silentMs)}: what you see is old; trying again`];
  else if (staleS > 0) [state, words] = ["stale", `etcd gives no answer for ${age(staleS * 1000)}: what you see is old`];
  if (freshness.dataset.state !== state) freshness.dataset.state = state;
  if (freshness.textContent !== words) freshness.textContent = words;
}

function address() {
  const url = new URL(main.dataset.stream, location.origin);
  url.searchParams.set("have", have);
  return url;
}

function close() {
  clearTimeout(timer);
  source?.close();
  source = null;
}

function later(what, ms) {
  clearTimeout(timer);
  timer = setTimeout(what, ms);
}

function open() {
  close();
  if (document.hidden) return;
  if (Date.now() < streamAgain) return poll();
  source = new EventSource(address());
  let answered = false;
  source.addEventListener("open", () => { answered = true; });
  source.addEventListener("live", (event) => told(JSON.parse(event.data)));
  source.addEventListener("left", () => location.reload());
  source.addEventListener("trouble", (event) => {
    heard = Date.now();
    trouble = JSON.parse(event.data).why;
    show();
  });
  source.addEventListener("error", () => {
    // by ourselves: a browser would come back with the name of what the page had at first
    close();
    failures += 1;
    if (!answered) streamAgain = Date.now() + Math.min(STREAM_AGAIN_MS, 1000 * failures);
    later(open, answered ? 100 : 250);
  });
}

async function poll() {
  let wait = POLL_MS;
  try {
    const answer = await fetch(address(), { headers: { accept: "application/json" }, cache: "no-store" });
    if (answer.status === 401 || answer.status === 403) return location.reload();
    const message = await answer.json();
    if (answer.ok) {
      told(message);
      streamAgain = Math.max(streamAgain, Date.now() + STREAM_AGAIN_MS / 2);
    } else {
      heard = Date.now();
      trouble = message.problem;
      wait = 2000;
    }
  } catch {
    failures += 1;
    streamAgain = 0; // the service is away: a stream is as good to ask for
    wait = Math.min(3000, 300 * failures);
  }
  show();
  if (!document.hidden) later(open, wait);
}

// Another address of the same page, such as another order of its rows: what is on the screen stays until it has come.
export function lookAt(search) {
  history.replaceState(null, "", `${location.pathname}${search}`);
  main.dataset.stream = `/live${location.pathname}${search}`;
  streamAgain = 0;
  open();
}

if (main) {
  open();
  setInterval(show, 1000);
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => event.persisted && open());
}
