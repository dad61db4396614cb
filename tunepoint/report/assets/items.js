"use strict";
// The viewer of test examples: filter, search, differences of JSON fields, and which labels are confused.
(function () {
  const { decision, words } = JSON.parse(document.getElementById("data").textContent);
  const find = (id) => document.getElementById(id);
  const section = find("items"), list = find("items-list"), more = find("items-more"), count = find("items-count");
  const PAGE = 50, RIGHT = 1 - 1e-9;
  let data = null, arms = [], shown = [], drawn = 0;

  const title = (arm) => words.short[arm] || arm;
  function make(tag, text, kind) {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (kind) element.className = kind;
    return element;
  }

  // ---- what is shown -----------------------------------------------------------------------

  const score = (arm, i) => data.arms[arm].scores[i];
  const differ = (i) => {
    const own = arms.map((arm) => score(arm, i)).filter((value) => value !== null);
    return own.some((value) => value !== own[0]);
  };
  const SHOWN = {
    differ: ["where options differ", (i) => differ(i)],
    wrong: ["wrong", (i, arm) => score(arm, i) !== null && score(arm, i) < RIGHT],
    alone: ["wrong, and another option right", (i, arm) => score(arm, i) !== null && score(arm, i) < RIGHT &&
      arms.some((other) => score(other, i) >= RIGHT)],
    right: ["right", (i, arm) => score(arm, i) >= RIGHT],
    unreadable: ["unreadable answers", (i, arm) => Boolean((data.arms[arm].unreadable || [])[i])],
    all: ["all", () => true],
  };

  function fill(select, choices) {
    select.replaceChildren(...choices.map(([value, text]) => {
      const choice = make("option", text);
      choice.value = value;
      return choice;
    }));
  }

  function filter() {
    const keep = SHOWN[find("items-show").value][1], arm = find("items-arm").value;
    const target = find("items-target").value, slice = find("items-slice").value;
    const words = find("items-search").value.toLowerCase();
    const text = (i) => [data.items[i], data.inputs[i], data.targets[i], ...arms.map((a) => data.arms[a].answers[i])]
      .join("\n").toLowerCase();
    shown = data.items.map((_, i) => i).filter((i) => keep(i, arm) && (!target || data.targets[i] === target) &&
      (!slice || data.slices[i] === slice) && (!words || text(i).includes(words)));
    count.textContent = shown.length.toLocaleString("en-US") + " of " + data.items.length.toLocaleString("en-US") +
      " test examples. Marks from the left: " + arms.map(title).join("; ") + ".";
    list.replaceChildren();
    drawn = 0;
    page();
    confusions(arm);
  }

  function page() {
    list.append(...shown.slice(drawn, drawn + PAGE).map(row));
    drawn = Math.min(drawn + PAGE, shown.length);
    more.hidden = drawn >= shown.length;
  }

  // ---- one example -------------------------------------------------------------------------

  function mark(value) {
    if (value === null || value === undefined) return ["–", "no answer"];
    if (value >= RIGHT) return ["✓", "right"];
    return value > 0 ? [(100 * value).toFixed(0) + "%", "partly right"] : ["✗", "wrong"];
  }

  function row(i) {
    const box = make("details", undefined, "item"), head = make("summary");
    const marks = make("span", undefined, "marks");
    arms.forEach((arm) => {
      const [sign, meaning] = mark(score(arm, i)), one = make("span", sign, "mark " + meaning.replace(" ", "-"));
      one.title = title(arm) + ": " + meaning;
      one.setAttribute("role", "img");
      one.setAttribute("aria-label", one.title);
      marks.append(one);
    });
    const text = data.inputs[i] === null ? data.items[i] : data.inputs[i];
    head.append(marks, make("span", text.length > 140 ? text.slice(0, 140) + " …" : text, "preview"));
    box.append(head);
    box.addEventListener("toggle", () => { if (box.open && box.childElementCount === 1) open(box, i); });
    return box;
  }

  function open(box, i) {
    const parts = [make("p", data.items[i] + (data.slices && data.slices[i] ? " · " + data.slices[i] : ""), "note")];
    if (data.inputs[i] !== null) parts.push(make("blockquote", data.inputs[i]));
    if (data.targets[i] !== null) parts.push(make("p", "Right answer: " + data.targets[i]));
    box.append(...parts, ...arms.map((arm) => answer(arm, i)));
  }

  function answer(arm, i) {
    const columns = data.arms[arm], box = make("div", undefined, "answer"), at = (name) => (columns[name] || [])[i];
    const [sign, meaning] = mark(score(arm, i));
    box.append(make("h3", sign + " " + title(arm) + ": " + meaning +
      (at("runs") > 1 ? ", the mean of " + at("runs") + " runs" : "")));
    const text = columns.answers[i];
    if (text !== null) box.append(fields(text, data.targets[i]) || make("pre", text));
    const facts = [];
    if (at("input_tokens")) facts.push(at("input_tokens") + " tokens in, " + (at("output_tokens") || 0) + " out");
    if (at("usd")) facts.push("$" + Number(at("usd")).toPrecision(2));
    if (at("seconds")) facts.push(Number(at("seconds")).toPrecision(2) + " s");
    if (at("unreadable")) facts.push("its answer could not be read");
    if (facts.length) box.append(make("p", facts.join(" · "), "note"));
    if (at("why")) box.append(make("p", "The judge: " + at("why"), "note"));
    if (columns.prompts) {
      const sent = make("details"), head = make("summary", "The prompt as sent");
      sent.append(head);
      sent.addEventListener("toggle", () => {
        if (sent.childElementCount === 1) sent.append(make("pre", columns.prompts[i].map((at) => data.lines[at]).join("\n")));
      });
      box.append(sent);
    }
    return box;
  }

  // Fields of a JSON answer beside those that are right; null where either is no object.
  function fields(text, target) {
    const read = (json) => {
      try {
        const value = JSON.parse(json);
        return value && typeof value === "object" && !Array.isArray(value) ? value : null;
      } catch { return null; }
    };
    const given = read(text), right = read(target);
    if (!given || !right) return null;
    const table = make("table"), head = make("tr"), body = make("tbody");
    ["field", "answer", "right answer"].forEach((name) => {
      const cell = make("th", name);
      cell.scope = "col";
      head.append(cell);
    });
    const top = make("thead");
    top.append(head);
    [...new Set([...Object.keys(right), ...Object.keys(given)])].forEach((name) => {
      const sides = [given, right].map((side) => (name in side ? JSON.stringify(side[name]) : "–"));
      const line = make("tr", undefined, sides[0] === sides[1] ? "" : "unlike"), cell = make("th", name);
      cell.scope = "row";
      line.append(cell, ...sides.map((side) => make("td", side)));
      body.append(line);
    });
    table.append(top, body);
    return table;
  }

  // ---- which labels are confused ------------------------------------------------------------

  function confusions(arm) {
    const box = find("items-confusions"), pairs = new Map();
    box.replaceChildren();
    if (new Set(data.targets).size > 60 || data.targets[0] === null) return;
    data.items.forEach((_, i) => {
      const given = data.arms[arm].answers[i];
      if (score(arm, i) === null || score(arm, i) >= RIGHT || given === null) return;
      const pair = JSON.stringify([data.targets[i], given]);
      pairs.set(pair, (pairs.get(pair) || 0) + 1);
    });
    [...pairs].sort((a, b) => b[1] - a[1]).slice(0, 5).filter(([, times]) => times > 1).forEach(([pair, times]) => {
      const [target, given] = JSON.parse(pair), line = make("li"), link = make("button", "show");
      link.type = "button";
      link.addEventListener("click", () => {
        find("items-show").value = "wrong";
        find("items-target").value = target;
        find("items-search").value = "";
        filter();
      });
      line.append(times + " times " + title(arm) + " answers " + given + " instead of " + target + " ", link);
      box.append(line);
    });
  }

  // ---- loading: only once somebody scrolls here ------------------------------------------------

  async function unpacked() {
    const bytes = Uint8Array.from(atob(find("items-data").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  async function load() {
    try {
      data = await unpacked();
    } catch (error) {
      count.textContent = "This browser cannot unpack the examples (" + error + "); they are in items.json of the study.";
      return;
    }
    arms = [...document.querySelectorAll("#live-rows tr[data-arm]")].map((row) => row.dataset.arm)
      .filter((arm) => data.arms[arm]);
    fill(find("items-show"), Object.entries(SHOWN).map(([value, [text]]) => [value, text]));
    fill(find("items-arm"), arms.map((arm) => [arm, title(arm)]));
    if (arms.includes(decision.winner)) find("items-arm").value = decision.winner;
    const targets = [...new Set(data.targets.filter((target) => target !== null))].sort();
    fill(find("items-target"), [["", "any"], ...(targets.length > 200 ? [] : targets.map((t) => [t, t.slice(0, 60)]))]);
    fill(find("items-slice"), [["", "any"], ...[...new Set((data.slices || []).filter(Boolean))].sort().map((s) => [s, s])]);
    find("items-slice-field").hidden = !data.slices;
    ["show", "arm", "target", "slice"].forEach((name) => find("items-" + name).addEventListener("change", filter));
    find("items-search").addEventListener("input", filter);
    more.addEventListener("click", page);
    filter();
  }

  const watch = new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting)) { watch.disconnect(); load(); }
  }, { rootMargin: "600px" });
  watch.observe(section);
})();
