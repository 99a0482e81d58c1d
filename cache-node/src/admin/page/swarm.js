// The swarm of one object: who has which chunks, and from whom they came.

import { paint, shape, tag } from "./charts.js";

const ASK_EVERY_MS = 1000;
const STRIP = 1000;
const GRAPH = 420;

let running = 0;

/** Shows the swarm of `url` in `place` until another is asked for. */
export async function swarm(url, token, state, place) {
  running += 1;
  const mine = running;
  place.replaceChildren();
  state.className = "";
  state.textContent = "asking …";
  while (mine === running) {
    const headers = { "content-type": "application/json" };
    if (token) headers.authorization = `Bearer ${token}`;
    try {
      const answer = await fetch("/v1/swarm", { method: "POST", headers, body: JSON.stringify({ url }) });
      const told = await answer.json();
      if (mine !== running) return;
      if (!answer.ok) {
        state.className = "bad";
        state.textContent = `${told.error.message}; ${told.error.remedy}`;
        return;
      }
      draw(told, state, place);
    } catch (error) {
      state.className = "bad";
      state.textContent = "this member does not answer";
    }
    await new Promise((done) => setTimeout(done, ASK_EVERY_MS));
  }
}

const held = (member) => member.has.reduce((count, range) => count + range.count, 0);

function draw(told, state, place) {
  told.members.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  const part = told.members.filter((member) => held(member) > 0 || member.growing);
  const whole = part.filter((member) => told.chunks && held(member) === told.chunks).length;
  const size = told.chunks ? `${told.chunks} chunks` : "length not known yet";
  state.className = part.length ? "" : "warn";
  state.textContent = part.length
    ? `${size}; ${whole} of ${told.members.length} nodes have all of it, ${part.length - whole} a part`
    : "nobody has any of it";
  place.replaceChildren(strips(told, part), graph(part));
}

function strips(told, part) {
  const grid = tag("div", "strips");
  const known = Math.max(1, told.chunks ?? 0,
    ...part.flatMap((member) => member.has.map((range) => range.first + range.count)));
  for (const member of part) {
    const count = held(member);
    const svg = shape("svg", {
      viewBox: `0 0 ${STRIP} 10`, preserveAspectRatio: "none", role: "img",
      "aria-label": `${member.name} has ${count} chunks`,
    });
    for (const range of member.has) {
      const cell = shape("rect", {
        x: (STRIP * range.first) / known, y: 0, width: (STRIP * range.count) / known, height: 10,
      });
      svg.append(paint(cell, { fill: `var(${member.growing ? "--peer" : "--memory"})` }));
    }
    grid.append(tag("span", "", member.name), svg,
      tag("span", "soft", `${count}${member.growing ? ", growing" : ""}`));
  }
  return grid;
}

function graph(part) {
  const box = tag("div", "graph");
  const links = part.flatMap((member) =>
    member.from.map((source) => ({ to: member.name, from: source.name, chunks: source.chunks })));
  if (!links.length) return box;
  const names = [...new Set(links.flatMap((link) => [link.from, link.to]))].sort();
  const middle = GRAPH / 2;
  const place = (name, radius) => {
    const angle = (2 * Math.PI * names.indexOf(name)) / names.length - Math.PI / 2;
    return [middle + radius * Math.cos(angle), middle + radius * Math.sin(angle)];
  };
  const most = Math.max(...links.map((link) => link.chunks));
  const svg = shape("svg", {
    viewBox: `0 0 ${GRAPH} ${GRAPH}`, role: "img",
    "aria-label": links.map((link) => `${link.from} gave ${link.to} ${link.chunks} chunks`).join("; "),
  });
  for (const link of links) {
    const [x1, y1] = place(link.from, middle - 60);
    const [x2, y2] = place(link.to, middle - 60);
    const bend = `Q${(x1 + x2) / 2 + (y2 - y1) * 0.15} ${(y1 + y2) / 2 - (x2 - x1) * 0.15}`;
    const line = shape("path", { d: `M${x1} ${y1} ${bend} ${x2} ${y2}` });
    const colour = link.from === "origin" ? "--origin" : "--peer";
    const width = 1 + (6 * link.chunks) / most;
    line.append(shape("title", {}, `${link.from} → ${link.to}: ${link.chunks} chunks`));
    const style = { fill: "none", stroke: `var(${colour})`, "stroke-width": width, "stroke-opacity": 0.6 };
    svg.append(paint(line, style));
  }
  for (const name of names) {
    const [x, y] = place(name, middle - 60);
    const dot = shape("circle", { cx: x, cy: y, r: 6 });
    paint(dot, { fill: `var(${name === "origin" ? "--origin" : "--memory"})` });
    const [tx, ty] = place(name, middle - 30);
    svg.append(dot, shape("text", { x: tx, y: ty + 4, "text-anchor": "middle" }, name));
  }
  const list = tag("details", "", tag("summary", "", "as a list"));
  list.append(tag("ul", "", ...links.map((link) => tag("li", "", `${link.from} → ${link.to}: ${link.chunks} chunks`))));
  box.append(svg, list);
  return box;
}
