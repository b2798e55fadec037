// Forms in place: an action opens as a dialog, a filter works while somebody types, and a form says what is wrong with it.
import { lookAt } from "./live.js";

const SCRIPT = { "x-outrider-script": "1" };
const notes = document.getElementById("notes");
const dialog = document.createElement("dialog");
dialog.setAttribute("aria-label", "Confirm");
document.body.append(dialog);

export function note(words, isBad = false) {
  const line = document.createElement("p");
  line.className = isBad ? "note bad" : "note";
  line.textContent = words;
  const dismiss = document.createElement("button");
  dismiss.className = "quiet";
  dismiss.textContent = "Dismiss";
  dismiss.addEventListener("click", () => line.remove());
  line.append(" ", dismiss);
  notes.append(line);
  while (notes.children.length > 5) notes.firstElementChild.remove();
}

function fill(html) {
  const form = new DOMParser().parseFromString(html, "text/html").querySelector("[data-action]");
  if (!form) return false;
  dialog.replaceChildren(form);
  return true;
}

async function ask(link) {
  const answer = await fetch(link.href);
  if (!fill(await answer.text())) return location.assign(link.href);
  dialog.showModal();
  dialog.querySelector("[required], .buttons button:not([disabled]), .buttons a")?.focus();
}

async function send(form) {
  const button = form.querySelector("button:not([type=button])");
  button.disabled = true;
  try {
    const answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)), headers: SCRIPT });
    const isJson = answer.headers.get("content-type")?.startsWith("application/json");
    if (!isJson) {
      if (!fill(await answer.text())) location.reload();
      return;
    }
    const told = await answer.json();
    if (!answer.ok) {
      note(told.problem, true);
    } else {
      dialog.close();
      for (const line of told.notes.length ? told.notes : ["Done."]) note(line);
      if (!document.querySelector("main[data-stream]")) location.assign(told.back);
    }
  } catch {
    note("the service gives no answer; look whether it was done before you try again", true);
  } finally {
    button.disabled = false;
  }
}

document.addEventListener("click", (event) => {
  const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
  const link = event.target.closest("a");
  if (!plain || !link) return;
  if (link.matches("[data-dialog]")) {
    event.preventDefault();
    ask(link).catch(() => location.assign(link.href));
  } else if (link.matches("[data-look]")) {
    event.preventDefault();
    lookAt(new URL(link.href).search);
  } else if (link.matches("dialog [data-close]")) {
    event.preventDefault();
    dialog.close();
  }
});

dialog.addEventListener("submit", (event) => {
  event.preventDefault();
  send(event.target);
});

let typing = null;
async function lint(form) {
  const answer = await fetch(form.dataset.lint, { method: "POST", body: new URLSearchParams(new FormData(form)), headers: SCRIPT });
  if (!answer.ok) return;
  const told = await answer.json();
  const lines = (place, all) => place?.replaceChildren(...all.map((words) => {
    const line = document.createElement("li");
    line.textContent = words;
    return line;
  }));
  lines(form.querySelector("[data-lint-result]"), told.lint);
  lines(form.querySelector("[data-effect]"), told.effect);
}

function search(form) {
  const query = new URLSearchParams(new FormData(form));
  for (const [name, value] of [...query]) if (!value) query.delete(name);
  const text = query.toString();
  lookAt(text ? `?${text}` : "");
}

document.addEventListener("input", (event) => {
  const form = event.target.closest("form");
  if (form?.matches("[data-lint], [data-look]")) {
    clearTimeout(typing);
    typing = setTimeout(() => (form.matches("[data-look]") ? search(form) : lint(form).catch(() => {})), 250);
  }
});

document.addEventListener("submit", (event) => {
  if (event.target.matches("[data-look]")) {
    event.preventDefault();
    search(event.target);
  }
});
