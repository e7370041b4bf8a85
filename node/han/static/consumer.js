// The consumer's page: asks the HAN API and shows it.  Texts go in as text, never as markup.
"use strict";

const BASE = "/smgw/con/v1/";
const ZONE = "Europe/Berlin";
const READINGS_MS = 10_000, CURVE_MS = 60_000;
const TEXTS = {
  de: {
    title: "Mein Stromzähler", meter: "Zähler", today: "Verbrauch am Tag", day: "Tag", now: "Zählerstände",
    where: "Wohin meine Daten gehen", periods: "Abrechnungszeiträume", log: "Logbuch", device: "Gateway",
    password: "Passwort ändern", new_password: "Neues Passwort (mindestens 10 Zeichen)", repeat: "Wiederholen",
    set: "Ändern", csv_energy: "Tag als CSV", csv_readings: "Zählerstände des Tages als CSV",
    file_of: "Datei für die Anzeigesoftware der PTB:", ar_file: "AR 2418-6",
    self_test: "Selbsttest", curve_note: "Energie je Registrierperiode; blass: mit Lücke oder nicht geprüft.",
    imported: "bezogen", exported: "eingespeist", nothing: "Noch keine Werte für diesen Tag.",
    measured: (at) => `gemessen ${at}`, silent: "Der Zähler hat seit Stunden nichts gesendet.",
    sum: (minutes, n, area) => `Alle ${minutes} Minuten verlässt ein Wert dieses Haus als Teil einer Summe von ` +
      `mindestens ${n} Haushalten (Gebiet „${area}“). Der Netzbetreiber erfährt nur die Summe.`,
    no_sum: "Zur Zeit verlässt kein Wert dieses Haus in einer Summe: das Gateway sitzt in keinem Ring.",
    sum_small: "Einzelne Werte dieses Hauses verlassen es dabei nicht.",
    direct: (who) => `${who} erhält Werte unter dem Namen dieses Gateways.`,
    pseudonymous: (who) => `${who} erhält Werte unter einem Pseudonym, ohne den Namen dieses Gateways.`,
    aggregated: (who, n) => `${who} erhält eine Summe von mindestens ${n} Haushalten.`,
    detail: (taf, obis, every) => `TAF ${taf}, Register ${obis}, ${every}`,
    no_profiles: "Der Administrator hat keine Auswertungsprofile für Sie gesetzt: darüber hinaus erhält niemand Werte.",
    no_log: "Keine Einträge.", id: "Kennung", version: "Programmversion", digest: "Prüfsumme (SHA-256)",
    certificate: "Zertifikat (SHA-256)", clock: "Uhr", clock_good: "genau genug für die Abrechnung",
    clock_bad: "nicht genau genug für die Abrechnung", profiles: "Profile",
    tested: (at) => `zuletzt ${at}`, untested: "noch nicht ausgeführt",
    checks: { clock: "Uhr", store: "Speicher", keys: "Schlüssel", certificates: "Zertifikate", meters: "Zähler",
      calibration_log: "Eichtechnisches Logbuch" },
    unequal: "Die beiden Passwörter sind verschieden.", changed: "Geändert. Der Browser fragt nun nach dem neuen.",
    failed: (detail) => `Das ging nicht: ${detail}`, offline: "Das Gateway antwortet nicht; diese Seite fragt weiter.",
    from: "von", to: "bis", register: "Register", energy: "Energie", stage: (n) => n === 0 ? "Summe" :
      n === 63 ? "Fehlerregister" : `Tarifstufe ${n}`, incomplete: "unvollständig", running: "läuft noch",
    what: { largest: "größter Wert", smallest: "kleinster Wert", present: "jetzt", inside: "innerhalb der Grenzen",
      low: "zu niedrig", high: "zu hoch", limited: "begrenzt auf", off: "abgeschaltet", before: "davor", after: "danach",
      enough: "Guthaben", low_credit: "Guthaben, fast verbraucht", "used-up": "Guthaben, verbraucht", paid: "eingezahlt" },
    names: { "1.8.0": "Bezug", "2.8.0": "Einspeisung", "16.7.0": "Leistung", "1.7.0": "Leistung Bezug",
      "2.7.0": "Leistung Einspeisung" },
    every: { PT: "", D: (n) => `alle ${n} Tage`, M: (n) => n === 1 ? "jeden Monat" : `alle ${n} Monate`,
      S: (n) => n % 60 ? `alle ${n} Sekunden` : `alle ${n / 60} Minuten` },
  },
  en: {
    title: "My electricity meter", meter: "Meter", today: "Energy of the day", day: "Day", now: "Registers",
    where: "Where my data goes", periods: "Billing periods", log: "Log", device: "Gateway",
    password: "Change the password", new_password: "New password (at least 10 characters)", repeat: "Again",
    set: "Change", csv_energy: "Day as CSV", csv_readings: "Register values of the day as CSV",
    file_of: "File for the PTB's display software:", ar_file: "AR 2418-6",
    self_test: "Self-test", curve_note: "Energy by registration period; pale: with a gap or unchecked.",
    imported: "drawn", exported: "fed in", nothing: "No values of this day yet.",
    measured: (at) => `measured ${at}`, silent: "The meter has sent nothing for hours.",
    sum: (minutes, n, area) => `Every ${minutes} minutes a value leaves this home as part of a sum of at least ${n} ` +
      `households (area “${area}”). The grid operator learns the sum and nothing else.`,
    no_sum: "No value leaves this home in a sum at present: the gateway sits in no ring.",
    sum_small: "No single value of this home leaves it by that.",
    direct: (who) => `${who} gets values under this gateway's name.`,
    pseudonymous: (who) => `${who} gets values under a pseudonym, without this gateway's name.`,
    aggregated: (who, n) => `${who} gets a sum of at least ${n} households.`,
    detail: (taf, obis, every) => `TAF ${taf}, register ${obis}, ${every}`,
    no_profiles: "The administrator has set no processing profiles for you: beyond that nobody gets values.",
    no_log: "No entries.", id: "Id", version: "Software version", digest: "Digest (SHA-256)",
    certificate: "Certificate (SHA-256)", clock: "Clock", clock_good: "right enough for billing",
    clock_bad: "not right enough for billing", profiles: "Profiles",
    tested: (at) => `last ${at}`, untested: "not run yet",
    checks: { clock: "Clock", store: "Store", keys: "Keys", certificates: "Certificates", meters: "Meters",
      calibration_log: "Calibration log" },
    unequal: "The two passwords differ.", changed: "Changed. The browser now asks for the new one.",
    failed: (detail) => `That failed: ${detail}`, offline: "The gateway does not answer; this page keeps asking.",
    from: "from", to: "to", register: "register", energy: "energy", stage: (n) => n === 0 ? "total" :
      n === 63 ? "error register" : `tariff stage ${n}`, incomplete: "incomplete", running: "running",
    what: { largest: "largest value", smallest: "smallest value", present: "now", inside: "within its limits",
      low: "too low", high: "too high", limited: "limited to", off: "switched off", before: "before", after: "after",
      enough: "credit", low_credit: "credit, nearly used up", "used-up": "credit, used up", paid: "paid in" },
    names: { "1.8.0": "Drawn", "2.8.0": "Fed in", "16.7.0": "Power", "1.7.0": "Power drawn",
      "2.7.0": "Power fed in" },
    every: { D: (n) => `every ${n} days`, M: (n) => n === 1 ? "every month" : `every ${n} months`,
      S: (n) => n % 60 ? `every ${n} seconds` : `every ${n / 60} minutes` },
  },
};

