// The search page. It asks only the service that it comes from.

import { fires, hasAlerts, startAlerts, toggle } from "./alerts.js";
import { complete } from "./completion.js";
import { parseQuery } from "./conditions.js";
import { choosePart } from "./crop.js";
import { LANGUAGES, chooseLanguage, chosenLanguage, say, translate } from "./languages.js";
import { clear, node, show, showDetail } from "./matches.js";
import { forget, save, saved } from "./saved.js";
import { call, chooseGallery, post, read, useCode } from "./service.js";
import { drawTimeline } from "./timeline.js";

const PAGE_SIZE = 24;
const element = (id) => document.getElementById(id);
const words = element("words");
const status = element("status");
const more = element("more");

/** Columns of the gallery: kinds by name, and values by name. */
let kinds = {};
let values = new Map();

/** What is searched for, besides the words: a picture of the user or one of the gallery. */
const asked = { file: null, similar: null, like: new Map(), unlike: new Map() };
let shown = []; // the matches on the page
let number = 0; // number of the present search; answers to earlier ones are dropped
let isComplete = true;
let cursor = ""; // where the next matches begin

// --- searches ------------------------------------------------------------------------------------

/** The request for the next matches; pictures that are added meanwhile do not move them. */
function request() {
  const { words: text, where } = parseQuery(words.value, kinds);
  const body = {
    where,
    k: PAGE_SIZE,
    cursor,
    group_by: element("group").value || null,
    min_probability: Number(element("probability").value) / 100 || null,
    like: [...asked.like.keys()],
    unlike: [...asked.unlike.keys()],
  };
  if (asked.file) {
    const form = new FormData();
    form.set("picture", asked.file);
    form.set("options", JSON.stringify({ ...body, text: text || null }));
    return call("/v1/search/picture", { method: "POST", body: form }).then((r) => r.json());
  }
  if (asked.similar !== null) {
    return post("/v1/search/similar", { ...body, id: asked.similar, text: text || null });
  }
  return post("/v1/search", { ...body, query: text });
}

function begin() {
  const { words: text, chips } = parseQuery(words.value, kinds);
  element("conditions").replaceChildren(...pictureChips(), ...chips.map((chip) => node("span", "chip", chip)));
  drawJudged();
  number += 1;
  shown = [];
  isComplete = true;
  cursor = "";
  clear();
  showRejected(null);
  drawTimeline([], open);
  more.hidden = true;
  if (!text && !asked.file && asked.similar === null) {
    status.textContent = say("describe");
    return Promise.resolve();
  }
  remember({ q: words.value });
  isComplete = false;
  return next();
}

async function next() {
  const mine = number;
  if (isComplete) return;
  isComplete = true; // until this answer has come
  status.textContent = say("searching");
  try {
    const [answer] = (await request()).answers;
    if (mine !== number) return;
    answer.matches.forEach((match) => show(match, { open, judge }));
    showRejected(shown.length ? null : answer.rejected);
    shown.push(...answer.matches);
    cursor = answer.cursor;
    isComplete = cursor === null;
    more.hidden = isComplete;
    status.textContent = [shown.length ? say("shown", shown.length) : say("none"), ...answer.notes].join("\n");
    drawTimeline(shown, open);
  } catch (error) {
    if (mine === number) status.textContent = error.message;
  }
}

/** Offer the best match that was not probable enough. */
function showRejected(match) {
  const rejected = element("rejected");
  rejected.hidden = !match;
  rejected.onclick = () => {
    rejected.hidden = true;
    show(match, { open, judge });
  };
}

/** Search again by words alone. */
function beginByWords() {
  Object.assign(asked, { file: null, similar: null, like: new Map(), unlike: new Map() });
  return begin();
}

async function searchPicture(file) {
  const part = await choosePart(file);
  if (!part) return;
  Object.assign(asked, { file: part, similar: null, like: new Map(), unlike: new Map() });
  await begin();
}

function searchSimilar(id) {
  Object.assign(asked, { file: null, similar: id, like: new Map(), unlike: new Map() });
  words.value = "";
  return begin();
}

function judge(match, isRight) {
  asked.like.delete(match.id);
  asked.unlike.delete(match.id);
  (isRight ? asked.like : asked.unlike).set(match.id, match);
  return begin();
}

// --- chips ---------------------------------------------------------------------------------------

function chip(text, remove) {
  const made = node("span", "chip", text);
  const button = node("button", "", "×");
  button.setAttribute("aria-label", `${say("remove")}: ${text}`);
  button.addEventListener("click", remove);
  made.append(button);
  return made;
}

function pictureChips() {
  if (!asked.file && asked.similar === null) return [];
  const text = asked.file ? say("picture") : `${say("picture")} ${asked.similar}`;
  return [
    chip(text, () => {
      Object.assign(asked, { file: null, similar: null });
      begin();
    }),
  ];
}

