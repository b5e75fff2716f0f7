// The table of environments: what is kept of them by the filters, sorted, one page at a time.

const PAGE_SIZE = 50;

const byHand = (command) => command && `By hand: ${command}`;

/** What environments have an outcome in: the rollout first, then each campaign. */
function outcomeSources() {
  const sources = report.campaigns.map((campaign) => ({
    label: `Campaign ${campaign.name}`,
    entries: campaign.deliveries.map((delivery) => ({
      host: delivery.host, id: delivery.id, outcome: delivery.status, reason: delivery.outcome,
      reply: delivery.reply_state,
    })),
  }));
  if (report.rollout) {
    sources.unshift({
      label: `Rollout ${report.rollout.name}`,
      entries: report.rollout.targets.map((target) => ({
        host: target.host, id: target.id, outcome: target.status, wave: target.wave,
        reason: [target.reason, byHand(target.manual_command)].filter(Boolean).join("\n") || null,
      })),
    });
  }
  return sources;
}

const COLUMNS = [
  { name: "host", label: "Host", long: true },
  { name: "status", label: "Status", filter: true, badge: true },
  { name: "wave", label: "Wave", filter: true },
  { name: "outcome", label: "Outcome", filter: true, badge: true },
  { name: "reply", label: "Reply", filter: true, badge: true },
  { name: "reason", label: "Reason", long: true },
  { name: "mode", label: "Mode", filter: true },
  { name: "os", label: "OS", filter: true },
  { name: "version", label: "Version", filter: true },
  { name: "self_update", label: "Self-update", filter: true },
  { name: "provider", label: "Provider", filter: true, several: true },
  { name: "config_type", label: "Config type", filter: true },
  { name: "networking_type", label: "Networking", filter: true },
  { name: "last_seen_at", label: "Last seen", time: true },
];

const sources = outcomeSources();
const state = { source: 0, text: "", chosen: {}, sort: "host", descending: false, page: 0 };
let rows = [];
let columns = [];

function makeRows() {
  const entries = new Map((sources[state.source]?.entries ?? []).map((entry) => [entry.id, entry]));
  const listed = report.environments.map((row) => ({
    ...row, ...entries.get(row.id), host: row.host,
    self_update: row.updatable === null ? null : row.updatable ? "yes" : "no",
  }));
  const known = new Set(report.environments.map((row) => row.id));
  const gone = [...entries.values()].filter((entry) => !known.has(entry.id));
  rows = [...listed, ...gone.map((entry) => ({ ...entry, status: "not listed" }))];
  for (const row of rows) {
    row.haystack = ["id", ...COLUMNS.map(({ name }) => name)].map((name) => row[name] ?? "").join("\n").toLowerCase();
  }
  columns = COLUMNS.filter(({ name, several }) => {
    const values = new Set(rows.map((row) => row[name] ?? null));
    values.delete(null);
    return name === "host" || values.size > (several ? 1 : 0);
  });
  if (!columns.some(({ name }) => name === state.sort)) state.sort = "host";
}

const valueOf = (row, name) => row[name] === null || row[name] === undefined ? null : String(row[name]);

/** A control of the filters with its label. name: what tells it from the others. */
function field(name, label, control, style = "") {
  control.id = `filter-${name}`;
  return element("div", { class: `field ${style}` }, element("label", { for: control.id }, label), control);
}

function select(name, label, options, value, onchange, style) {
  const made = element("select", { onchange: () => onchange(made.value) },
    ...options.map(([key, text]) => element("option", { value: key, selected: key === value }, text)));
  return field(name, label, made, style);
}

