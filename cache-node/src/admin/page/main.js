// The status page: asks this member for the cluster's figures and shows them, with rates made from
// the differences between two answers.

import { chart, tag } from "./charts.js";
import { swarm } from "./swarm.js";

const ASK_EVERY_MS = 2000;
const ASK_DEADLINE_MS = 8000;
/** Answers that are kept: five minutes of them. */
const KEPT_MAX = 150;

const TIERS = [
  ["memory", "--memory"], ["disk", "--disk"], ["peer", "--peer"],
  ["origin", "--origin"], ["pass", "--pass"],
];
const FLOWS = [
  ["response_bytes", "to clients", "--memory"],
  ["peer_bytes_in", "from peers", "--peer"],
  ["origin_bytes", "from origins", "--origin"],
];

const byId = (id) => document.getElementById(id);
const history = [];
let before = null;
let answeredAt = 0;

export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit += 1; }
  return `${count >= 100 || unit === 0 ? Math.round(count) : count.toPrecision(3)} ${units[unit]}`;
}

const rate = (count) => (count >= 100 ? Math.round(count).toLocaleString("en") : count.toFixed(1));
const sum = (counts) => counts.reduce((all, one) => all + one, 0);
const hitsOf = (hits) => (hits ? sum(TIERS.map(([tier]) => hits[tier])) : 0);

/** What happened a second between two answers, a member and altogether. */
function rates(report) {
  if (!before) return null;
  const seconds = (report.at_ms - before.at_ms) / 1000;
  if (!(seconds > 0)) return null;
  const former = new Map(before.members.map((member) => [member.node_id, member]));
  // A member that was silent, or counts from zero since it started again, has no rate now.
  const grown = (now, then) => (now == null || then == null || now < then ? 0 : (now - then) / seconds);
  const members = new Map();
  for (const member of report.members) {
    const then = former.get(member.node_id);
    const one = { requests: 0 };
    for (const [tier] of TIERS) {
      one[tier] = grown(member.hits?.[tier], then?.hits?.[tier]);
      one.requests += one[tier];
    }
    for (const key of ["response_bytes", "origin_bytes", "peer_bytes_in", "peer_bytes_out"]) {
      one[key] = grown(member[key], then?.[key]);
    }
    members.set(member.node_id, one);
  }
  const total = {};
  for (const one of members.values()) {
    for (const [key, value] of Object.entries(one)) total[key] = (total[key] ?? 0) + value;
  }
  return { members, total };
}

function tile(name, value, more, kind) {
  return tag("div", "", tag("dt", "", name), tag("dd", kind, value, tag("small", "", more)));
}

function tierHealth(report) {
  const voters = report.members.filter((member) => member.voter);
  const up = voters.filter((member) => member.state === "up").length;
  const enough = up > voters.length / 2;
  const word = !voters.length ? "none known" : enough ? (up === voters.length ? "healthy" : "degraded") : "lost";
  const kind = word === "healthy" ? "good" : word === "degraded" ? "warn" : "bad";
  return [word, `${up} of ${voters.length} voters, leader ${report.leader ?? "unknown"}`, kind];
}

function showNow(report, now) {
  const { totals } = report;
  const up = report.members.filter((member) => member.state === "up").length;
  const all = report.members.length;
  const offload = totals.offload_percent;
  const recent = now && now.total.response_bytes > 0
    ? `now ${(100 * (1 - now.total.origin_bytes / now.total.response_bytes)).toFixed(1)} %` : "no traffic now";
  byId("tiles").replaceChildren(
    tile("Offload", offload == null ? "–" : `${offload.toFixed(1)} %`, recent),
    tile("Requests", `${rate(now?.total.requests ?? 0)} /s`, `${hitsOf(totals.hits).toLocaleString("en")} in all`),
    tile("To clients", `${bytes(now?.total.response_bytes ?? 0)}/s`, `${bytes(totals.response_bytes)} in all`),
    tile("From origins", `${bytes(now?.total.origin_bytes ?? 0)}/s`, `${bytes(totals.origin_bytes)} in all`),
    tile("Cached", bytes(totals.cached_bytes), `${sum(report.members.map((m) => m.cached_objects ?? 0)).toLocaleString("en")} copies`),
    tile("Members", `${up} of ${all} up`, report.mode ? `mode ${report.mode.name}` : "", up < all ? "warn" : ""),
    tile("Tier", ...tierHealth(report)),
  );
}

function showTraffic() {
  const times = history.map((one) => one.at);
  const of = (key) => history.map((one) => one.total[key] ?? 0);
  chart(byId("requests"), times,
    TIERS.map(([tier, colour]) => ({ label: tier, colour, values: of(tier) })),
    { stacked: true, format: (value) => rate(value), base: 10 });
  chart(byId("bytes"), times,
    FLOWS.map(([key, label, colour]) => ({ label, colour, values: of(key) })),
    { stacked: false, format: (value) => `${bytes(value)}/s`, base: 1024 });
}

