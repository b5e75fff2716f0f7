// Charts: each is drawn on a canvas, anew when the colours or the zone of the times change.

const MOST_BARS = 10;
const LABELS = {
  provider: "Provider", status: "Status", mode: "Mode", os: "OS", version: "Version", config_type: "Config type",
  networking_type: "Networking",
};

const drawings = [];
let charts = [];

function drawAll() {
  for (const chart of charts) chart.destroy();
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  Chart.defaults.animation = false;
  Chart.defaults.maintainAspectRatio = false;
  Chart.defaults.color = colour("text");
  Chart.defaults.borderColor = colour("line");
  Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
  Chart.defaults.font.size = 13;
  Chart.defaults.plugins.legend.display = false;
  charts = drawings.map(({ canvas, options }) => new Chart(canvas, options(colour)));
}

/** A chart, and the same as a table. bars: how many there are. options: Chart.js options of a function of colours. */
function figure(title, description, bars, options, table) {
  const canvas = element("canvas", { role: "img", "aria-label": description });
  const box = element("div", { class: "canvas" }, canvas);
  box.style.height = `${bars * 30 + 12}px`;
  drawings.push({ canvas, options });
  return element("figure", { class: "card" }, element("figcaption", {}, title), box, table);
}

/** How many environments have each value, as bars; a click on one filters by it. */
function countsFigure(name, counts) {
  // An object has names that look like numbers first.
  const entries = Object.entries(counts).sort(([, one], [, other]) => other - one);
  const shown = entries.slice(0, entries.length > MOST_BARS ? MOST_BARS - 1 : MOST_BARS);
  const rest = entries.slice(shown.length);
  const bars = shown.map(([value, count]) => ({ value, count, label: value }));
  if (rest.length) {
    const count = rest.reduce((sum, [, one]) => sum + one, 0);
    bars.push({ value: null, label: plural(rest.length, "other"), count });
  }
  const description = `${LABELS[name]}: ${bars.map((bar) => `${bar.label} ${bar.count}`).join(", ")}`;
  const options = (colour) => ({
    type: "bar",
    data: {
      labels: bars.map((bar) => `${cut(bar.label, 17)}  ${number(bar.count)}`),
      datasets: [{
        data: bars.map((bar) => bar.count), borderRadius: 4, maxBarThickness: 18, minBarLength: 2,
        backgroundColor: bars.map((bar) => name === "status" ? colour(kindOf(bar.value)) : colour("accent")),
      }],
    },
    options: {
      indexAxis: "y",
      onClick: (_event, [hit]) => { if (hit && bars[hit.index].value !== null) filterBy(name, bars[hit.index].value); },
      scales: {
        x: { display: false, beginAtZero: true },
        y: { grid: { display: false }, border: { display: false }, ticks: { autoSkip: false } },
      },
      plugins: { tooltip: { callbacks: {
        title: ([item]) => bars[item.dataIndex].label,
        label: ({ raw }) => number(raw),
      } } },
    },
  });
  const numbers = element("details", {}, element("summary", {}, "As a table"),
    table([LABELS[name], "Environments"], entries));
  return figure(LABELS[name], description, bars.length, options, numbers);
}

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 604800];

function timeLine(waves, end) {
  const from = (wave) => Date.parse(wave.started_at);
  const to = (wave) => Date.parse(wave.ended_at ?? end);
  const begin = Math.min(...waves.map(from));
  const last = Math.max(...waves.map(to));
  const step = (STEPS.find((size) => size * 1000 * 5 >= last - begin) ?? STEPS.at(-1)) * 1000;
  const description = waves.map((wave) =>
    `wave ${wave.number} ${wave.state}, ${duration(wave.started_at, wave.ended_at ?? end)}`).join("; ");
  const options = (colour) => ({
    type: "bar",
    data: {
      labels: waves.map((wave) => `Wave ${wave.number}`),
      datasets: [{
        data: waves.map((wave) => [from(wave), to(wave)]), borderRadius: 4, maxBarThickness: 18, minBarLength: 4,
        borderSkipped: false, backgroundColor: waves.map((wave) => colour(kindOf(wave.state))),
      }],
    },
    options: {
      indexAxis: "y",
      scales: {
        x: {
          min: Math.floor(begin / step) * step, max: Math.ceil(last / step) * step,
          ticks: {
            stepSize: step, maxRotation: 0, autoSkipPadding: 16,
            callback: (value) => {
              const text = timeText(new Date(value).toISOString());
              return step < 86400000 ? text.slice(11, step < 60000 ? 19 : 16) + (local ? "" : "Z") : text.slice(0, 10);
            },
          },
        },
        y: { grid: { display: false }, border: { display: false } },
      },
      plugins: { tooltip: { callbacks: {
        title: ([item]) => `Wave ${waves[item.dataIndex].number}: ${waves[item.dataIndex].state}`,
        label: ({ raw }) => raw.map((moment) => timeText(new Date(moment).toISOString())).join(" to "),
      } } },
    },
  });
  return figure("Waves on a time line", `Waves on a time line: ${description}`, waves.length + 1, options, null);
}
