"use strict";
// The studio: tasks, studies, labels. Every change is made by the server, in files that the command line reads.
(function () {
  const main = document.getElementById("main"), fault = document.getElementById("fault");
  const STEP_MILLISECONDS = 1000;
  let timer = null;

  // ---- parts ---------------------------------------------------------------------------------

  function make(tag, content, attributes) {
    const element = document.createElement(tag);
    for (const part of [content].flat()) if (part !== undefined && part !== null) element.append(part);
    Object.entries(attributes || {}).forEach(([name, value]) => {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (typeof value === "boolean") element[name] = value;
      else element.setAttribute(name, value);
    });
    return element;
  }
  const button = (text, action, kind) => make("button", text, { type: "button", class: kind || "", onclick: action });
  const section = (title, ...content) => make("section", [make("h2", title), ...content]);
  const link = (text, where) => make("a", text, { href: where });
  const few = (value) => Number(value).toLocaleString("en-US", { maximumFractionDigits: 2 });

  function table(heads, rows) {
    const cell = (value, i, tag) => make(tag, value, heads[i].number ? { class: "number" } : {});
    const top = make("tr", heads.map((head) => make("th", head.text, { scope: "col", class: head.number ? "number" : "" })));
    return make("div", make("table", [make("thead", top),
      make("tbody", rows.map((row) => make("tr", row.map((value, i) => cell(value, i, "td")))))]), { class: "scroll" });
  }

  // ---- talking to the server -------------------------------------------------------------------

  async function ask(path, options) {
    const reply = await fetch("/api/" + path, options);
    const content = await reply.json().catch(() => ({ error: "the studio does not answer; is it still running?" }));
    if (!reply.ok) throw new Error(content.error || "HTTP " + reply.status);
    return content;
  }
  const send = (path, body) => ask(path, { method: "POST", body: body === undefined ? "" : JSON.stringify(body) });
  const named = (path, name, more) => path + "?" + new URLSearchParams({ name, ...more });

  function failed(error) {
    fault.textContent = error.message;
    fault.hidden = false;
  }
  // What a button does: faults are shown, and the button waits.
  const doing = (action) => async (event) => {
    const pressed = event.currentTarget;
    fault.hidden = true;
    pressed.disabled = true;
    try { await action(event); } catch (error) { failed(error); }
    pressed.disabled = false;
  };

  // ---- tasks and studies -------------------------------------------------------------------------

  async function home() {
    const { tasks, studies } = await ask("home");
    const file = make("input", null, { type: "file", id: "file", "aria-label": "data file" });
    const drop = make("div", [make("p", "Drop a CSV, JSON, JSONL or Parquet file with examples here: one column with the " +
      "inputs, one with the right answers. Or a log of what runs today."), file], { class: "drop" });
    const add = async (chosen) => {
      fault.hidden = true;
      drop.append(make("p", "Reading " + chosen.name + " …"));
      try {
        const { task } = await ask(named("data", chosen.name), { method: "POST", body: chosen });
        location.hash = "#/task/" + encodeURIComponent(task);
      } catch (error) { failed(error); show(); }
    };
    file.addEventListener("change", () => file.files[0] && add(file.files[0]));
    drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
    drop.addEventListener("dragleave", () => drop.classList.remove("over"));
    drop.addEventListener("drop", (event) => { event.preventDefault(); event.dataTransfer.files[0] && add(event.dataTransfer.files[0]); });
    main.replaceChildren(make("h1", "Prompt or fine-tune?"), section("New task", drop));
    if (tasks.length) main.append(section("Tasks", make("ul", tasks.map((task) =>
      make("li", link(task === "." ? "this folder" : task, "#/task/" + encodeURIComponent(task)))))));
    if (studies.length) main.append(section("Studies", table(
      [{ text: "study" }, { text: "verdict" }, { text: "when" }],
      studies.map((study) => [link(study.name, "#/study/" + encodeURIComponent(study.name)),
        study.running ? "is running" : study.title ? study.title + " " + study.strength : "not decided yet",
        String(study.created || "").slice(0, 16).replace("T", " ")]))));
  }

  // ---- one task ------------------------------------------------------------------------------------

  const MODELS = [
    ["embedded:minilm", "An encoder on this machine, tuned on your labels (labels only)"],
    ["embedded:qwen2.5-coder-0.5b", "A small language model on this machine, prompted (491 MB: tunepoint models pull)"],
    ["openai/gpt-6-luna", "A hosted model, prompted (needs OPENAI_API_KEY where the studio was started)"],
  ];

  function taskForm(task) {
    const form = task.form, fields = {};
    const field = (name, text, input, wide) => {
      fields[name] = input;
      return make("label", [text, input], { class: wide ? "wide" : "" });
    };
    const choose = (values, chosen, many) => {
      const select = make("select", values.map(([value, text]) => make("option", text, { value })), many ? { multiple: true } : {});
      [...select.options].forEach((option) => { option.selected = [chosen].flat().includes(option.value); });
      return select;
    };
    const number = (value, extra) => make("input", null, { type: "number", step: "any", min: "0", value: value === null ? "" : String(value), ...extra });
    const columns = task.columns.map((name) => [name, name]);
    const kinds = [["label", "one of a few labels"], ["json", "JSON"], ["number", "a number"], ["text", "free text"]];
    const box = make("div", [
      field("instruction", "What to do with an input, in a sentence: prompts begin with it", make("textarea", form.instruction), true),
      field("inputs", "Columns of the input", choose(columns, form.inputs, true)),
      field("target", "Column of the right answer", choose(columns, form.target)),
      field("group", "Rows of one group stay together (customer, thread)", choose([["", "no column: rows are independent"], ...columns], form.group || "")),
      field("kind", "Answers are", choose(kinds, form.kind)),
      field("queries_per_month", "Queries a month", number(form.queries_per_month, { required: true })),
      field("horizon_months", "Months ahead", number(form.horizon_months, { required: true })),
      field("error_usd", "What a wrong answer costs, $ (empty: not known)", number(form.error_usd)),
      field("prompt", "Your prompt in production, if you have one; {input} stands for the input", make("textarea", form.prompt), true),
    ], { class: "fields" });
    const known = [...MODELS, ...form.models.filter((name) => !MODELS.some(([one]) => one === name)).map((name) =>
      [name, name.startsWith("recorded:") ? "What runs today, by its log " + name.slice(9) : name])];
    const checks = known.map(([name, text]) => [name, make("input", null, { type: "checkbox", checked: form.models.includes(name) }), text]);
    const another = make("input", null, { placeholder: "provider/model, ollama/NAME or http://127.0.0.1:8000/v1#NAME", "aria-label": "another model" });
    const models = make("fieldset", [make("legend", "Models to try (with labels and none named, the encoder)"),
      ...checks.map(([, check, text]) => make("label", [check, " ", text])), make("label", ["Another model ", another])]);
    const read = () => ({
      instruction: fields.instruction.value.trim(), inputs: [...fields.inputs.selectedOptions].map((option) => option.value),
      target: fields.target.value, group: fields.group.value || null, kind: fields.kind.value,
      queries_per_month: Number(fields.queries_per_month.value), horizon_months: Number(fields.horizon_months.value),
      error_usd: fields.error_usd.value === "" ? null : Number(fields.error_usd.value), prompt: fields.prompt.value,
      models: [...checks.filter(([, check]) => check.checked).map(([name]) => name), ...(another.value.trim() ? [another.value.trim()] : [])],
    });
    return { box, models, read };
  }

  async function taskPage(name) {
    const task = await ask(named("task", name));
    const { box, models, read } = taskForm(task);
    const quoted = make("div"), budget = make("input", null, { type: "number", min: "0", step: "any", value: "1", "aria-label": "budget in dollars" });
    const save = () => send(named("task", name), read());
    const quote = doing(async () => {
      await save();
      quoted.replaceChildren(make("p", "Looking at the data …"));
      const { lines, sizes, found } = await ask(named("quote", name));
      quoted.replaceChildren(
        make("p", sizes.train + " examples to train, " + sizes.dev + " to validate, " + sizes.test + " to test; " + found.dropped +
          " left out, " + found.contradictions + " contradictions, " + found.near_duplicates + " near duplicates, " +
          found.personal + " with personal data."),
        make("ul", lines.map((line) => make("li", line))));
    });
    const run = doing(async () => {
      await save();
      const { study } = await send(named("run", name), { max_usd: Number(budget.value) });
      location.hash = "#/study/" + encodeURIComponent(study);
    });
    const log = make("input", null, { type: "file", accept: ".jsonl,.ndjson", "aria-label": "log of what runs today" });
    const price = (what) => make("input", null, { type: "number", min: "0", step: "any", "aria-label": "price of " + what + " tokens" });
    const prices = { input: price("input"), output: price("output") };
    const addLog = doing(async () => {
      const file = log.files[0];
      if (!file) throw new Error("Choose the log first: one answer a line, with output, and item or input.");
      await save();
      const { coverage } = await ask(named("log", name, { file: file.name, input: prices.input.value, output: prices.output.value }),
        { method: "POST", body: file });
      await taskPage(name);
      document.getElementById("logged").textContent = coverage;
    });
    main.replaceChildren(make("h1", task.name),
      section("Your data", make("p", task.file + ": " + few(task.rows) + " rows. These are guesses: correct them."),
        table(task.columns.map((text) => ({ text })), task.preview.map((row) => task.columns.map((column) => row[column])))),
      section("The task", box), section("Models", models),
      section("What runs today", make("p", "A log of its answers makes it an option like any other, and nothing is called. One JSON " +
        "object a line: output, and item (as in " + task.example + ") or input; input_tokens, output_tokens and seconds if known.", { class: "note" }),
        make("div", [make("label", ["Log ", log]), make("label", ["$ per million input tokens ", prices.input]),
          make("label", ["$ per million output tokens ", prices.output]), button("Add the log", addLog)], { class: "row" }), make("p", "", { id: "logged" })),
      section("Money", make("p", "A study stops before it spends more than this, this machine's time included.", { class: "note" }),
        make("div", [make("label", ["Budget, $ ", budget]), button("What would it cost?", quote), button("Run the study", run, "main"),
          button("Save", doing(save))], { class: "row" }), quoted),
      make("details", [make("summary", "task.toml"), make("pre", task.toml)]));
  }

  // ---- one study -------------------------------------------------------------------------------------

  function progressOf(job) {
    const at = job.progress, left = at.seconds_left;
    const words = [at.what || "starting", at.calls_usd ? "$" + at.calls_usd.toFixed(4) + " for calls" : null,
      left === null || left === undefined ? null : left < 60 ? "under a minute left" : "about " + Math.round(left / 60) + " minutes left"];
    return [make("progress", null, at.share === null || at.share === undefined ? { max: "1" } : { max: "1", value: String(at.share) }),
      make("p", words.filter(Boolean).join(" · ")), make("p", job.command, { class: "note" })];
  }

  async function studyPage(name) {
    const state = await ask(named("study", name));
    const { job, study, gateway } = state, running = job && job.running, key = "study " + name;
    const content = [make("h1", name)];
    if (running) content.push(section("Running", ...progressOf(job), make("div", button("Stop; what was measured is kept", doing(async () => {
      await send(named("stop", key));
    })), { class: "row" })));
    else if (job && job.code) content.push(section("Stopped", make("pre", job.lines.join("\n") || "it was stopped"),
      make("p", "Run the task again: it resumes where it stopped, and nothing is measured twice.")));
    if (state.standings.length && (running || !(study && study.decided))) content.push(section("So far", table(
      [{ text: "option" }, { text: "set" }, { text: "answers", number: true }, { text: "right", number: true }],
      state.standings.map((row) => [row.arm, row.set, few(row.answers), (100 * row.score).toFixed(1) + "%"]))));
    if (study && study.decided && !running) {
      const serving = gateway && gateway.running;
      content.push(section("The report", make("div", [
        make("a", "Open it in a tab", { href: "/api/" + named("report", name), target: "_blank" }),
        link("Label where the options disagree", "#/label/" + encodeURIComponent(name)),
        serving ? make("a", "The gateway's dashboard", { href: state.gateway_url, target: "_blank" })
          : button("Serve the winner", doing(async () => { await send(named("serve", name)); })),
        serving ? button("Stop serving", doing(async () => { await send(named("stop", "gateway")); })) : null], { class: "row" }),
        serving ? make("p", gateway.command, { class: "note" }) : gateway && gateway.code ? make("pre", gateway.lines.join("\n")) : null,
        make("iframe", null, { src: "/api/" + named("report", name), title: "report", sandbox: "allow-scripts" })));
    }
    const before = main.querySelector("iframe"), after = content.flatMap((part) => [...part.querySelectorAll("iframe")])[0];
    // a report that is open stays as somebody has scrolled it
    if (before && after && before.src === after.src && main.dataset.state === JSON.stringify([running, gateway && gateway.running])) return;
    main.dataset.state = JSON.stringify([running, gateway && gateway.running]);
    main.replaceChildren(...content);
  }

  // ---- labels ------------------------------------------------------------------------------------------

  async function labelPage(name, place) {
    const state = await ask(named("labels", name)), who = localStorage.getItem("who") || "";
    const rows = state.sheet ? state.sheet.rows : [], done = rows.filter((row) => row.right).length;
    const content = [make("h1", "Where the options disagree")];
    const by = make("input", null, { value: who, "aria-label": "your name" });
    by.addEventListener("change", () => localStorage.setItem("who", by.value));
    const pool = make("input", null, { type: "file", "aria-label": "file of inputs without labels" });
    const cap = make("input", null, { type: "number", min: "0", step: "any", value: "1", "aria-label": "most dollars for answers" });
    const next = doing(async () => {
      const file = pool.files[0], more = { by: by.value, max_usd: cap.value, ...(file ? { file: file.name } : {}) };
      await ask(named("labels/next", name, more), { method: "POST", body: file || "" });
      await labelPage(name);
    });
    if (state.job && state.job.running) content.push(section("Deciding again", make("progress", null, {}), make("p", state.job.command, { class: "note" })));
    else {
      if (state.output) content.push(section("How it stands", make("pre", state.output)));
      const at = place === undefined ? rows.findIndex((row) => !row.right) : place;
      if (at >= 0 && rows[at]) content.push(labelling(name, rows, at, by, state.none));
      else if (rows.length) content.push(section("All of this sheet is labeled", make("div", [
        button("Go back to the last one", () => labelPage(name, rows.length - 1))], { class: "row" })));
      content.push(section(rows.length ? done + " of " + rows.length + " labeled" : "Inputs without labels",
        make("p", rows.length ? "Labels are kept as you give them. Decide again when you like; what is empty comes again."
          : "Give a file of inputs like those in production, without right answers: the options answer it, and you label only where they disagree."),
        make("div", [make("label", ["Your name ", by]), make("label", ["More inputs ", pool]), make("label", ["At most, $ ", cap]),
          button(rows.length ? "Decide again" : "Begin", next, done === rows.length ? "main" : "")], { class: "row" })));
    }
    content.push(make("p", link("Back to the study", "#/study/" + encodeURIComponent(name))));
    main.replaceChildren(...content);
  }

  function labelling(name, rows, at, by, none) {
    const row = rows[at];
    const label = async (right) => {
      document.onkeydown = null;  // the next key is for the next input
      try {
        await send(named("labels", name), { item: row.item, right, by: by.value });
        const left = rows.findIndex((other, i) => i > at && !other.right);
        await labelPage(name, left >= 0 ? left : undefined);
      } catch (error) { failed(error); }
    };
    const undo = async () => {
      document.onkeydown = null;
      const last = at > 0 ? at - 1 : 0;
      try {
        await send(named("labels", name), { item: rows[last].item, right: "", by: "" });
        await labelPage(name, last);
      } catch (error) { failed(error); }
    };
    const other = make("input", null, { placeholder: "another answer, then Enter", "aria-label": "another answer" });
    other.addEventListener("keydown", (event) => { if (event.key === "Enter" && other.value.trim()) label(other.value.trim()); });
    const keys = none ? { 0: () => label("none"), u: undo } : { u: undo };
    const choices = Object.entries(row.choices).map(([column, text], i) => {
      keys[i + 1] = () => label(column);
      return make("button", [make("kbd", String(i + 1)), text], { type: "button", onclick: () => label(column) });
    });
    document.onkeydown = (event) => {
      if (event.target.closest("input, textarea, select") || event.metaKey || event.ctrlKey || event.altKey) return;
      if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
    };
    return make("section", [make("p", (at + 1) + " of " + rows.length, { class: "note" }), make("progress", null,
      { max: String(rows.length), value: String(rows.filter((one) => one.right).length), "aria-label": "labeled" }),
      make("blockquote", row.input), make("p", "Which answer is right?"),
      make("div", [...choices, none ? make("button", [make("kbd", "0"), "none of these"], { type: "button", onclick: () => label("none") }) : null,
        other], { class: "choices" }),
      make("div", [make("button", [make("kbd", "u"), "take the last one back"], { type: "button", onclick: undo, disabled: at === 0 })], { class: "row" })]);
  }

  // ---- two studies ---------------------------------------------------------------------------------------

  async function comparePage() {
    const studies = (await ask("home")).studies.filter((study) => study.decided);
    const pick = (text, at) => {
      const select = make("select", studies.map((study) => make("option", study.name, { value: study.name })), { "aria-label": text });
      if (studies[at]) select.value = studies[at].name;
      return select;
    };
    const old = pick("earlier study", 1), later = pick("later study", 0), list = make("ul");
    const compare = doing(async () => {
      const { changes } = await ask("compare?" + new URLSearchParams({ old: old.value, new: later.value }));
      list.replaceChildren(...changes.map((line) => make("li", line)));
    });
    main.replaceChildren(make("h1", "What has changed?"), studies.length < 2 ? make("p", "It takes two studies that have decided.")
      : section("Two studies", make("div", [make("label", ["Earlier ", old]), make("label", ["Later ", later]), button("Compare", compare, "main")], { class: "row" }), list));
  }

  // ---- where we are ---------------------------------------------------------------------------------------

  async function show() {
    clearTimeout(timer);
    document.onkeydown = null;
    fault.hidden = true;
    delete main.dataset.state;
    const [, place, name] = (location.hash || "#/").slice(1).split("/").map(decodeURIComponent);
    const pages = { "": home, task: () => taskPage(name), study: () => studyPage(name), label: () => labelPage(name), compare: comparePage };
    const watching = location.hash;
    const again = async () => {
      if (location.hash !== watching) return;
      try {
        if (place === "study") await studyPage(name);
        if (place === "label" && main.querySelector("progress:not([value])")) await labelPage(name);
      } catch (error) { failed(error); }
      timer = setTimeout(again, STEP_MILLISECONDS);
    };
    try { await (pages[place] || home)(); } catch (error) { failed(error); }
    if (place === "study" || place === "label") timer = setTimeout(again, STEP_MILLISECONDS);
  }
  window.addEventListener("hashchange", show);
  show();
})();