function state(member) {
  if (member.state !== "up") return member.reachable ? ["joining", "warn"] : ["down", "bad"];
  if (!member.reachable) return ["up, but silent", "warn"];
  return member.draining ? ["draining", "warn"] : ["up", "good"];
}

function standing(member, report) {
  if (report.leader === member.name) return "leader";
  if (member.voter) return "voter";
  if (member.role === "super") return "learner";
  return member.auto ? "standby" : "–";
}

function cached(member) {
  if (member.cached_bytes == null) return tag("td", "soft", "–");
  const meter = tag("meter");
  meter.max = Math.max(1, member.budget_bytes ?? 1);
  meter.value = member.cached_bytes;
  meter.setAttribute("aria-label", `part of the budget of ${bytes(member.budget_bytes ?? 0)}`);
  return tag("td", "", meter, bytes(member.cached_bytes));
}

function row(member, report, now) {
  const head = tag("th", "", member.name);
  head.scope = "row";
  const [word, kind] = state(member);
  const own = now?.members.get(member.node_id);
  const serves = member.hits != null && own;
  const number = (text) => tag("td", "number", serves ? text() : "–");
  // A node's position is that of its newest fence, and says nothing of how far it is behind.
  const behind = member.applied_position == null || member.role !== "super" ? "–"
    : Math.max(0, report.applied_position - member.applied_position).toLocaleString("en");
  return tag("tr", "", head, tag("td", kind, word), tag("td", "", standing(member, report)),
    tag("td", "", member.zone || "–"), tag("td", "", member.version),
    tag("td", "number", behind), cached(member),
    number(() => rate(own.requests)),
    number(() => bytes(own.response_bytes)),
    number(() => bytes(own.origin_bytes)),
    number(() => bytes(own.peer_bytes_in)),
    number(() => bytes(own.peer_bytes_out)));
}

function showDrains(report) {
  const leaving = report.members.filter((member) => member.drain && member.drain.state !== "serving");
  byId("drains").hidden = leaving.length === 0;
  byId("drain-list").replaceChildren(...leaving.map(({ name, drain }) => {
    const bar = tag("progress");
    bar.max = Math.max(1, drain.handed_off + drain.objects_left);
    bar.value = drain.state === "drained" ? bar.max : drain.handed_off;
    bar.setAttribute("aria-label", `${name}: ${drain.state}`);
    const word = tag("span", drain.stalled ? "bad" : "", drain.stalled ? "stalled" : drain.state);
    const more = `: ${drain.objects_left} objects left, ${drain.handed_off} given away (${bytes(drain.handed_off_bytes)}). ${drain.why}`;
    return tag("li", "", name, bar, word, more);
  }));
}

function showEvents(report) {
  const kinds = { info: "", warn: "warn", error: "bad" };
  const lines = report.events.map((event) => {
    const moment = new Date(event.at_ms);
    const time = tag("time", "", moment.toLocaleTimeString());
    time.dateTime = moment.toISOString();
    const times = event.times > 1 ? ` (${event.times} times)` : "";
    const mark = event.level === "info" ? "" : `${event.level}: `;
    return tag("li", "", time, tag("span", "who", event.member),
      tag("span", kinds[event.level] ?? "", mark + event.text + times));
  });
  byId("events").replaceChildren(...(lines.length ? lines : [tag("li", "soft", "nothing yet")]));
}

function show(report) {
  const now = rates(report);
  if (now) {
    history.push({ at: report.at_ms, total: now.total });
    if (history.length > KEPT_MAX) history.shift();
  }
  byId("cluster").textContent = `cluster ${report.cluster_id}, term ${report.term}, index position ${report.applied_position}`;
  showNow(report, now);
  showTraffic();
  showDrains(report);
  byId("member-rows").replaceChildren(...report.members.map((member) => row(member, report, now)));
  showEvents(report);
  if (!before || report.at_ms > before.at_ms) before = report;
}

async function ask() {
  const connection = byId("connection");
  try {
    const answer = await fetch("/cluster", { signal: AbortSignal.timeout(ASK_DEADLINE_MS) });
    if (!answer.ok) throw new Error(`it answers ${answer.status}`);
    show(await answer.json());
    answeredAt = Date.now();
    connection.className = "good";
    connection.textContent = "live";
  } catch (error) {
    const since = answeredAt ? `since ${Math.round((Date.now() - answeredAt) / 1000)} s` : "yet";
    connection.className = "bad";
    connection.textContent = `this member has not answered ${since}`;
  }
  setTimeout(ask, ASK_EVERY_MS);
}

byId("swarm-form").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  swarm(byId("swarm-url").value, byId("swarm-token").value, byId("swarm-state"), byId("swarm"));
});
ask();
