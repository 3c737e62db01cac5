// Splits "red coat camera:gate-3 price:<80" into words and a filter of the service.

const TOKEN = /(\w+):(<=|>=|!=|<|>|=)?("(?:[^"]*)"|\S+)/g;

/** A value as the filter language writes it: a number, or a text in single quotes. */
function literal(value, isNumber) {
  return isNumber ? value : `'${value.replaceAll("\\", "\\\\").replaceAll("'", "''")}'`;
}

/**
 * Words, chips and filter of a typed query.
 *
 * @param {string} typed What the user typed.
 * @param {Record<string, string>} columns Columns of the gallery; other tokens stay words.
 * @returns {{words: string, chips: string[], where: string|null}}
 */
export function parseQuery(typed, columns) {
  const conditions = [];
  const chips = [];
  const words = typed.replace(TOKEN, (token, name, operator, raw) => {
    const value = raw.replace(/^"(.*)"$/, "$1");
    if (name === "after" || name === "before") {
      const day = /^\d{1,2}:\d{2}$/.test(value) ? today(value) : value;
      conditions.push(`time ${name === "after" ? ">=" : "<"} ${literal(day, false)}`);
    } else if (Object.hasOwn(columns, name)) {
      const isNumber = /number|integer|real/.test(columns[name]) && Number.isFinite(Number(value));
      conditions.push(`"${name}" ${operator ?? "="} ${literal(value, isNumber)}`);
    } else {
      return token;
    }
    chips.push(token);
    return " ";
  });
  return {
    words: words.replace(/\s+/g, " ").trim(),
    chips,
    where: conditions.length ? conditions.join(" and ") : null,
  };
}

/** A time of today, in UTC as the gallery stores it. */
function today(clock) {
  const [hour, minute] = clock.split(":").map(Number);
  const moment = new Date();
  moment.setHours(hour, minute, 0, 0);
  return moment.toISOString();
}
