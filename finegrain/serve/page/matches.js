// Shows matches as tiles, and one of them in a dialog.

import { say } from "./languages.js";
import { call, read } from "./service.js";

const results = document.getElementById("results");
const ratios = []; // width by height of the pictures that are shown

export function node(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** The columns of a picture that have a value, as pairs. */
export function factsOf(match) {
  return Object.entries({
    pid: match.pid, camera: match.camera, time: match.time, track: match.track, ...match.metadata,
  }).filter(([, value]) => value !== null && value !== undefined);
}

export function clear() {
  ratios.length = 0;
  results.replaceChildren();
}

/**
 * Add a tile.
 *
 * @param {object} match A match of the service.
 * @param {{open: (id: number) => void, judge: (match: object, isRight: boolean) => void}} actions
 */
export function show(match, actions) {
  const item = node("li");
  const button = node("button", "picture");
  button.setAttribute("aria-label", say("match", match.rank, match.score.toFixed(3)));
  button.addEventListener("click", () => actions.open(match.id));
  button.addEventListener("keydown", (event) => {
    if (event.key === "+") actions.judge(match, true);
    if (event.key === "-") actions.judge(match, false);
  });
  const picture = node("img");
  picture.alt = "";
  button.append(picture);
  item.load = () => loadImage(picture, match.id, 320);
  loading.observe(item);
  const facts = node("div", "facts");
  const chance = match.probability ?? null;
  const rating = chance === null ? match.score.toFixed(3) : `${Math.round(100 * chance)} %`;
  facts.append(node("b", "", `${match.rank}. ${rating}`));
  for (const [name, value] of factsOf(match).slice(0, 3)) {
    facts.append(node("span", "", `${name}: ${value}`));
  }
  item.append(button, facts, judging(match, actions));
  results.append(item);
}

function judging(match, actions) {
  const buttons = node("div", "judging");
  for (const [isRight, sign, label] of [[true, "+", "right"], [false, "−", "wrong"]]) {
    const button = node("button", "", sign);
    button.setAttribute("aria-label", say(label));
    button.title = say(label);
    button.addEventListener("click", () => actions.judge(match, isRight));
    buttons.append(button);
  }
  return buttons;
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

export async function loadImage(picture, id, side) {
  try {
    const response = await call(`/v1/pictures/${id}/image?side=${side}`);
    const address = URL.createObjectURL(await response.blob());
    picture.addEventListener("load", () => URL.revokeObjectURL(address), { once: true });
    picture.src = address;
    await picture.decode();
    fitTiles(picture.naturalWidth / picture.naturalHeight);
  } catch {
    picture.replaceWith(node("span", "chip", say("gone")));
  }
}

/** Give all tiles the median shape of the pictures, so that most fill theirs. */
function fitTiles(ratio) {
  ratios.push(ratio);
  const median = ratios.toSorted((a, b) => a - b)[ratios.length >> 1];
  results.style.setProperty("--ratio", Math.min(Math.max(median, 0.4), 1.6).toFixed(2));
}

/** Show a picture with all of its columns. */
export async function showDetail(id) {
  const columns = document.getElementById("detail-columns");
  const frame = document.getElementById("detail-frame");
  const image = node("img");
  image.alt = "";
  frame.replaceChildren(image);
  columns.replaceChildren();
  try {
    const row = await read(`/v1/pictures/${id}`);
    for (const [name, value] of [...factsOf(row), [say("added"), row.added_at]]) {
      columns.append(node("dt", "", name), node("dd", "", String(value)));
    }
    await loadImage(image, id, 1024);
  } catch (error) {
    columns.append(node("dd", "", error.message));
  }
}

/** Move the focus among tiles with the arrow keys. */
results.addEventListener("keydown", (event) => {
  const tiles = [...results.querySelectorAll("button.picture")];
  const place = tiles.indexOf(document.activeElement);
  if (place < 0) return;
  const perRow = tiles.filter((tile) => tile.offsetTop === tiles[0].offsetTop).length;
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: perRow, ArrowUp: -perRow };
  const target = tiles[place + (steps[event.key] ?? NaN)];
  if (target) {
    event.preventDefault();
    target.focus();
  }
});