function showFilters() {
  const text = element("input", { type: "search", value: state.text, autocomplete: "off", spellcheck: "false",
    placeholder: "Name, id, reason…", oninput: () => { state.text = text.value.toLowerCase(); update(); } });
  const parts = [field("text", "Search", text, "wide")];
  if (sources.length > 1) {
    const options = sources.map(({ label }, index) => [String(index), cut(label, 60)]);
    parts.push(select("source", "Outcome of", options, String(state.source), (value) => {
      Object.assign(state, { source: Number(value), page: 0 });
      for (const name of ["wave", "outcome", "reply"]) delete state.chosen[name];
      makeRows();
      showFilters();
      update();
    }));
  }
  for (const { name, label } of columns.filter((column) => column.filter)) {
    const counts = new Map();
    for (const row of rows) {
      const value = valueOf(row, name);
      if (value !== null) counts.set(value, (counts.get(value) ?? 0) + 1);
    }
    const values = [...counts].sort(([one], [other]) => COLLATOR.compare(one, other));
    // A value may be any text: its place in the list stands for it.
    const options = values.map(([value, count], index) => [String(index), `${cut(value, 40)} (${number(count)})`]);
    const chosen = values.findIndex(([value]) => value === state.chosen[name]);
    if (chosen < 0) delete state.chosen[name];
    parts.push(select(name, label, [["", "All"], ...options], chosen < 0 ? "" : String(chosen), (index) => {
      if (index === "") delete state.chosen[name];
      else state.chosen[name] = values[Number(index)][0];
      update();
    }));
  }
  parts.push(select("sort", "Sort by", columns.map(({ name, label }) => [name, label]), state.sort, (name) => {
    Object.assign(state, { sort: name, descending: false });
    update();
  }, "small-screen"));
  parts.push(element("button", { type: "button", class: "small-screen", onclick: () => {
    state.descending = !state.descending;
    update();
  } }, "Reverse"));
  parts.push(element("button", { type: "button", onclick: () => {
    Object.assign(state, { text: "", chosen: {} });
    showFilters();
    update();
  } }, "Clear filters"));
  place("filters").replaceChildren(...parts);
}

function filterBy(name, value) {
  state.chosen = { ...state.chosen, [name]: value };
  showFilters();
  update();
  place("environments-title").scrollIntoView();
}

function found() {
  const chosen = Object.entries(state.chosen);
  const kept = rows.filter((row) =>
    row.haystack.includes(state.text) && chosen.every(([name, value]) => valueOf(row, name) === value));
  const sign = state.descending ? -1 : 1;
  const key = (row) => valueOf(row, state.sort);
  return kept.sort((one, other) => {
    const [first, second] = [key(one), key(other)];
    // What has no value comes last, whichever way it goes.
    if (first === null || second === null) return (first === null) - (second === null);
    return sign * COLLATOR.compare(first, second);
  });
}

/** Show the table from its first page; the filters stay as they are. */
function update() {
  state.page = 0;
  showTable();
}

function showTable() {
  const kept = found();
  const pages = Math.max(1, Math.ceil(kept.length / PAGE_SIZE));
  const first = state.page * PAGE_SIZE;
  const shown = kept.slice(first, first + PAGE_SIZE);
  place("shown").textContent = kept.length === rows.length
    ? plural(rows.length, "environment") : `${number(kept.length)} of ${plural(rows.length, "environment")}`;
  const head = columns.map(({ name, label }) => {
    const sorted = state.sort === name ? (state.descending ? "descending" : "ascending") : null;
    return element("th", { scope: "col", role: "columnheader", "aria-sort": sorted },
      element("button", { type: "button", "data-sort": name, onclick: () => {
        Object.assign(state, { sort: name, descending: state.sort === name && !state.descending });
        update();
        place("environments").querySelector(`[data-sort="${name}"]`).focus();
      } }, label));
  });
  const cell = (row, column) => {
    const value = valueOf(row, column.name);
    const content = value === null ? "–" : column.time ? time(value) : column.badge ? badge(value) : value;
    return element("td", {
      role: "cell", "data-column": column.name, "data-label": column.label,
      title: column.long || column.time ? null : value,
      class: value === null ? "empty" : column.long ? "long" : null,
    }, content);
  };
  place("environments").replaceChildren(
    element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...head)),
    element("tbody", { role: "rowgroup" }, ...shown.map((row) =>
      element("tr", { role: "row" }, ...columns.map((column) => cell(row, column))))));
  const go = (label, page) => element("button", {
    type: "button", disabled: page < 0 || page >= pages || page === state.page,
    onclick: () => { state.page = page; showTable(); place("environments-title").scrollIntoView(); },
  }, label);
  place("pages").hidden = pages === 1;
  place("pages").replaceChildren(go("First", 0), go("Previous", state.page - 1),
    element("span", {}, `Page ${number(state.page + 1)} of ${number(pages)}`),
    go("Next", state.page + 1), go("Last", pages - 1));
}