function drawJudged() {
  const chips = [[asked.like, "+"], [asked.unlike, "−"]].flatMap(([judged, sign]) =>
    [...judged.values()].map((match) =>
      chip(`${sign} ${match.pid ?? match.id}`, () => {
        judged.delete(match.id);
        begin();
      }),
    ),
  );
  element("judged").replaceChildren(...(chips.length ? [node("span", "", say("judged")), ...chips] : []));
}

function drawSaved() {
  element("saved").hidden = !saved().length;
  element("saved-list").replaceChildren(
    ...saved().map((text) => {
      const item = node("li");
      const button = node("button", "", text);
      button.addEventListener("click", () => {
        words.value = text;
        beginByWords();
      });
      const remove = node("button", "", "×");
      remove.setAttribute("aria-label", `${say("remove")}: ${text}`);
      remove.addEventListener("click", () => {
        forget(text);
        drawSaved();
      });
      item.append(button, ...alertButton(text), remove);
      return item;
    }),
  );
}

/** A button that makes a saved search fire, if the service has alerts and the search has words. */
function alertButton(text) {
  if (!hasAlerts() || !parseQuery(text, kinds).words) return [];
  const button = node("button", "", "🔔");
  button.setAttribute("aria-label", `${say("alert")}: ${text}`);
  button.title = say("alert");
  button.setAttribute("aria-pressed", String(fires(text)));
  button.addEventListener("click", async () => {
    try {
      await toggle(text, kinds);
      button.setAttribute("aria-pressed", String(fires(text)));
      status.textContent = fires(text) ? say("fires", text) : say("quiet", text);
    } catch (error) {
      status.textContent = error.message;
    }
  });
  return [button];
}

// --- one picture ---------------------------------------------------------------------------------

/** Write the state of the page into its address, so that a link leads back to it. */
function remember(changes) {
  const state = new URLSearchParams(location.hash.slice(1));
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === "") state.delete(name);
    else state.set(name, value);
  }
  history.replaceState(null, "", `#${state}`);
}

async function open(id) {
  const detail = element("detail");
  element("similar").onclick = () => {
    detail.close();
    searchSimilar(id);
  };
  remember({ picture: id });
  if (!detail.open) detail.showModal();
  await showDetail(id);
}

element("detail").addEventListener("close", () => remember({ picture: null }));

// --- input ---------------------------------------------------------------------------------------

element("search").addEventListener("submit", (event) => {
  event.preventDefault();
  begin();
});
element("save").addEventListener("click", () => {
  if (words.value.trim()) save(words.value.trim());
  drawSaved();
});
element("group").addEventListener("change", begin);
element("probability").addEventListener("change", begin);
element("picture").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) searchPicture(file);
  event.target.value = "";
});
element("language").addEventListener("change", (event) => {
  chooseLanguage(event.target.value);
  element("group").options[0].textContent = say("ungrouped");
  drawSaved();
  begin();
});
element("gallery").addEventListener("change", async (event) => {
  chooseGallery(event.target.value);
  await readColumns();
  await beginByWords();
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
new IntersectionObserver((entries) => entries.some((one) => one.isIntersecting) && next(), {
  rootMargin: "600px",
}).observe(more);
complete(words, element("suggestions"), () => values);

// --- start ---------------------------------------------------------------------------------------

function option(value, text) {
  const made = node("option", "", text);
  made.value = value;
  return made;
}

async function readColumns() {
  const [stats, columns] = await Promise.all([read("/v1/stats"), read("/v1/columns")]);
  kinds = Object.fromEntries(columns.map((column) => [column.name, column.kind]));
  values = new Map(columns.map((column) => [column.name, column.values.map(String).sort()]));
  element("group").replaceChildren(
    option("", say("ungrouped")),
    ...columns.map((column) => option(column.name, column.name)),
  );
  status.textContent = stats.pictures
    ? say("holds", stats.pictures, Object.keys(kinds).join(", "))
    : say("empty");
  await startAlerts(stats.alerts, open);
  drawSaved();
}

/** Exchange the code of a link, which works once, for the key of this session. */
async function takeKey() {
  const code = new URLSearchParams(location.hash.slice(1)).get("once");
  if (code === null) return;
  remember({ once: null });
  await useCode(code);
}

async function start() {
  await takeKey();
  translate();
  element("language").replaceChildren(...Object.entries(LANGUAGES).map(([name, text]) => option(name, text)));
  element("language").value = chosenLanguage();
  drawSaved();
  try {
    const galleries = await read("/v1/galleries");
    if (galleries.length > 1) {
      element("gallery").replaceChildren(...galleries.map((name) => option(name, name)));
      element("gallery-choice").hidden = false;
      chooseGallery(galleries[0]);
    }
    await readColumns();
  } catch (error) {
    status.textContent = error.message;
    return;
  }
  const state = new URLSearchParams(location.hash.slice(1));
  if (state.get("q")) {
    words.value = state.get("q");
    await begin();
  }
  if (state.get("picture")) await open(Number(state.get("picture")));
}

start();
