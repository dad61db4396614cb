"use strict";
// Shows the data of /v1/dashboard/TASK and sends corrections to /v1/feedback. The key stays in this tab.
(function () {
  const $ = (id) => document.getElementById(id);
  const keyField = $("key");
  keyField.value = sessionStorage.getItem("key") || "";

  async function ask(path, body) {
    const headers = { "content-type": "application/json" };
    if (keyField.value) headers.authorization = "Bearer " + keyField.value;
    const reply = await fetch(path, body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers });
    const content = await reply.json();
    if (reply.status === 401) $("key-field").hidden = false;
    if (!reply.ok) throw new Error(content.error.message);
    return content;
  }

  function element(name, text, className) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  const percent = (i) => (i ? `${(100 * i.estimate).toFixed(1)}% (${(100 * i.low).toFixed(1)}–${(100 * i.high).toFixed(1)})` : "–");
  const dollars = (v) => (v === null ? "–" : v !== 0 && Math.abs(v) < 0.01 ? "$" + v.toPrecision(2) : "$" + v.toFixed(2));
  const seconds = (v) => (v === null ? "–" : v < 1 ? `${Math.round(1000 * v)} ms` : `${v.toFixed(1)} s`);

  function arms(data) {
    const champion = data.policy.champion;
    $("arms").replaceChildren(...data.arms.map((arm) => {
      const row = element("tr", undefined, arm.arm === champion ? "winner" : "");
      const cells = [arm.arm, arm.role, arm.requests.toLocaleString("en-US"), arm.failed.toLocaleString("en-US"),
        arm.score ? `${percent(arm.score)} of ${arm.feedback}` : "–", arm.readable ? `${(100 * arm.readable.estimate).toFixed(1)}%` : "–",
        arm.usd ? dollars(arm.usd.estimate) : "–", dollars(arm.spent_usd), seconds(arm.p50_seconds), seconds(arm.p95_seconds)];
      row.append(...cells.map((text, i) => element("td", text, i > 1 ? "number" : "")));
      return row;
    }));
  }

  const palette = ["#0b8f7a", "#c2571a", "#5b6ee1", "#b0428f", "#8a8f2a", "#4a90b8"];

  // Bars of an hour are stacked, an option in its color.
  function traffic({ arms, hours }) {
    const svg = $("traffic"), name = "http://www.w3.org/2000/svg", most = Math.max(1, ...hours.map(([, counts]) => counts.reduce((a, b) => a + b, 0)));
    const first = hours.length ? hours[0][0] : 0, span = hours.length ? (hours[hours.length - 1][0] - first) / 3600 + 1 : 1;
    const width = 720 / Math.max(24, span);
    svg.replaceChildren(...hours.flatMap(([at, counts]) => {
      let top = 115;
      return counts.map((count, i) => {
        const bar = document.createElementNS(name, "rect"), height = 110 * count / most;
        top -= height;
        Object.entries({ x: (at - first) / 3600 * width, y: top, width: Math.max(1, width - 1), height, fill: palette[i % palette.length] })
          .forEach(([key, value]) => bar.setAttribute(key, value));
        const title = document.createElementNS(name, "title");
        title.textContent = `${new Date(at * 1000).toISOString().slice(0, 16)} ${arms[i]}: ${count}`;
        bar.append(title);
        return bar;
      });
    }));
    $("legend").replaceChildren(...arms.map((arm, i) => {
      const entry = element("span", arm + " ", "entry"), mark = document.createElementNS(name, "svg"), box = document.createElementNS(name, "rect");
      mark.setAttribute("class", "mark");
      Object.entries({ width: 12, height: 12, fill: palette[i % palette.length] }).forEach(([key, value]) => box.setAttribute(key, value));
      mark.append(box);
      entry.prepend(mark);
      return entry;
    }));
  }

  let requests = [];
  function recent() {
    const words = $("search").value.toLowerCase(), failed = $("only-failed").checked;
    const found = requests.filter((r) => (!failed || r.status >= 400) &&
      (!words || [r.id, r.arm, r.key, r.input, r.output, r.error].join("\n").toLowerCase().includes(words)));
    const open = new Set([...document.querySelectorAll("#recent details[open]")].map((one) => one.dataset.id));
    $("recent").replaceChildren(...found.slice(0, 50).map((r) => {
      const box = element("details"), line = element("summary");
      box.dataset.id = r.id + r.arm;
      box.open = open.has(box.dataset.id);
      line.append(element("span", `${new Date(1000 * r.at).toISOString().slice(5, 16).replace("T", " ")} ${r.arm} `, "who"),
        element("span", r.status >= 400 ? `failed (${r.status}) ` : "", "failed"), (r.input || "(not kept)").slice(0, 120));
      const facts = [r.role, seconds(r.seconds), dollars(r.usd), r.tokens[0] === null ? null : `${r.tokens[0]} tokens in, ${r.tokens[1]} out`,
        r.key ? `key ${r.key}` : null, r.id];
      box.append(line, element("pre", r.input), element("pre", r.error || r.output), element("p", facts.filter(Boolean).join(" · ")));
      return box;
    }), ...(found.length > 50 ? [element("p", `${found.length - 50} more`)] : []));
  }

  function keys(rows) {
    $("keys").replaceChildren(...rows.map((key) => {
      const row = element("tr");
      row.append(element("td", key.key), element("td", key.requests.toLocaleString("en-US"), "number"), element("td", dollars(key.usd), "number"));
      return row;
    }));
  }

  function tiles(data) {
    const over = data.most ? "over " : "";  // more came than were read for this view
    $("tile-requests").textContent = over + data.tiles.requests.toLocaleString("en-US");
    $("tile-failed").textContent = over + data.tiles.failed.toLocaleString("en-US");
    $("tile-today").textContent = (data.all_today ? "" : "over ") + dollars(data.tiles.usd_today);
    $("tile-saved").textContent = data.saved_usd === null || data.saved_usd === undefined ? "not computed" : dollars(data.saved_usd);
    $("alarm").hidden = !data.alarm;
    $("alarm").textContent = data.alarm || "";
  }

  // What has nothing to say is not there.
  function hideEmpty(data) {
    const shown = { traffic: data.by_hour.hours.length, arms: data.arms.length, disagreements: data.disagreements.length, recent: data.recent.length,
      loop: data.loop, canary: data.policy.canary || data.canary, keys: data.by_key.length, savings: data.savings.length, drift: data.drift.length,
      log: data.log.length };
    Object.entries(shown).forEach(([name, any]) => { $(`${name}-section`).hidden = !any; });
  }

  function progress(loop) {
    $("loop").textContent = loop ? `Round ${loop.round}, ${loop.step}` + (loop.waits ? `: waits for ${loop.waits}` : "") : "";
    const examples = loop && /^(\d+) of (\d+) good/.exec(loop.waits);  // as loop/turn.py words it
    $("progress").hidden = !examples;
    if (examples) { $("progress").value = Number(examples[1]); $("progress").max = Number(examples[2]); }
  }

  function disagreements(data) {
    const boxes = data.disagreements.map((question) => {
      const box = element("article");
      box.append(element("p", question.input));
      question.answers.forEach(({ arm, answer }) => {
        const line = element("p"), button = element("button", "this is right");
        line.append(element("b", answer), ` ${arm} `, button);
        button.addEventListener("click", () => correct(question.request_id, answer, box));
        box.append(line);
      });
      const given = question.answers.map(({ answer }) => answer), others = element("p");
      data.labels.filter((label) => !given.includes(label)).forEach((label) => {
        const choice = element("button", label);
        choice.addEventListener("click", () => correct(question.request_id, label, box));
        others.append(choice, " ");
      });
      if (others.childElementCount) box.append(others);
      const field = element("input"), button = element("button", "save as the right answer");
      field.setAttribute("aria-label", "the right answer");
      button.addEventListener("click", () => field.value.trim() && correct(question.request_id, field.value.trim(), box));
      box.append(field, " ", button);
      return box;
    });
    $("disagreements").replaceChildren(...boxes);
  }

  async function correct(request, answer, box) {
    try {
      await ask("/v1/feedback", { request_id: request, correction: answer });
      box.remove();
    } catch (error) { $("status").textContent = String(error.message); }
  }

  async function update() {
    try {
      const data = await ask("/v1/dashboard/" + encodeURIComponent($("task").value));
      $("title").textContent = `${data.task}: ${data.policy.champion}`;
      $("days").textContent = String(data.days);
      $("status").textContent = `${data.most ? "the latest " : ""}${data.requests.toLocaleString("en-US")} requests`;
      tiles(data); arms(data); traffic(data.by_hour); progress(data.loop); keys(data.by_key); hideEmpty(data);
      // somebody may be typing an answer
      if (!$("disagreements").contains(document.activeElement)) disagreements(data);
      requests = data.recent;
      recent();
      const canary = data.policy.canary;
      $("canary").textContent = canary ? `${canary.arm} answers ${(100 * canary.steps[canary.step]).toFixed(0)}% of the users. ${data.canary || ""}` : data.canary || "";
      const list = (id, lines) => $(id).replaceChildren(...lines.map((line) => element("li", line)));
      list("savings", data.savings);
      list("drift", data.drift);
      $("log").replaceChildren(...data.log.slice().reverse().map((line) =>
        element("li", `${new Date(1000 * line.at).toISOString().slice(0, 16).replace("T", " ")}  ${line.who}: ${line.what}`)));
    } catch (error) { $("status").textContent = String(error.message); }
  }

  async function start() {
    try {
      const tasks = (await ask("/healthz")).tasks;
      $("task").replaceChildren(...tasks.map((name) => element("option", name)));
    } catch (error) { $("status").textContent = String(error.message); }
    await update();
  }

  $("task").addEventListener("change", update);
  $("search").addEventListener("input", recent);
  $("only-failed").addEventListener("change", recent);
  keyField.addEventListener("change", () => { sessionStorage.setItem("key", keyField.value); update(); });
  setInterval(update, 10000);
  start();
})();
