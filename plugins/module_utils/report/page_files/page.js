// What is above the table, and in which order all is shown.

function showHead() {
  const listed = report.fleet.listed_at;
  place("when").append("Generated ", time(report.generated_at));
  if (listed) place("when").append(", of the fleet as listed ", time(listed));
  if (report.fleet.not_looked_at.includes("last_seen_at")) {
    place("when").append(". When devices were last seen was not looked at, as the inventory leaves it out");
  }
  if (["UTC", "Etc/UTC"].includes(ZONE)) {
    place("zone").append(`Times are in UTC, which is your time zone (${ZONE}) too.`);
    return;
  }
  const box = element("input", { type: "checkbox", id: "local", onchange: () => {
    local = box.checked;
    for (const shown of document.querySelectorAll("time")) shown.textContent = timeText(shown.dateTime);
    drawAll();
  } });
  place("zone").append("Times are in UTC. ", element("label", {}, box, ` Show them in your time zone, ${ZONE}`));
}

function showFleet() {
  const { total, counts } = report.fleet;
  const updatable = report.environments.filter((row) => row.updatable).length;
  const tiles = [["environments", total]];
  for (const [status, count] of Object.entries(counts.status ?? {}).slice(0, 3)) tiles.push([status, count]);
  if (report.environments.some((row) => row.updatable !== null)) tiles.push(["can update themselves", updatable]);
  if (counts.version) tiles.push(["versions", Object.keys(counts.version).length]);
  for (const [label, count] of tiles) {
    const parts = [element("dt", {}, cut(label, 24)), element("dd", {}, number(count))];
    place("tiles").append(element("div", { class: "card" }, ...parts));
  }
  for (const [name, values] of Object.entries(counts)) {
    if (name !== "provider" || Object.keys(values).length > 1) place("charts").append(countsFigure(name, values));
  }
}

function showRollout(rollout) {
  const end = report.generated_at;
  const begun = rollout.waves.filter((wave) => wave.started_at);
  const section = place("rollout");
  section.hidden = false;
  section.append(
    element("h2", { id: "rollout-title" }, `Rollout ${rollout.name}`),
    element("p", {}, badge(rollout.state), `, to version ${rollout.version}, planned `, time(rollout.planned_at)),
    element("p", { class: "quiet" }, `${plural(rollout.targets.length, "target")}: ${counted(rollout.counts)}`));
  if (begun.length) section.append(timeLine(begun, end));
  const head = ["Wave", "State", "Targets", "Started", "Ended", "Took", "Reason"];
  section.append(scrolled("Table of waves", table(head, rollout.waves.map((wave) => [
    String(wave.number), badge(wave.state), wave.size, time(wave.started_at), time(wave.ended_at),
    wave.started_at ? duration(wave.started_at, wave.ended_at ?? end) : "–", wave.reason ?? "–",
  ]))));
}

function showCampaigns(campaigns) {
  const head = ["Campaign", "State", "Deliveries", "Ended", "Replies"];
  const section = place("campaigns");
  section.hidden = false;
  section.append(
    element("h2", { id: "campaigns-title" }, "Campaigns"),
    scrolled("Table of campaigns", table(head, campaigns.map((campaign) => [
      campaign.name, badge(campaign.state), campaign.deliveries.length, counted(campaign.counts),
      counted(campaign.replies),
    ]))));
}

showHead();
showFleet();
if (report.rollout) showRollout(report.rollout);
if (report.campaigns.length) showCampaigns(report.campaigns);
makeRows();
showFilters();
update();
drawAll();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