const byId = (id) => document.getElementById(id);
const remembered = () => { try { return localStorage.getItem("language"); } catch { return null; } };
let language = remembered() || (navigator.language.startsWith("de") ? "de" : "en");
let meter = null, gateway = null, drawn = null;

const t = (key, ...values) => {
  const text = TEXTS[language][key];
  return typeof text === "function" ? text(...values) : text;
};

const make = (name, text = "", attributes = {}) => {
  const element = document.createElement(name);
  element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
};

class Refused extends Error {}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(BASE + path, { cache: "no-store", ...options });
  } catch {
    show("offline");
    throw new Refused("offline");
  }
  if (!response.ok) {
    const said = await response.json().catch(() => ({ detail: response.statusText }));
    throw new Refused(said.detail);
  }
  byId("problem").hidden = true;
  return response;
}

const get = async (path) => (await ask(path)).json();
const ids = async (kind) => (await get(`${kind}/`)).map((uri) => uri.split("/").pop());

function show(key) {
  byId("problem").textContent = t(key);
  byId("problem").hidden = false;
}

const time = (text) => new Intl.DateTimeFormat(language, { dateStyle: "short", timeStyle: "medium", timeZone: ZONE })
  .format(new Date(text));
const clock = (text) => new Intl.DateTimeFormat(language, { timeStyle: "short", timeZone: ZONE }).format(new Date(text));
const today = () => new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeZone: ZONE }).format(new Date());
const number = (value, digits) => new Intl.NumberFormat(language, { minimumFractionDigits: digits,
  maximumFractionDigits: digits }).format(value);

