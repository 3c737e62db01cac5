// Saved searches that fire: the service examines new pictures, and tells this page of matches.

import { parseQuery } from "./conditions.js";
import { say } from "./languages.js";
import { factsOf, loadImage, node } from "./matches.js";
import { call, post, read } from "./service.js";

const MOST_SHOWN = 50;
const MOST_NAME = 100;
const AGAIN_MS = 3000;

/** Names of the alerts of this service; null if it has none. */
let names = null;
let listening = null;

export const hasAlerts = () => names !== null;
export const fires = (text) => names?.has(nameOf(text)) ?? false;

/** An alert has the text of its search as its name. */
const nameOf = (text) => text.slice(0, MOST_NAME);

/**
 * Read the alerts of the gallery, and show their alarms.
 *
 * @param {boolean} isOffered Whether the service has alerts.
 * @param {(id: number) => void} open Opens a picture.
 */
export async function startAlerts(isOffered, open) {
  listening?.abort();
  document.getElementById("alarm-list").replaceChildren();
  document.getElementById("alarms").hidden = true;
  names = isOffered ? new Set((await read("/v1/alerts")).map((alert) => alert.name)) : null;
  if (!isOffered) return;
  listening = new AbortController();
  listen(open, listening.signal);
}

/** Make a saved search fire, or not any more. */
export async function toggle(text, kinds) {
  const name = nameOf(text);
  if (names.has(name)) {
    await call(`/v1/alerts?name=${encodeURIComponent(name)}`, { method: "DELETE" });
    names.delete(name);
    return;
  }
  const { words, where } = parseQuery(text, kinds);
  await post("/v1/alerts", { name, query: words, where });
  names.add(name);
}

/** Follow the events of the service, also after an interruption. */
async function listen(open, signal) {
  let last = "0";
  while (!signal.aborted) {
    try {
      const response = await call("/v1/alerts/events", { headers: { "Last-Event-ID": last }, signal });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        const events = (text + part.value).split("\n\n");
        text = events.pop();
        for (const event of events) {
          const fields = Object.fromEntries(event.split("\n").map((line) => line.split(/: (.*)/s)));
          if (fields.event !== "alarm") continue;
          last = fields.id;
          showAlarm(JSON.parse(fields.data).data, open);
        }
      }
    } catch {
      // The next attempt follows below.
    }
    if (!signal.aborted) await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

function showAlarm(alarm, open) {
  const list = document.getElementById("alarm-list");
  const item = node("li");
  const button = node("button", "alarm");
  const image = node("img");
  image.alt = "";
  const facts = factsOf(alarm.picture).slice(0, 3).map(([name, value]) => `${name}: ${value}`);
  button.append(image, node("span", "", [alarm.alert, ...facts].join("\n")));
  button.addEventListener("click", () => open(alarm.picture.id));
  item.append(button);
  list.prepend(item);
  while (list.children.length > MOST_SHOWN) list.lastChild.remove();
  document.getElementById("alarms").hidden = false;
  document.getElementById("alarm-count").textContent = say("alarms", list.children.length);
  loadImage(image, alarm.picture.id, 160);
}
