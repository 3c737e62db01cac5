// Completes "cam" to "camera:" and "camera:ga" to "camera:gate-3" from the gallery's columns.

const MOST = 8;

/** Columns that the page adds to those of the gallery: bounds of the time. */
const TIMES = ["after", "before"];

/**
 * What the token that ends at the caret may become.
 *
 * @param {string} typed The text up to the caret.
 * @param {Map<string, string[]>} values The values of each column.
 * @returns {string[]} Whole tokens, the best first.
 */
export function suggestions(typed, values) {
  const token = typed.match(/\S*$/)[0];
  const [name, given] = token.split(/:(.*)/s);
  if (given === undefined) {
    if (name.length < 2) return [];
    return [...values.keys(), ...TIMES].filter((one) => startsWith(one, name)).map((one) => `${one}:`).slice(0, MOST);
  }
  const known = values.get(name) ?? [];
  return known
    .filter((value) => startsWith(value, given.replace(/^"/, "")) && value !== given)
    .map((value) => `${name}:${/\s/.test(value) ? `"${value}"` : value}`)
    .slice(0, MOST);
}

const startsWith = (value, start) => value.toLowerCase().startsWith(start.toLowerCase());

/** Attach a list of suggestions to an input, with arrow keys, Enter, Tab and Escape. */
export function complete(input, list, values) {
  let chosen = -1;

  const hide = () => {
    list.replaceChildren();
    list.hidden = true;
    chosen = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };

  const take = (token) => {
    const caret = input.selectionStart;
    const before = input.value.slice(0, caret).replace(/\S*$/, token) + (token.endsWith(":") ? "" : " ");
    input.value = before + input.value.slice(caret).trimStart();
    input.setSelectionRange(before.length, before.length);
    input.focus();
    show();
  };

  const mark = (index) => {
    chosen = index;
    [...list.children].forEach((item, number) => item.setAttribute("aria-selected", String(number === index)));
    if (index >= 0) input.setAttribute("aria-activedescendant", list.children[index].id);
  };

  const show = () => {
    const tokens = suggestions(input.value.slice(0, input.selectionStart), values());
    hide();
    tokens.forEach((token, number) => {
      const item = document.createElement("li");
      item.id = `suggestion-${number}`;
      item.role = "option";
      item.textContent = token;
      item.addEventListener("mousedown", (event) => {
        event.preventDefault(); // the input keeps the focus
        take(token);
      });
      list.append(item);
    });
    list.hidden = !tokens.length;
    input.setAttribute("aria-expanded", String(!list.hidden));
  };

  input.addEventListener("input", show);
  input.addEventListener("blur", hide);
  input.addEventListener("keydown", (event) => {
    if (list.hidden) return;
    const count = list.children.length;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      mark((chosen + (event.key === "ArrowDown" ? 1 : count - (chosen < 0 ? 0 : 1))) % count);
    } else if ((event.key === "Enter" || event.key === "Tab") && chosen >= 0) {
      take(list.children[chosen].textContent);
    } else if (event.key === "Tab" && count) {
      take(list.children[0].textContent);
    } else if (event.key === "Escape") {
      hide();
    } else {
      return;
    }
    event.preventDefault();
  });
}
