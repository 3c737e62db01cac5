// Searches that this browser remembers.

const KEY = "searches";
const MOST = 50;

export function saved() {
  try {
    const texts = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(texts) ? texts.filter((text) => typeof text === "string") : [];
  } catch {
    return [];
  }
}

const write = (texts) => localStorage.setItem(KEY, JSON.stringify(texts.slice(0, MOST)));

export const save = (text) => write([text, ...saved().filter((other) => other !== text)]);

export const forget = (text) => write(saved().filter((other) => other !== text));
