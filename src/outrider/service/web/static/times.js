// Ages that count on: <time datetime> shows how long ago it was, by the service's clock.
const main = document.querySelector("main");
let ahead = main?.dataset.now ? Date.parse(main.dataset.now) - Date.now() : 0;

export function serverTime(iso) {
  ahead = Date.parse(iso) - Date.now();
}

// as outrider says it: 7s, 12m, 5h, 3d
export function age(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86400)}d`;
}

export function tick(root = document) {
  const now = Date.now() + ahead;
  for (const each of root.querySelectorAll("time[datetime]:not([data-fixed])")) {
    const words = age(now - Date.parse(each.dateTime));
    if (each.firstChild?.nodeValue !== words) each.textContent = words;
  }
}

tick();
setInterval(() => {
  if (!document.hidden) tick();
}, 1000);
