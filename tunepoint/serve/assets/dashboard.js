"use strict";
// Shows what /v1/dashboard/TASK says; corrections go to /v1/feedback. No key is kept beyond the tab.
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

  function arms(found) {
    const champion = found.policy.champion;
    $("arms").replaceChildren(...found.arms.map((one) => {
      const row = element("tr", undefined, one.arm === champion ? "winner" : "");
      const cells = [one.arm, one.role, one.requests.toLocaleString("en-US"), one.failed.toLocaleString("en-US"),
        one.score ? `${percent(one.score)} of ${one.feedback}` : "–", one.readable ? `${(100 * one.readable.estimate).toFixed(1)}%` : "–",
        one.usd ? dollars(one.usd.estimate) : "–", dollars(one.spent_usd), seconds(one.p50_seconds), seconds(one.p95_seconds)];
      row.append(...cells.map((text, i) => element("td", text, i > 1 ? "number" : "")));
      return row;
    }));
  }

  function traffic(hours) {
    const svg = $("traffic"), most = Math.max(1, ...hours.map((h) => h[1])), name = "http://www.w3.org/2000/svg";
    const first = hours.length ? hours[0][0] : 0, span = hours.length ? (hours[hours.length - 1][0] - first) / 3600 + 1 : 1;
    svg.replaceChildren(...hours.map(([at, count]) => {
      const bar = document.createElementNS(name, "rect");
      const width = 720 / Math.max(24, span), height = 110 * count / most;
      Object.entries({ x: (at - first) / 3600 * width, y: 115 - height, width: Math.max(1, width - 1), height })
        .forEach(([key, value]) => bar.setAttribute(key, value));
      const title = document.createElementNS(name, "title");
      title.textContent = `${new Date(at * 1000).toISOString().slice(0, 16)}: ${count}`;
      bar.append(title);
      return bar;
    }));
  }

  function progress(loop) {
    $("loop").textContent = loop ? `Round ${loop.round}, ${loop.step}` + (loop.waits ? `: waits for ${loop.waits}` : "") : "No loop runs on this store (tunepoint loop).";
    const counted = loop && /^(\d+) of (\d+) good/.exec(loop.waits);
    $("progress").hidden = !counted;
    if (counted) { $("progress").value = Number(counted[1]); $("progress").max = Number(counted[2]); }
  }

  function disagreements(found) {
    const shown = found.disagreements.map((one) => {
      const box = element("article");
      box.append(element("p", one.input));
      one.answers.forEach((said) => {
        const line = element("p"), button = element("button", "this is right");
        line.append(element("b", said.answer), ` ${said.arm} `, button);
        button.addEventListener("click", () => correct(one.request_id, said.answer, box));
        box.append(line);
      });
      const field = element("input"), button = element("button", "it should have been this");
      field.setAttribute("aria-label", "what the answer should have been");
      button.addEventListener("click", () => field.value.trim() && correct(one.request_id, field.value.trim(), box));
      box.append(field, " ", button);
      return box;
    });
    $("disagreements").replaceChildren(...(shown.length ? shown : [element("p", "None that nobody has judged: a shadow answers copies to find them.")]));
  }

  async function correct(request, answer, box) {
    try {
      await ask("/v1/feedback", { request_id: request, correction: answer });
      box.remove();
    } catch (error) { $("said").textContent = String(error.message); }
  }

  async function update() {
    try {
      const found = await ask("/v1/dashboard/" + encodeURIComponent($("task").value));
      $("title").textContent = `${found.task}: ${found.policy.champion}`;
      $("days").textContent = String(found.days);
      $("said").textContent = `${found.most ? "the latest " : ""}${found.requests.toLocaleString("en-US")} requests`;
      arms(found); traffic(found.by_hour); progress(found.loop); disagreements(found);
      const canary = found.policy.canary;
      $("canary").textContent = canary ? `${canary.arm}, ${(100 * canary.steps[canary.step]).toFixed(0)}% of the users. ${found.canary || ""}` : "None runs.";
      const list = (id, lines, none) => $(id).replaceChildren(...(lines.length ? lines : [none]).map((line) => element("li", line)));
      list("savings", found.savings, "Not looked at yet: tunepoint savings STUDY compares forecast and store.");
      list("drift", found.drift, "Not looked at yet: the loop does while it watches.");
      $("log").replaceChildren(...found.log.slice().reverse().map((line) =>
        element("li", `${new Date(1000 * line.at).toISOString().slice(0, 16).replace("T", " ")}  ${line.who}: ${line.what}`)));
    } catch (error) { $("said").textContent = String(error.message); }
  }

  async function start() {
    try {
      const tasks = (await ask("/healthz")).tasks;
      $("task").replaceChildren(...tasks.map((name) => element("option", name)));
    } catch (error) { $("said").textContent = String(error.message); }
    await update();
  }

  $("task").addEventListener("change", update);
  keyField.addEventListener("change", () => { sessionStorage.setItem("key", keyField.value); update(); });
  setInterval(update, 10000);
  start();
})();
