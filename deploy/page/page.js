// Draws what /live sends twice a second: the whole picture each time. Text goes in as text, never as markup.
"use strict";

const SHOWN_S = 120;
const byId = (id) => document.getElementById(id);

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function shape(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);
const x = (index, count) => SHOWN_S - count + index;

function drawRequests(history) {
  const most = Math.max(10, ...history.map((second) => second.well + second.failed));
  byId("requests").replaceChildren(...history.flatMap((second, index) => {
    const well = (second.well / most) * 38;
    // One failure among many must be seen too.
    const failed = second.failed ? Math.max(3, (second.failed / most) * 38) : 0;
    const place = { x: x(index, history.length) + 0.1, width: 0.8 };
    return [
      shape("rect", { ...place, y: 40 - well, height: well, fill: colour("well") }),
      shape("rect", { ...place, y: Math.max(0, 40 - well - failed), height: failed, fill: colour("bad") }),
    ];
  }));
}

function drawLatency(history) {
  const most = Math.max(5, ...history.map((second) => second.max_ms));
  const line = (key, name) => shape("polyline", {
    points: history.map((second, index) => `${x(index, history.length) + 0.5},${39 - (second[key] / most) * 37}`).join(" "),
    fill: "none", stroke: colour(name), "stroke-width": 1.5, "vector-effect": "non-scaling-stroke",
  });
  byId("latency").replaceChildren(line("max_ms", "slow"), line("p50_ms", "well"));
  byId("latency-max").textContent = `(the chart ends at ${Math.round(most)} ms)`;
}

function drawNodes(nodes, pods) {
  const most = Math.max(1, ...pods.map((pod) => pod.lately));
  byId("nodes").replaceChildren(...nodes.map((node) => {
    const status = node.status.split(",")[0];
    const kind = status === "Ready" ? "" : status === "Down" ? " down" : " wait";
    const card = element("article", `node${kind}`);
    const title = element("h3", "", node.name);
    title.append(element("span", "", node.status));
    const failed = node.failed ? `, ${node.failed} failed` : "";
    card.append(title, element("p", "", `${node.answered} answered through its port${failed}${node.why ? " · " + node.why : ""}`));
    for (const pod of pods.filter((each) => each.node === node.name)) {
      const row = element("div", `pod${pod.ready ? "" : " wait"}`);
      const words = element("div");
      words.append(element("code", "", pod.name), element("span", "count", pod.ready ? `${pod.lately} · ${pod.answered} in all` : pod.status));
      const bar = element("div", "bar");
      const filled = element("i");
      filled.style.width = `${(pod.lately / most) * 100}%`;
      bar.append(filled);
      row.append(words, bar);
      card.append(row);
    }
    return card;
  }));
}

function drawList(id, rows, none) {
  byId(id).replaceChildren(...(rows.length ? rows : [element("li", "none", none)]));
}

function drawEvents(events) {
  drawList("events", events.map((event) => {
    const row = element("li", event.warning ? "warning" : "");
    row.append(element("time", "", new Date(event.at_ms).toLocaleTimeString([], { hour12: false })), `${event.object} ${event.text}`);
    return row;
  }), "nothing yet");
}

function drawFailures(failures, nowS) {
  drawList("failures", failures.map((failure) => {
    const row = element("li", "warning");
    row.append(element("time", "", `${Math.round(nowS - failure.at_s)} s ago`), `through ${failure.node}: ${failure.text}${failure.pod ? " (" + failure.pod + ")" : ""}`);
    return row;
  }), "nothing");
}

function draw(picture) {
  const last = picture.history.at(-1) ?? { well: 0, failed: 0, p50_ms: 0 };
  byId("answered").textContent = picture.answered.toLocaleString();
  byId("failed").textContent = picture.failed.toLocaleString();
  byId("failed-box").className = picture.failed ? "bad" : "";
  byId("rate").textContent = last.well + last.failed;
  byId("p50").textContent = last.well ? last.p50_ms : "–";
  byId("state").textContent = picture.problem ? `managers: ${picture.problem}` : "live";
  byId("state").className = picture.problem ? "bad" : "";
  drawRequests(picture.history);
  drawLatency(picture.history);
  drawNodes(picture.nodes, picture.pods);
  drawEvents(picture.events);
  drawFailures(picture.failures, picture.now_s);
}

const live = new EventSource("live");
live.onmessage = (message) => draw(JSON.parse(message.data));
live.onerror = () => {
  byId("state").textContent = "the demo's page has ended; waiting for it";
  byId("state").className = "bad";
};
