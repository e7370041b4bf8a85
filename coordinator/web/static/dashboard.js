/* Draws the document of dashboard/data whenever the event stream names a new revision.  Text goes in as text nodes and
   attributes, never as markup: area names and gateway ids come from outside. */
"use strict";

const $ = (id) => document.getElementById(id);
const RINGS_MAX = 36; // drawn at once, those that miss somebody first; the rest is counted
const MISSING_MAX = 50;
const INTERVALS_MIN = 12;
const RETRY_MS = 3000;
let shown = -1; // revision on the screen
let wanted = 0; // counts the calls to refresh while one is under way
let busy = false;

const number = (value, digits = 0) =>
  value.toLocaleString("en-GB", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const clock = (seconds) =>
  new Date(seconds * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;

/* Plotly takes times without a zone as they are: this writes them in the viewer's own zone. */
function local(seconds) {
  const t = new Date(seconds * 1000);
  const two = (n) => String(n).padStart(2, "0");
  return `${t.getFullYear()}-${two(t.getMonth() + 1)}-${two(t.getDate())} ` +
    `${two(t.getHours())}:${two(t.getMinutes())}:${two(t.getSeconds())}`;
}

/* The prefix that keeps the largest value below 10,000 or so. */
function scaled(unit, values) {
  const largest = Math.max(0, ...values.filter((v) => v !== null).map(Math.abs));
  for (const [factor, prefix] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (largest >= 10 * factor) return { factor, unit: prefix + unit };
  }
  return { factor: 1, unit };
}
const numbers = (line) => line.values.map((v) => (v === null ? null : Number(v)));
const digits = (value) => (Math.abs(value) >= 100 || Number.isInteger(value) ? 0 : Math.abs(value) >= 10 ? 1 : 2);

function figure(id, value, unit, note) {
  const small = document.createElement("small");
  small.textContent = unit;
  $(id).replaceChildren(value, " ", small);
  $(`${id}-note`).textContent = note;
}

function title(line, lines) {
  const same = lines.filter((other) => other.feed_in === line.feed_in).length;
  return same > 1 ? line.name : line.feed_in ? "fed in" : "drawn";
}

function sumLast(lines, feedIn) {
  const picked = lines.filter((line) => line.feed_in === feedIn).map((line) => Number(line.values.at(-1)));
  return picked.length ? picked.reduce((a, b) => a + b) : null;
}

/* What noise does to the newest value: its standard deviation, where the totals carry any. */
function plusMinus(line, factor, unit) {
  const deviation = line.deviation.at(-1);
  if (deviation === null) return "";
  return `, noise ±\u00a0${number(deviation / factor, digits(deviation / factor))}\u00a0${unit}`;
}

/* What must be known beside a value; see the marks of /api/v1/totals. */
const MARKS = { incomplete: "not all enrolled gateways", carried: "with energy of earlier intervals", noise: "with noise",
  time_lapse: "time lapse: metering time runs faster than real time",
  small_rings: "small rings: a household hides among fewer than 30" };
const said = (marks) => marks.map((mark) => MARKS[mark]).join(", ");

function bills(data) {
  const counts = data.bills;
  $("bills").hidden = !counts || !Object.values(counts).some((count) => count > 0);
  if ($("bills").hidden) return;
  for (const [status, count] of Object.entries(counts)) $(`bills-${status}`).textContent = number(count);
  $("bills").classList.toggle("wrong", counts.refused > 0);
}

function cards(data) {
  const s = data.series;
  const at = s.start_s.at(-1);
  const until = `${clock(at)}–${clock(at + data.interval_s)}`;
  const power = s.power[0];
  if (power && power.values.at(-1) !== null) {
    const value = Number(power.values.at(-1));
    const { factor, unit } = scaled(power.unit, [value]);
    const lost = s.rings.at(-1) - s.opened.at(-1);
    const blur = plusMinus(power, factor, unit);
    const flow = lost ? `without ${plural(lost, "ring")}` : value < 0 ? "the area feeds in" : "the area draws";
    figure("power", number(value / factor, digits(value / factor)), unit, `${flow}, ${until}${blur}`);
  } else {
    figure("power", "–", "", `no ring opened, ${until}`);
  }
  const drawn = s.energy.length && s.energy[0].values.at(-1) !== null ? sumLast(s.energy, false) : null;
  if (drawn !== null) {
    const fed = sumLast(s.energy, true);
    const { factor, unit } = scaled(s.energy[0].unit, [drawn, fed]);
    const text = (value) => number(value / factor, digits(value / factor));
    const blur = plusMinus(s.energy[0], factor, unit);
    figure("energy", text(drawn), unit, (fed === null ? until : `fed in ${text(fed)} ${unit}, ${until}`) + blur);
  } else {
    figure("energy", "–", "", `no ring opened, ${until}`);
  }
  // Who came after the epoch was called is in no ring, and missing all the same.
  figure("present", number(s.present.at(-1)), `of ${number(awaited(s).at(-1))}`,
    `${number(s.members.at(-1))} in rings, ${number(data.connected)} connected, ${number(data.enrolled)} enrolled`);
  const { opened, void: lost, retried, unranged } = data.rounds;
  figure("opened", number(opened), `of ${number(opened + lost)}`,
    `${number(lost)} void, ${plural(retried, "retry").replace("retrys", "retries")}${unranged ? `, ${number(unranged)} unranged: a member owes a range proof` : ""}`);
  const ms = data.latency_ms;
  figure("latency", ms ? number(ms.p50, digits(ms.p50)) : "–", ms ? "ms" : "",
    ms ? `95 % within ${number(ms.p95, digits(ms.p95))} ms` : "no round opened");
}

/* --- charts --------------------------------------------------------------------------------------------------- */

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function plot(id, label, range, traces, yaxis, more = {}) {
  const ink = colour("ink"), muted = colour("muted"), grid = colour("grid"), surface = colour("surface");
  const axis = { gridcolor: grid, zerolinecolor: muted, zerolinewidth: 1, tickfont: { color: muted }, fixedrange: true };
  const layout = {
    margin: { l: 46, r: 8, t: 6, b: 34 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 11, color: ink },
    hovermode: "x unified", hoverlabel: { bgcolor: surface, bordercolor: grid, font: { color: ink } }, dragmode: false,
    showlegend: false, bargap: 0.15,
    xaxis: { ...axis, type: "date", range, showgrid: false, zeroline: false, hoverformat: "%a %d %b, %H:%M",
      tickformatstops: [{ dtickrange: [null, 86399999], value: "%H:%M\n%a %d %b" },
        { dtickrange: [86400000, null], value: "%a %d %b" }] },
    yaxis: { ...axis, nticks: 5, separatethousands: true, exponentformat: "none", ...yaxis }, ...more,
  };
  const element = $(id);
  element.setAttribute("role", "img");
  element.setAttribute("aria-label", label);
  return Plotly.react(element, traces, layout, { displayModeBar: false, responsive: true });
}

function key(id, entries) {
  $(id).replaceChildren(...entries.flatMap(([tone, name]) => {
    const mark = document.createElement("i");
    mark.className = tone;
    return [mark, name];
  }));
}

function charts(data) {
  const s = data.series;
  // A bar and the end of a curve stand for the whole interval: both are drawn at its middle.
  const x = s.start_s.map((t) => local(t + data.interval_s / 2));
  // A young coordinator has few intervals: bars as wide as the page and ticks by the second would tell nothing.
  const end = s.start_s.at(-1) + data.interval_s;
  const range = [local(Math.min(s.start_s[0], end - INTERVALS_MIN * data.interval_s)), local(end)];
  const lines = s.power.map(numbers);
  const power = scaled(s.power.length ? s.power[0].unit : "W", lines.flat());
  const width = 850 * data.interval_s; // ms
  const lost = s.start_s.map((_, i) => s.opened[i] < s.rings[i]);
  const partial = lost.map((is, i) => (is ? ` (${s.opened[i]} of ${s.rings[i]} rings)` : "") +
    (s.marks[i].length ? `<br>${said(s.marks[i])}` : ""));
  $("load-unit").textContent = power.unit;
  plot("load-chart", `Load curve of the area in ${power.unit}`, range, lines.map((line, i) => ({
    type: "scatter", mode: "lines+markers", x, y: line.map((v) => (v === null ? null : v / power.factor)), text: partial,
    marker: { size: lost.map((is) => (is ? 8 : x.length > 2 ? 0 : 6)), opacity: 1, color: colour("surface"),
      line: { width: 2, color: lost.map((is) => colour(is ? "missing" : "load")) } },
    line: { color: colour("load"), width: 2, shape: "linear" }, fill: i === 0 ? "tozeroy" : "none",
    fillcolor: colour("load-fill"), hovertemplate: `%{y:,.4~g} ${power.unit}%{text}<extra></extra>`,
  })), { rangemode: "tozero" });

  const marks = s.marks.at(-1);
  key("load-key", [...(lost.includes(true) ? [["hollow", "without a void ring"]] : []),
    ...(marks.length ? [["mark", `newest value: ${said(marks)}`]] : [])]);

  const energy = s.energy.map((line) => numbers(line));
  const scale = scaled(s.energy.length ? s.energy[0].unit : "Wh", energy.flat());
  $("energy-unit").textContent = scale.unit;
  plot("energy-chart", `Energy per interval in ${scale.unit}`, range, s.energy.map((line, i) => ({
    type: "bar", x, width, name: title(line, s.energy), marker: { color: colour(line.feed_in ? "feed-in" : "import") },
    y: energy[i].map((v) => (v === null ? null : (line.feed_in ? -v : v) / scale.factor)),
    customdata: energy[i].map((v) => (v === null ? null : v / scale.factor)),
    hovertemplate: `%{customdata:,.4~g} ${scale.unit} ${title(line, s.energy)}<extra></extra>`,
  })), {}, { barmode: "relative" });
  key("energy-key", s.energy.map((line) => [line.feed_in ? "feed-in" : "import", title(line, s.energy)]));

  const bar = (name, y, tone) => ({ type: "bar", x, y, width, name, marker: { color: colour(tone) },
    hovertemplate: `%{y:,} ${name}<extra></extra>` });
  plot("participation-chart", "Gateways in the total and missing, per interval", range, [
    bar("in the total", s.present, "present"),
    bar("missing", awaited(s).map((n, i) => n - s.present[i]), "missing"),
  ], { rangemode: "tozero" }, { barmode: "stack" });
  key("participation-key", [["present", "in the total"], ["missing", "missing"]]);

  const latency = (key, name, tone) => ({ type: "scatter", mode: x.length > 2 ? "lines" : "lines+markers", x, name,
    y: s.latency_ms.map((q) => (q === null ? null : q[key])), line: { color: colour(tone), width: 1.8 },
    hovertemplate: `%{y:,.1f} ms ${name}<extra></extra>` });
  plot("latency-chart", "Round latency in milliseconds", range,
    [latency("p95", "95 %", "tail"), latency("p50", "median", "median")],
    { rangemode: "tozero" });
  key("latency-key", [["median", "median"], ["tail", "95 %"]]);
}

/* --- rings ---------------------------------------------------------------------------------------------------- */

function svg(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.append(text);
  return element;
}

function ringFigure(ring) {
  const missing = new Map(ring.missing.map((each) => [each.position, each.gateway]));
  const lost = ring.last_outcome === "void";
  const box = document.createElement("figure");
  const young = ring.last_round === null;
  box.className = lost ? "ring void" : young ? "ring young" : "ring";
  const present = young ? `${ring.size}` : `${ring.size - missing.size}/${ring.size}`;
  const drawing = svg("svg", { viewBox: "0 0 120 120", role: "img",
    "aria-label": `Ring ${ring.ring} of ${ring.area}: ` + (young ? `${ring.size} gateways, first round to come`
      : `${ring.size - missing.size} of ${ring.size} gateways`) });
  const radius = Math.max(1.2, Math.min(5, 150 / ring.size));
  const head = ring.head === null ? null : ring.head.position;
  for (let i = 0; i < ring.size; i += 1) {
    const angle = (2 * Math.PI * i) / ring.size - Math.PI / 2;
    const out = missing.has(i) && !lost;
    const classes = [out ? "out" : "in", i === head ? "head" : ""].join(" ").trim();
    const dot = svg("circle", { cx: (60 + 50 * Math.cos(angle)).toFixed(2), cy: (60 + 50 * Math.sin(angle)).toFixed(2),
      r: (out || i === head ? radius * 1.3 : radius).toFixed(2), class: classes });
    if (out) dot.append(svg("title", {}, `position ${i}: ${missing.get(i)}`));
    drawing.append(dot);
  }
  drawing.append(svg("text", { x: 60, y: 60 }, present));
  drawing.append(svg("text", { x: 60, y: 76, class: "sub" }, `ring ${ring.ring}`));
  const caption = document.createElement("figcaption");
  caption.append(ring.area, document.createElement("br"));
  if (young) caption.append("first round to come");
  else if (lost) {
    const word = document.createElement("b");
    word.append("void");
    caption.append(`round ${ring.last_round} `, word);
  } else caption.append(`round ${ring.last_round} · ${ring.last_latency_ms === null ? "–" : number(ring.last_latency_ms)} ms`);
  caption.title = `${ring.area}, epoch ${ring.epoch}`;
  box.append(drawing, caption);
  return box;
}

function smallTotals(data) {
  const { honest_min: least, honest_floor: floor } = data;
  const notice = $("small-totals");
  notice.hidden = least === null || least >= floor;
  notice.textContent = notice.hidden ? "" : `Small totals: at least ${plural(least, "honest household")} in each, where ` +
    `gateways expect ${floor}. Those here take part by their own configuration, and give no power; whoever chooses ` +
    "who is in a total learns more of a single household.";
}

function rings(data) {
  smallTotals(data);
  const ordered = [...data.rings].sort((a, b) => b.missing.length - a.missing.length);
  const drawn = new Set(ordered.slice(0, RINGS_MAX));
  const visible = data.rings.filter((ring) => drawn.has(ring));
  $("rings").replaceChildren(...visible.map(ringFigure));
  const hidden = data.rings.length - visible.length;
  $("rings-note").textContent = plural(data.rings.length, "ring") +
    (hidden > 0 ? `, the ${RINGS_MAX} with most missing shown` : "");
  const lost = ordered.filter((ring) => ring.last_outcome === "void");
  const missing = ordered.filter((ring) => ring.last_outcome !== "void")
    .flatMap((ring) => ring.missing.map((each) => [each.gateway, `${ring.area}, ring ${ring.ring}, position ${each.position}`]));
  const lines = [...lost.map((ring) => [`all ${ring.size}`, `${ring.area}, ring ${ring.ring}: round void`]), ...missing];
  const s = data.series;
  const outside = s.members.length ? awaited(s).at(-1) - s.members.at(-1) : 0;
  if (outside > 0) lines.unshift([plural(outside, "gateway"), "enrolled, in no ring until the next epoch"]);
  const count = missing.length + lost.reduce((sum, ring) => sum + ring.size, 0) + outside;
  $("missing-title").textContent = count ? `Missing from the last total: ${number(count)}`
    : data.rings.length ? "Nobody is missing from the last total" : "No ring at the moment";
  $("missing").replaceChildren(...lines.slice(0, MISSING_MAX).map(([who, where]) => {
    const line = document.createElement("li"), name = document.createElement("b"), place = document.createElement("span");
    name.append(who);
    place.append(where);
    line.append(name, place);
    return line;
  }));
  if (lines.length > MISSING_MAX) {
    const rest = document.createElement("li");
    rest.append(`and ${number(lines.length - MISSING_MAX)} more`);
    $("missing").append(rest);
  }
}

const awaited = (s) => s.members.map((n, i) => Math.max(n, s.enrolled[i] ?? 0));

/* --- misbehaviour reports ------------------------------------------------------------------------------------------ */

const MISBEHAVIOUR = { wrong_seed: "revealed a seed unlike its share", corrupt_sum: "corrupts its ring’s sums",
  bad_deal: "dealt a bad share" };

function misbehaviourReports(data) {
  const { count, newest } = data.misbehaviour_reports;
  $("misbehaviour").hidden = count === 0;
  $("misbehaviour-link").hidden = count === 0;
  $("misbehaviour-link").textContent = plural(count, "misbehaviour report");
  $("misbehaviour-note").textContent = newest.length < count ? `the last ${newest.length} of ${number(count)}` : "";
  $("misbehaviour-rows").replaceChildren(...newest.map((each) => {
    const row = document.createElement("tr");
    const cell = (text, detail) => {
      const made = document.createElement("td");
      made.append(text);
      if (detail) {
        const small = document.createElement("small");
        small.append(` ${detail}`);
        made.append(small);
      }
      row.append(made);
      return made;
    };
    const when = new Date(each.last_s * 1000);
    const day = when.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" });
    cell(each.reported);
    cell(each.reporter);
    cell(MISBEHAVIOUR[each.misbehaviour]);
    cell(number(each.epochs)).dataset.unit = each.epochs === 1 ? " epoch" : " epochs";
    cell(`${day}, ${clock(each.last_s)}`, `${each.area}, epoch ${each.epoch}, ring ${each.ring}, round ${each.round}`);
    return row;
  }));
}

/* --- the page ------------------------------------------------------------------------------------------------- */

function choices(data) {
  const select = $("area");
  const known = [...select.options].slice(1).map((option) => option.value);
  for (const area of data.areas.filter((name) => !known.includes(name))) select.add(new Option(area, area));
  if (!data.interval_s) return;
  for (const option of $("window").options) {
    const hours = (option.value * data.interval_s) / 3600;
    option.textContent = hours % 24 ? `${number(hours, hours % 1 ? 1 : 0)} h` : plural(hours / 24, "day");
  }
}

function steps(data) {
  const say = { enrolled: data.enrolled ? `${plural(data.enrolled, "gateway")} so far.` : "Waiting.",
    rings: data.rings.length ? `${plural(data.rings.length, "ring")} so far.` : "Waiting.", round: "Waiting." };
  const done = { enrolled: data.enrolled > 0, rings: data.rings.length > 0, round: false };
  for (const item of document.querySelectorAll("#steps li")) {
    item.className = done[item.dataset.step] ? "done" : "";
    item.querySelector("span").textContent = say[item.dataset.step];
  }
}

function draw(data) {
  choices(data);
  const empty = data.series.start_s.length === 0;
  $("empty").hidden = !empty;
  $("full").hidden = empty;
  if (empty) steps(data);
  else {
    cards(data);
    bills(data);
    misbehaviourReports(data);
    rings(data);
    charts(data);
  }
  shown = data.revision;
  document.body.dataset.revision = String(shown);
}

const question = () => String(new URLSearchParams({ area: $("area").value, window: $("window").value }));

async function refresh() {
  wanted += 1;
  if (busy) return;
  busy = true;
  try {
    for (let asked = -1; asked !== wanted;) {
      asked = wanted;
      const query = question();
      const answer = await fetch(`dashboard/data?${query}`, { cache: "no-store" });
      if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
      const data = await answer.json();
      if (query === question()) draw(data); // else another choice was made meanwhile
    }
  } catch (error) {
    live("error", error instanceof TypeError ? "reconnecting" : error.message);
  } finally {
    busy = false;
  }
}

function live(state, text) {
  $("live").dataset.state = state;
  $("live").textContent = text;
}

function listen() {
  const stream = new EventSource("dashboard/events");
  stream.addEventListener("revision", (event) => {
    live("live", "live");
    if (Number(event.data) !== shown) refresh();
  });
  stream.addEventListener("error", () => {
    live("error", "reconnecting");
    shown = -1; // a coordinator that starts again counts its revisions anew
    // A lost connection is made again by the browser, one that was answered with an error is given up by it.
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, RETRY_MS);
  });
}
listen();
$("area").addEventListener("change", refresh);
$("window").addEventListener("change", refresh);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
refresh();
