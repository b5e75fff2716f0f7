"use strict";

// Everything that is shown is made with text nodes and canvases: nothing that a device says is ever read as markup.

const report = JSON.parse(document.getElementById("report").textContent);
const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;
const KINDS = {
  good: ["online", "ready", "active", "sent", "replied", "passed", "changed", "ok", "current"],
  bad: ["failed", "unknown", "interrupted", "lost", "cancelled"],
  wait: ["in_flight", "running", "waiting", "needs_approval", "not_updatable", "not_attempted", "paused"],
};
const COLLATOR = new Intl.Collator("en", { numeric: true });
const number = (value) => value.toLocaleString("en");

/** An element with these attributes (`on…` for listeners) and children, of which texts stay texts. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** How often each word comes, as one text. */
const counted = (counts) =>
  Object.entries(counts).map(([word, count]) => `${number(count)} ${word}`).join(", ") || "–";
const place = (id) => document.getElementById(id);
const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;

// Times: UTC, or on request the viewer's own zone.

let local = false;
const LOCAL = new Intl.DateTimeFormat("sv-SE", {
  timeZone: ZONE, year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit",
  second: "2-digit",
});

function timeText(iso) {
  const moment = new Date(iso);
  if (Number.isNaN(moment.getTime())) return iso;
  return local ? LOCAL.format(moment) : `${moment.toISOString().slice(0, 19).replace("T", " ")}Z`;
}

function time(iso) {
  return iso ? element("time", { datetime: iso }, timeText(iso)) : "–";
}

function duration(from, to) {
  const seconds = Math.max(0, Math.round((new Date(to) - new Date(from)) / 1000));
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([size]) => seconds >= size);
  if (first < 0) return "0 s";
  let rest = seconds;
  return parts.slice(first, first + 2).map(([size, unit]) => {
    const count = Math.floor(rest / size);
    rest -= count * size;
    return count ? `${count} ${unit}` : "";
  }).filter(Boolean).join(" ");
}

function cut(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

function table(head, rows) {
  const isNumber = head.map((_label, index) => rows.some((row) => typeof row[index] === "number"));
  const cells = (values, name) => values.map((value, index) =>
    element(name, { scope: name === "th" ? "col" : null, class: isNumber[index] ? "number" : null },
      typeof value === "number" ? number(value) : value));
  return element("table", {},
    element("thead", {}, element("tr", {}, ...cells(head, "th"))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells(row, "td")))));
}

/** A table that is wider than a small screen is scrolled by itself. */
function scrolled(name, content) {
  return element("div", { class: "scroll card", tabindex: "0", role: "region", "aria-label": name }, content);
}

function kindOf(word) {
  return Object.keys(KINDS).find((kind) => KINDS[kind].includes(word)) ?? "idle";
}

function badge(word) {
  return element("span", { class: `badge ${kindOf(word)}` }, word);
}
