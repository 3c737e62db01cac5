// The search page. It asks only the service that it comes from.

import { parseQuery } from "./conditions.js";

const PAGE_SIZE = 24;
const element = (id) => document.getElementById(id);
const words = element("words");
const results = element("results");
const status = element("status");
const more = element("more");

let columns = {};
let ask = null; // asks for the next matches of the present search: (offset) => answer
let shown = 0;
const ratios = []; // width by height of the pictures that are shown
let search = 0; // number of the present search; answers to earlier ones are dropped

// --- the service ---------------------------------------------------------------------------------

async function call(path, options = {}) {
  const headers = new Headers(options.headers);
  const key = sessionStorage.getItem("key");
  if (key) headers.set("Authorization", `Bearer ${key}`);
  const response = await fetch(path, { ...options, headers });
  if (response.status === 401 && (await askForKey())) return call(path, options);
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Error(problem.detail ?? `The service answered ${response.status}.`);
  }
  return response;
}

const post = (path, body) =>
  call(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  }).then((response) => response.json());

let asking = null; // one dialog for all requests that lack a key
function askForKey() {
  asking ??= new Promise((resolve) => {
    const dialog = element("key-dialog");
    dialog.addEventListener(
      "close",
      () => {
        const key = element("key").value.trim();
        if (key) sessionStorage.setItem("key", key);
        element("key").value = "";
        asking = null;
        resolve(Boolean(key));
      },
      { once: true },
    );
    dialog.showModal();
  });
  return asking;
}

// --- searches ------------------------------------------------------------------------------------

function begin(question) {
  ask = question;
  shown = 0;
  search += 1;
  ratios.length = 0;
  results.replaceChildren();
  more.hidden = true;
  return next();
}

async function next() {
  const mine = search;
  status.textContent = "Searching …";
  more.disabled = true;
  try {
    const { answers } = await ask(shown);
    if (mine !== search) return;
    const [answer] = answers;
    answer.matches.forEach(show);
    shown += answer.matches.length;
    more.hidden = answer.matches.length < PAGE_SIZE;
    status.textContent = [
      shown ? `${shown} pictures` : "No picture matches these conditions.",
      ...answer.notes,
    ].join("\n");
  } catch (error) {
    if (mine === search) status.textContent = error.message;
  } finally {
    more.disabled = false;
  }
}

function searchTyped() {
  const { words: text, chips, where } = parseQuery(words.value, columns);
  element("conditions").replaceChildren(...chips.map((chip) => node("span", "chip", chip)));
  if (!text) {
    status.textContent = "Describe what to search for, such as: woman in red coat";
    return Promise.resolve();
  }
  history.replaceState(null, "", `#${new URLSearchParams({ q: words.value })}`);
  return begin((offset) => post("/v1/search", { query: text, where, k: PAGE_SIZE, offset }));
}

function searchPicture(file) {
  const { where } = parseQuery(words.value, columns);
  return begin((offset) => {
    const form = new FormData();
    form.set("picture", file);
    form.set("options", JSON.stringify({ k: PAGE_SIZE, offset, where }));
    return call("/v1/search/picture", { method: "POST", body: form }).then((r) => r.json());
  });
}

const searchSimilar = (id) =>
  begin((offset) => post("/v1/search/similar", { id, k: PAGE_SIZE, offset }));

// --- matches -------------------------------------------------------------------------------------

function node(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function factsOf(match) {
  return Object.entries({
    pid: match.pid, camera: match.camera, time: match.time, track: match.track, ...match.metadata,
  }).filter(([, value]) => value !== null && value !== undefined);
}

function show(match) {
  const item = node("li");
  const button = node("button", "picture");
  button.setAttribute("aria-label", `Match ${match.rank}, score ${match.score.toFixed(3)}`);
  button.addEventListener("click", () => open(match.id));
  const picture = node("img");
  picture.alt = "";
  button.append(picture);
  loading.observe(item);
  item.load = () => loadImage(picture, match.id, 320);
  const facts = node("div", "facts");
  facts.append(node("b", "", `${match.rank}. ${match.score.toFixed(3)}`));
  for (const [name, value] of factsOf(match).slice(0, 3)) {
    facts.append(node("span", "", `${name}: ${value}`));
  }
  item.append(button, facts);
  results.append(item);
}

// Pictures are fetched with the key, so they are not plain addresses; only those in view.
const loading = new IntersectionObserver(
  (entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      loading.unobserve(entry.target);
      entry.target.load();
    }
  },
  { rootMargin: "400px" },
);

async function loadImage(picture, id, side) {
  try {
    const response = await call(`/v1/pictures/${id}/image?side=${side}`);
    const address = URL.createObjectURL(await response.blob());
    picture.addEventListener("load", () => URL.revokeObjectURL(address), { once: true });
    picture.src = address;
    await picture.decode();
    fitTiles(picture.naturalWidth / picture.naturalHeight);
  } catch {
    picture.replaceWith(node("span", "chip", "picture not available"));
  }
}

/** Give all tiles the median shape of the pictures, so that most fill theirs. */
function fitTiles(ratio) {
  ratios.push(ratio);
  const median = ratios.toSorted((a, b) => a - b)[ratios.length >> 1];
  results.style.setProperty("--ratio", Math.min(Math.max(median, 0.4), 1.6).toFixed(2));
}

async function open(id) {
  const detail = element("detail");
  const image = element("detail-image");
  image.removeAttribute("src");
  element("detail-columns").replaceChildren();
  element("similar").onclick = () => {
    detail.close();
    searchSimilar(id);
  };
  detail.showModal();
  try {
    const row = await (await call(`/v1/pictures/${id}`)).json();
    for (const [name, value] of [...factsOf(row), ["added", row.added_at]]) {
      element("detail-columns").append(node("dt", "", name), node("dd", "", String(value)));
    }
    await loadImage(image, id, 1024);
  } catch (error) {
    element("detail-columns").append(node("dd", "", error.message));
  }
}

// --- input ---------------------------------------------------------------------------------------

element("search").addEventListener("submit", (event) => {
  event.preventDefault();
  searchTyped();
});
element("picture").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) searchPicture(file);
  event.target.value = "";
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (file) searchPicture(file);
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const file = [...event.dataTransfer.files].find((one) => one.type.startsWith("image/"));
  if (file) searchPicture(file);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== words && !document.querySelector("dialog[open]")) {
    event.preventDefault();
    words.focus();
  }
});
more.addEventListener("click", next);

async function start() {
  try {
    const stats = await (await call("/v1/stats")).json();
    columns = { camera: "text", pid: "text", track: "text", ...stats.columns };
    status.textContent = stats.pictures
      ? `${stats.pictures} pictures. Columns: ${Object.keys(columns).join(", ")}`
      : "The gallery is empty. Add pictures with: finegrain index PLAN FOLDER";
  } catch (error) {
    status.textContent = error.message;
    return;
  }
  const typed = new URLSearchParams(location.hash.slice(1)).get("q");
  if (typed) {
    words.value = typed;
    await searchTyped();
  }
}

start();
