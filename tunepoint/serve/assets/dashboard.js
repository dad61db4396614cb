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
    $("loop").textContent = loop ? `Round ${loop.round}, ${loop.step}` + (loop.waits ? `: waits for ${loop.waits}` : "") : "No loop uses this store. Start one with `tunepoint loop`.";
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
      const field = element("input"), button = element("button", "save as the right answer");
      field.setAttribute("aria-label", "the right answer");
      button.addEventListener("click", () => field.value.trim() && correct(question.request_id, field.value.trim(), box));
      box.append(field, " ", button);
      return box;
    });
    const none = "No open ones. A shadow option answers copies of requests to find them.";
    $("disagreements").replaceChildren(...(boxes.length ? boxes : [element("p", none)]));
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
      arms(data); traffic(data.by_hour); progress(data.loop); disagreements(data);
      const canary = data.policy.canary;
      $("canary").textContent = canary ? `${canary.arm} answers ${(100 * canary.steps[canary.step]).toFixed(0)}% of the users. ${data.canary || ""}` : "No canary runs.";
      const list = (id, lines, none) => $(id).replaceChildren(...(lines.length ? lines : [none]).map((line) => element("li", line)));
      list("savings", data.savings, "Not computed yet. Run `tunepoint savings STUDY`.");
      list("drift", data.drift, "Not checked yet. The loop checks for drift while it watches.");
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
  keyField.addEventListener("change", () => { sessionStorage.setItem("key", keyField.value); update(); });
  setInterval(update, 10000);
  start();
})();
