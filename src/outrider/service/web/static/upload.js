// A file on its way: how far it is, and how to stop it. Without this file the form is sent as it is.
import { note } from "./forms.js";

const SCRIPT = { "x-outrider-script": "1" };

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("[data-upload]")) return;
  event.preventDefault();
  const button = form.querySelector("button");
  const bar = form.querySelector("progress");
  const words = form.querySelector("[data-progress]");
  const request = new XMLHttpRequest();
  const over = (line, isBad) => {
    button.disabled = false;
    bar.hidden = true;
    words.textContent = "";
    if (line) note(line, isBad);
  };
  request.upload.addEventListener("progress", (at) => {
    if (!at.lengthComputable) return;
    bar.value = (100 * at.loaded) / at.total;
    words.textContent = at.loaded < at.total ? `${Math.floor(bar.value)} % of ${Math.ceil(at.total / 1e6)} MB` : "stored; checking it";
  });
  request.addEventListener("error", () => over("the upload was cut off; look whether the package is there before you try again", true));
  request.addEventListener("load", () => {
    let told = {};
    try {
      told = JSON.parse(request.responseText);
    } catch {
      // a page: what it says is in its title alone
    }
    if (request.status !== 200) return over(told.problem ?? `the service said ${request.status}`, true);
    over("", false);
    for (const line of told.notes) note(line);
    form.reset();
    form.closest("details").open = false;
  });
  request.open("POST", form.action);
  for (const [name, value] of Object.entries(SCRIPT)) request.setRequestHeader(name, value);
  button.disabled = true;
  bar.hidden = false;
  bar.value = 0;
  request.send(new FormData(form));
});