// Shown numbers may be rounded; exports have every digit.
function quantity(value, scaler, unit) {
  const plain = Number(value) * 10 ** scaler;
  return unit === "Wh" ? [number(plain / 1000, 3), "kWh"] : [number(plain, Math.max(0, -scaler)), unit || ""];
}

const group = (obis) => obis.split(":")[1].split("*")[0];
const nextDay = (day) => new Date(Date.parse(`${day}T12:00:00Z`) + 86_400_000).toISOString().slice(0, 10);
const span = () => `q.fromtime=${byId("day").value}&q.totime=${nextDay(byId("day").value)}`;

async function showReadings() {
  const found = await get(`rts/Reading/${meter}`);
  const list = byId("readings");
  list.replaceChildren();
  for (const each of found.values) {
    const name = make("dt", TEXTS[language].names[group(each.obis)] || each.obis);
    if (TEXTS[language].names[group(each.obis)]) name.append(" ", make("small", each.obis));
    const [shown, unit] = quantity(each.value, each.scaler, each.unit);
    const value = make("dd", `${shown} `);
    value.append(make("small", unit));
    list.append(name, value);
  }
  const newest = found.values.map((each) => each.measured_at).sort().pop();
  byId("measured").textContent = newest ? t("measured", time(newest)) : t("silent");
}

const SVG = "http://www.w3.org/2000/svg";
function draw(name, attributes, text = "") {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}

function ticks(most) {
  const rough = most / 3, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  return Array.from({ length: Math.floor(most / step + 1e-9) }, (_, index) => (index + 1) * step);
}

// Legal midnight: days of 23 and 25 hours are as wide as the others.
function midnightOf(day) {
  const shown = (moment) => new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "short", timeZone: ZONE })
    .format(moment);
  return ["+01:00", "+02:00"].map((offset) => Date.parse(`${day}T00:00:00${offset}`))
    .find((moment) => shown(moment) === `${day} 00:00`);
}

async function showCurve() {
  const day = byId("day").value;
  drawCurve(day, (await get(`exp/Interval/${meter}?${span()}`)).data.records);
}

