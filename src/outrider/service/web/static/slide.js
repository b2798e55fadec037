// A slider over the past: what it points at comes in place. Without this file its form is sent.
const form = document.querySelector("form[data-slide]");
let asked = null;

async function show() {
  const search = `?t=${form.elements.t.value}`;
  asked?.abort();
  asked = new AbortController();
  const answer = await fetch(location.pathname + search, { signal: asked.signal });
  if (!answer.ok) return form.submit();
  const then = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("then");
  if (!then) return form.submit();
  document.getElementById("then").replaceWith(then);
  document.getElementById("when").value = "";
  history.replaceState(null, "", location.pathname + search);
}

let moving = null;
form?.addEventListener("input", () => {
  clearTimeout(moving);
  moving = setTimeout(() => show().catch((error) => error.name === "AbortError" || form.submit()), 80);
});
