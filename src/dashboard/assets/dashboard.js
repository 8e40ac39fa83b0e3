"use strict";

// Keeps the page up to date. Regions arrive as server-sent events and are merged into the page, so that
// focus, selection and scroll position do not change.

// After this time without an event the service counts as unreachable: it sends an event about every two seconds.
const QUIET_MS = 7000;
// How long to wait before connecting again after a response that is not an event stream.
const AGAIN_MS = 2000;
// After how long the browser reconnects if there were too many streams.
const FULL_MS = 30000;
// How long the user must not type before the search starts.
const TYPING_MS = 200;

let source = null;
let heardAt = Date.now();
let again = 0;

function connect() {
  disconnect();
  const url = document.body.dataset.events;
  if (!url || document.hidden) return;
  source = new EventSource(url);
  source.addEventListener("region", (event) => {
    heardAt = Date.now();
    const end = event.data.indexOf("\n");
    replace(event.data.slice(0, end), event.data.slice(end + 1));
  });
  source.addEventListener("full", () => {
    heardAt = Date.now() + FULL_MS;
    const full = "Too many live pages are open on this instance. The numbers are not updated. Trying again.";
    showStatus("not-live", "Not live", full);
  });
  source.addEventListener("error", () => {
    // A browser reconnects by itself, but not after a response that is not an event stream.
    if (source && source.readyState === EventSource.CLOSED) again = setTimeout(connect, AGAIN_MS);
  });
}

function disconnect() {
  clearTimeout(again);
  if (source) source.close();
  source = null;
}

// Shows why the page is not updated.
function showStatus(word, text, title) {
  const status = document.getElementById("status");
  if (!status || status.dataset.status === word) return;
  status.dataset.status = word;
  Object.assign(status, { textContent: text, title });
}

// Replaces the region of this id.
function replace(id, html) {
  const present = document.getElementById(id);
  const holder = document.createElement("template");
  holder.innerHTML = html;
  const wanted = holder.content.firstElementChild;
  if (!present || !wanted) return;
  const focused = document.activeElement;
  merge(present, wanted);
  // An element that is moved loses the focus.
  if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.dataset.key || node.id : "");

// Changes `present` into `wanted`, and keeps all elements that are in both.
function merge(present, wanted) {
  if (present.nodeName !== wanted.nodeName || present.nodeType !== wanted.nodeType) {
    present.replaceWith(wanted);
    return;
  }
  if (present.nodeType !== Node.ELEMENT_NODE) {
    if (present.nodeValue !== wanted.nodeValue) present.nodeValue = wanted.nodeValue;
    return;
  }
  if (present.isEqualNode(wanted)) return;
  for (const { name } of [...present.attributes]) if (!wanted.hasAttribute(name)) present.removeAttribute(name);
  for (const { name, value } of wanted.attributes) {
    if (present.getAttribute(name) !== value) present.setAttribute(name, value);
  }
  const keyed = new Map([...present.children].filter(keyOf).map((child) => [keyOf(child), child]));
  let place = present.firstChild;
  for (const child of [...wanted.childNodes]) {
    const known = keyed.get(keyOf(child));
    if (known && known !== place) present.insertBefore(known, place);
    const match = known || (place && !keyOf(place) && !keyOf(child) ? place : null);
    if (!match) {
      present.insertBefore(child, place);
      continue;
    }
    if (match === place) place = place.nextSibling;
    merge(match, child);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

setInterval(() => {
  if (document.hidden || Date.now() - heardAt < QUIET_MS) return;
  showStatus("unreachable", "Unreachable", "The service does not answer. Trying again.");
}, 500);

// A form that changes something is sent only once, however often its button is pressed. Otherwise the browser would
// show the response to the last request, but the first request is the one that changed something.
document.addEventListener("submit", (event) => {
  if (event.target.method !== "post") return;
  if (event.target.dataset.sent) event.preventDefault();
  event.target.dataset.sent = "yes";
});

// A page that is not visible needs no stream.
document.addEventListener("visibilitychange", () => {
  heardAt = Date.now();
  connect();
});
window.addEventListener("pagehide", disconnect);
window.addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
  connect();
});

// Searches while the user types: updates the address of the page, and opens the event stream for the new search.
for (const form of document.querySelectorAll("form[data-live]")) {
  let typing = 0;
  form.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
      history.replaceState(null, "", query.size ? `?${query}` : form.action);
      query.set("page", "overview");
      document.body.dataset.events = `/dashboard/events?${query}`;
      connect();
    }, TYPING_MS);
  });
}

connect();