function drawCurve(day, found) {
  drawn = [day, found];
  const kinds = { import: "1.8.0", export: "2.8.0" };
  const sums = {}, bars = [];
  for (const [kind, obis] of Object.entries(kinds)) {
    const mine = found.filter((each) => group(each.obis) === obis);
    sums[kind] = mine.length ? mine.reduce((sum, each) => sum + Number(each.energy) * 10 ** each.scaler, 0) : null;
    for (const each of mine) bars.push({ kind, each, energy: Number(each.energy) * 10 ** each.scaler });
  }
  for (const [id, kind] of [["imported", "import"], ["exported", "export"]]) {
    const place = byId(id);
    place.replaceChildren();
    place.hidden = sums[kind] === null;
    if (sums[kind] !== null) place.append(make("b", `${number(sums[kind] / 1000, 2)} kWh`), t(id));
  }
  byId("picked").textContent = "";
  const place = byId("curve");
  if (!bars.length) { place.replaceChildren(make("p", t("nothing"), { class: "note" })); return; }

  const width = Math.max(place.clientWidth, 280), isNarrow = width < 640;
  const height = isNarrow ? 240 : 300, left = 52, bottom = 26, top = 18;
  const up = Math.max(...bars.filter((bar) => bar.kind === "import").map((bar) => bar.energy), 1);
  const down = Math.max(...bars.filter((bar) => bar.kind === "export").map((bar) => bar.energy), 0);
  const scale = (height - bottom - top) / (up + down), zero = top + up * scale;
  const midnight = midnightOf(day), end = midnightOf(nextDay(day));
  const x = (moment) => left + (moment - midnight) / (end - midnight) * (width - left);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${t("today")} ${day}` });
  for (const [most, sign] of [[up, 1], [down, -1]]) {
    if (most <= 0) continue;
    for (const tick of ticks(most)) {
      const y = zero - sign * tick * scale;
      svg.append(draw("line", { x1: left, x2: width, y1: y, y2: y }));
      svg.append(draw("text", { x: left - 8, y: y + 4, "text-anchor": "end" },
        number(tick / 1000, tick < 100 ? 3 : 2)));
    }
  }
  svg.append(draw("line", { class: "zero", x1: left, x2: width, y1: zero, y2: zero }));
  svg.append(draw("text", { x: 0, y: 10 }, "kWh"));
  const hours = (end - midnight) / 3_600_000;
  for (let hour = 0; hour <= hours; hour += isNarrow ? 6 : 3) {
    const moment = midnight + hour * 3_600_000;
    svg.append(draw("text", { x: Math.min(x(moment), width - 4), y: height - 8,
      "text-anchor": hour === hours ? "end" : hour ? "middle" : "start" }, clock(moment)));
  }
  for (const { kind, each, energy } of bars) {
    const from = x(Date.parse(each.start)), to = x(Date.parse(each.end)), size = Math.max(energy * scale, 0.5);
    const bar = draw("rect", { class: each.is_valid ? kind : `${kind} doubtful`, x: from + 0.6,
      width: Math.max(to - from - 1.2, 0.8), y: kind === "import" ? zero - size : zero, height: size });
    const said = `${clock(each.start)}–${clock(each.end)}: ${number(energy / 1000, 3)} kWh ` +
      t(kind === "import" ? "imported" : "exported");
    bar.append(draw("title", {}, said));
    bar.addEventListener("pointerdown", () => { byId("picked").textContent = said; });
    bar.addEventListener("pointerenter", () => { byId("picked").textContent = said; });
    svg.append(bar);
  }
  place.replaceChildren(svg);
}

function every(text) {
  const match = /^PT?(\d+)([SDM])$/.exec(text);
  return match ? TEXTS[language].every[match[2]](Number(match[1])) : text;
}

async function showReceivers() {
  const list = byId("receivers"), rows = [];
  const ring = await get(`rts/Aggregation/${gateway}`);
  const row = (text, small, kind) => {
    const item = make("li", text, { class: kind });
    if (small) item.append(make("small", small));
    rows.push(item);
  };
  if (ring.is_in_ring && ring.interval_s) {
    row(t("sum", number(ring.interval_s / 60, 0), ring.households_min, ring.area), t("sum_small"), "sum");
  } else row(t("no_sum"), "", "none");
  const profiles = await ids("rts/UseCase");
  for (const name of profiles) {
    const profile = await get(`rts/UseCase/${name}`);
    for (const each of profile.receivers) {
      row(t(each.delivery, each.participant, each.households_min),
        t("detail", profile.taf, profile.obis, every(each.every)),
        { direct: "alone", pseudonymous: "pseudonym", aggregated: "sum" }[each.delivery]);
    }
  }
  if (!profiles.length) row(t("no_profiles"), "", "none");
  list.replaceChildren(...rows);
}

async function showPeriods() {
  const place = byId("periods"), found = [];
  for (const name of await ids("rts/Registers")) {
    const profile = await get(`rts/Registers/${name}`);
    if (!profile.periods.length) continue;
    const table = make("table"), head = make("tr");
    for (const key of ["from", "to", "register", "energy"]) head.append(make("th", t(key)));
    table.append(head);
    for (const period of [...profile.periods].reverse()) {
      for (const each of period.registers) {
        const line = make("tr"), [shown, unit] = quantity(each.value, period.scaler, period.unit);
        const stage = t("stage", Number(each.obis.split(".")[2].split("*")[0]));
        for (const text of [clock24(period.start), clock24(period.end),
          stage + (period.is_running ? ` (${t("running")})` : "") +
            (period.is_complete ? "" : ` (${t("incomplete")})`), `${shown} ${unit}`]) line.append(make("td", text));
        table.append(line);
      }
      for (const each of period.values) {
        const line = make("tr"), [shown, unit] = quantity(each.value, each.scaler, each.unit);
        const what = profile.taf === 12 && each.what === "low" ? "low_credit" : each.what;
        const label = `${TEXTS[language].what[what] || each.what} ${each.subject === "event" ? "" : each.subject}`.trim();
        for (const text of [time24(each.at), time24(each.until), label, `${shown} ${unit}`]) line.append(make("td", text));
        table.append(line);
      }
    }
    found.push(make("p", `${name} · TAF ${profile.taf}`, { class: "note" }), table);
  }
  byId("periods-panel").hidden = !found.length;
  place.replaceChildren(...found);
}

const time24 = (text) => new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short", timeZone: ZONE })
  .format(new Date(text));
const clock24 = (text) => new Intl.DateTimeFormat(language, { dateStyle: "medium", timeZone: ZONE })
  .format(new Date(text));

async function showLog() {
  const [own] = await ids("exp/ConsumerLog");
  const entries = (await get(`exp/ConsumerLog/${own}?q.count=200`)).data.records.reverse();
  const rows = entries.map((each) => {
    const item = make("li", "", { class: each.level });
    item.append(make("time", time(each.at)), make("span", language === "de" ? each.german : each.english));
    return item;
  });
  byId("log").replaceChildren(...(rows.length ? rows : [make("li", t("no_log"))]));
}

async function showDevice() {
  const device = await get(`rts/Device/${gateway}`), certificate = await get("rts/Certificate/han");
  byId("gateway").textContent = gateway.toUpperCase();
  const rows = [["id", gateway.toUpperCase()], ["version", device.software_version], ["digest", device.software_sha256],
    ["certificate", certificate.sha256], ["clock", t(device.is_time_good ? "clock_good" : "clock_bad")],
    ["profiles", device.profiles_version || "–"]];
  byId("device").replaceChildren(...rows.flatMap(([key, value]) => [make("dt", t(key)), make("dd", value)]));
  showTest(await get(`rts/SelfTest/${gateway}`));
}

function showTest(result) {
  byId("tested").textContent = result.at ? t("tested", time(result.at)) : t("untested");
  byId("checks").replaceChildren(...result.checks.map((each) =>
    make("li", `${TEXTS[language].checks[each.name]}: ${language === "de" ? each.german : each.english}`, each.is_passed ? {} : { class: "failed" })));
}

async function download(path, type, name) {
  const response = await ask(path, { headers: { Accept: type } });
  const link = make("a", "", { href: URL.createObjectURL(await response.blob()), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

const downloadCsv = (kind) => download(`exp/${kind}/${meter}?${span()}`, "text/csv",
  `${kind.toLowerCase()}-${meter}-${byId("day").value}.csv`);

// A meter's values are those of the day that is shown; a contract's are its newest closed billing period.
function downloadFile(meters) {
  const name = byId("file").value;
  const query = meters.includes(name) ? `?${span()}` : "";
  return download(`exp/ArFile/${name}${query}`, "application/xml", `ar2418-6-${name}.xml`);
}

async function guarded(work) {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (error.message === "offline") return;
    byId("problem").textContent = t("failed", error.message);
    byId("problem").hidden = false;
  }
}

function translate() {
  document.documentElement.lang = language;
  document.title = t("title");
  for (const each of document.querySelectorAll("[data-t]")) each.textContent = t(each.dataset.t);
  for (const each of document.querySelectorAll("[data-language]")) {
    each.setAttribute("aria-pressed", String(each.dataset.language === language));
  }
}

async function showAll() {
  translate();
  for (const work of [showCurve, showReadings, showReceivers, showPeriods, showLog, showDevice]) await guarded(work);
}

async function setPassword(event) {
  event.preventDefault();
  const [first, second] = [byId("first"), byId("second")], result = byId("password-result");
  if (first.value !== second.value) { result.textContent = t("unequal"); return; }
  try {
    await ask("fas/SetPassword", { method: "POST", headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ password: first.value }) });
    result.textContent = t("changed");
    event.target.reset();
  } catch (error) {
    result.textContent = t("failed", error.message);
  }
}

async function begin() {
  translate();
  byId("day").value = byId("day").max = today();
  const meters = await ids("rts/Meter");
  [gateway] = await ids("rts/Device");
  [meter] = meters;
  byId("meter").replaceChildren(...meters.map((each) => make("option", each, { value: each })));
  byId("meter-label").hidden = meters.length < 2;
  byId("meter").addEventListener("change", () => { meter = byId("meter").value; showAll(); });
  byId("day").addEventListener("change", () => { if (byId("day").value) guarded(showCurve); });
  byId("csv-intervals").addEventListener("click", () => guarded(() => downloadCsv("Interval")));
  byId("csv-readings").addEventListener("click", () => guarded(() => downloadCsv("Reading")));
  byId("file").replaceChildren(...(await ids("exp/ArFile")).map((each) => make("option", each, { value: each })));
  byId("ar-file").addEventListener("click", () => guarded(() => downloadFile(meters)));
  byId("self-test").addEventListener("click", async () => {
    try {
      showTest(await (await ask("fas/SelfTest", { method: "POST" })).json());
    } catch (error) {
      byId("tested").textContent = t("failed", error.message);
    }
  });
  addEventListener("resize", () => { if (drawn) drawCurve(...drawn); });
  byId("password").addEventListener("submit", setPassword);
  for (const each of document.querySelectorAll("[data-language]")) {
    each.addEventListener("click", () => {
      language = each.dataset.language;
      try { localStorage.setItem("language", language); } catch { /* not kept: it is asked again */ }
      showAll();
    });
  }
  await showAll();
  setInterval(() => { if (!document.hidden) guarded(showReadings); }, READINGS_MS);
  setInterval(() => { if (!document.hidden) guarded(showCurve); }, CURVE_MS);
}

guarded(begin);
