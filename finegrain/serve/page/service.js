// Requests to the service that the page comes from.

import { say } from "./languages.js";

/** The gallery to search, if the service has several. */
let gallery = null;
export const chooseGallery = (name) => {
  gallery = name;
};

/**
 * Send a request, with the key of this session.
 *
 * @returns {Promise<Response>} An answer with status 200; errors have the service's message.
 */
export async function call(path, options = {}) {
  const headers = new Headers(options.headers);
  const key = sessionStorage.getItem("key");
  if (key) headers.set("Authorization", `Bearer ${key}`);
  const address = new URL(path, location.href);
  if (gallery !== null) address.searchParams.set("gallery", gallery);
  const response = await fetch(address, { ...options, headers });
  if (response.status === 401 && (await askForKey())) return call(path, options);
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Error(problem.detail ?? say("failed", response.status));
  }
  return response;
}

export const read = (path) => call(path).then((response) => response.json());

export const post = (path, body) =>
  call(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  }).then((response) => response.json());

/** Get the key of this session for the code of a link. */
export async function useCode(code) {
  const response = await fetch("/v1/session", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ code }),
  });
  if (response.ok) sessionStorage.setItem("key", (await response.json()).key);
}

let asking = null; // one dialog for all requests that lack a key
function askForKey() {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("key-dialog");
    const input = document.getElementById("key");
    dialog.addEventListener(
      "close",
      () => {
        const key = input.value.trim();
        if (key) sessionStorage.setItem("key", key);
        input.value = "";
        asking = null;
        resolve(Boolean(key));
      },
      { once: true },
    );
    dialog.showModal();
  });
  return asking;
}
