// What goes on in a page that is open: changes as they come, ages that grow, keys that lead somewhere.
// Everything works without it. What the server sends is HTML that it has escaped; nothing is made of text here.

const body = document.body;
const main = document.getElementById("main");

// ── Ages ─────────────────────────────────────────────────────────────────────────────────────────────────────────
const STEPS = [[60, "s", 1], [3600, "min", 60], [86400, "h", 3600], [Infinity, "days", 86400]];

function spoken(seconds) {
  const [, unit, size] = STEPS.find(([below]) => Math.abs(seconds) < below);
  const count = Math.floor(Math.abs(seconds) / size);
  return seconds < 0 ? `in ${count} ${unit}` : `${count} ${unit} ago`;
}

function ages() {
  for (const element of document.querySelectorAll("time[datetime]")) {
    const at = new Date(element.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    const utc = element.dataset.utc ??= element.textContent;
    element.textContent = spoken((Date.now() - at.getTime()) / 1000);
    element.title = `${utc}, here ${at.toLocaleString()}`;
  }
}

// ── Changes ──────────────────────────────────────────────────────────────────────────────────────────────────────
const light = document.getElementById("live");

function tell(state, text) {
  if (!light) return;
  light.className = state;
  light.textContent = text;
}

/** Whether somebody is filling in a form, which must not be taken from under their fingers. */
function isBusy() {
  const field = document.activeElement?.closest?.("main input, main select, main textarea");
  return Boolean(field && field.value !== field.defaultValue);
}

let asking = false;
let again = false;

/** Asks for the page anew, and puts its content in the place of this one's. */
async function refresh() {
  if (asking) { again = true; return; }
  if (isBusy()) { tell("off", "out of date: reload"); return; }
  asking = true;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" }, redirect: "manual" });
    if (answer.type === "opaqueredirect") { location.reload(); return; }
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("main");
    if (!fresh) return;
    const focused = document.activeElement?.id;
    main.replaceChildren(...fresh.childNodes);
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
    body.dataset.live = page.body.dataset.live ?? body.dataset.live ?? "";
    if (!page.body.dataset.refresh) delete body.dataset.refresh;
    ages();
  } catch {
    // The next change, or the next turn, asks again.
  } finally {
    asking = false;
    if (again) { again = false; setTimeout(refresh, 1000); }
  }
}

/** Elements that take the place of those with the same id. */
function take(html) {
  const parts = document.createElement("template");
  parts.innerHTML = html;
  for (const child of [...parts.content.children]) {
    const part = child.matches("table") ? child.querySelector("tr") : child;
    if (body.dataset.watch && part.id === body.dataset.watch) refresh();
    const old = part.id && document.getElementById(part.id);
    if (!old) continue;
    const had = old.contains(document.activeElement) && document.activeElement.getAttribute("href");
    if (part.id.startsWith("n-")) part.classList.add("changed");
    old.replaceWith(part);
    if (had) part.querySelector(`a[href="${CSS.escape(had)}"]`)?.focus({ preventScroll: true });
  }
}

function follow() {
  const source = new EventSource(`/live?since=${encodeURIComponent(body.dataset.live)}`);
  source.addEventListener("open", () => tell("on", "live"));
  source.addEventListener("parts", (event) => take(event.data));
  source.addEventListener("stale", refresh);
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) {
      tell("off", "not live");
      // Signed out, or the server is gone for longer: look again, calmly.
      setTimeout(() => { refresh().then(follow); }, 5000);
    } else {
      tell("off", "not live, trying again");
    }
  });
  addEventListener("pagehide", () => source.close());
}

if (body.dataset.live) follow();

setInterval(() => {
  ages();
  if (body.dataset.refresh && document.visibilityState === "visible") refresh();
}, 1000 * Number(body.dataset.refresh || 5));
ages();

// ── Keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────
let going = false;

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  if (event.key === "/") {
    const field = document.querySelector("input[type=search]");
    if (field) { event.preventDefault(); field.focus(); }
  } else if (going) {
    going = false;
    document.querySelector(`[data-go="${CSS.escape(event.key)}"]`)?.click();
  } else if (event.key === "g") {
    going = true;
    setTimeout(() => { going = false; }, 1500);
  }
});
