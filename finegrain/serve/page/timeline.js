// Draws the matches with a camera and a time as dots, one line for each camera.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 1000;
const LINE = 28;

/**
 * Draw the timeline, or hide it if fewer than two matches have a time.
 *
 * @param {object[]} matches The matches that are shown.
 * @param {(id: number) => void} open Called when a dot is clicked.
 */
export function drawTimeline(matches, open) {
  const section = document.getElementById("timeline");
  const chart = document.getElementById("timeline-chart");
  const seen = matches.filter((match) => match.time && match.camera);
  section.hidden = seen.length < 2;
  if (section.hidden) return;
  const moments = seen.map((match) => Date.parse(match.time));
  const [first, last] = [Math.min(...moments), Math.max(...moments)];
  const cameras = [...new Set(seen.map((match) => match.camera))].sort();
  chart.replaceChildren();
  chart.setAttribute("viewBox", `0 0 ${WIDTH} ${(cameras.length + 1) * LINE}`);
  cameras.forEach((camera, line) => {
    const y = (line + 0.5) * LINE;
    add(chart, "line", { x1: 160, x2: WIDTH - 20, y1: y, y2: y });
    add(chart, "text", { x: 150, y: y + 5, "text-anchor": "end" }, camera.slice(0, 20));
  });
  seen.forEach((match, number) => {
    const share = last > first ? (moments[number] - first) / (last - first) : 0.5;
    const dot = add(chart, "circle", {
      cx: 170 + share * (WIDTH - 200), cy: (cameras.indexOf(match.camera) + 0.5) * LINE, r: 7,
      tabindex: 0, role: "button", "aria-label": `${match.rank}, ${match.camera}, ${match.time}`,
    });
    add(dot, "title", {}, `${match.rank}. ${match.time}`);
    dot.addEventListener("click", () => open(match.id));
    dot.addEventListener("keydown", (event) => {
      if (event.key === "Enter") open(match.id);
    });
  });
  const y = (cameras.length + 0.6) * LINE;
  for (const [x, moment, anchor] of [[170, first, "start"], [WIDTH - 20, last, "end"]]) {
    add(chart, "text", { x, y, "text-anchor": anchor }, new Date(moment).toLocaleString());
  }
}

function add(parent, name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}
