"use strict";
// Charts, and the sliders that apply the decision rule again. The rule is the one of
// decision/rule.py, on its own draws; docs/decision.md has the formulas.
(function () {
  const page = JSON.parse(document.getElementById("data").textContent);
  const { decision, economics, curve, ahead, words } = page;
  const arms = economics.arms;
  const title = (arm) => words.short[arm] || arm;
  const strengthWords = { confident: "Confident", leaning: "Likely", undecided: "Not sure yet" };
  const lights = { confident: "go", leaning: "likely", undecided: "open" };
  const palette = ["#0b8f7a", "#c2571a", "#5b6ee1", "#b0428f", "#8a8f2a", "#4a90b8", "#7a5c3e"];
  const colorOf = (i) => palette[i % palette.length];
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const options = { responsive: true, displayModeBar: false };

  function layout(x, y, overrides) {
    const axis = { gridcolor: css("--line"), zerolinecolor: css("--line"), linecolor: css("--line"),
      automargin: true };
    return Object.assign({
      height: 320, showlegend: false, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: css("--ink"), size: 12 }, margin: { l: 50, r: 15, t: 15, b: 50 }, hovermode: "closest",
      xaxis: Object.assign({ title: { text: x } }, axis),
      yaxis: Object.assign({ title: { text: y } }, axis),
    }, overrides || {});
  }

  function dollars(value) {
    if (Math.abs(value) >= 100) return "$" + Math.round(value).toLocaleString("en-US");
    return "$" + value.toFixed(2);
  }

  // Three digits are enough in a sentence, as in about_usd of decision/numbers.py; the tables have the rest.
  function aboutDollars(value) {
    const size = Math.abs(value), sign = value < 0 ? "-" : "";
    return sign + (size < 10 ? "$" + size.toFixed(2)
      : "$" + Number(Math.max(10, Math.round(size)).toPrecision(3)).toLocaleString("en-US"));
  }

  const percent = (share) => (100 * share).toFixed(1) + "%";

  // ---- the rule ------------------------------------------------------------------------

  const draws = economics.draws;
  // A study that was decided before these were known has none of them.
  Object.assign(economics, { growth: 0, discount: 0, machines: {}, prefixes: {}, retires_months: [], enough: true,
    traffic: [economics.volume, economics.volume], ...economics });
  draws.volume = draws.volume || draws.score.map(() => economics.volume);
  const count = draws.score.length;
  const factors = arms.map(() => 1);  // of the price of each arm's answer: 0.5 is half of it
  const firstMonth = { present: [1], traffic: [1], volumes: [{ weight: 1, size: 1 }] };
  // A volume of null is the declared traffic: as uncertain as it is, one of its draws in each.
  const queries = (d, volume) => (volume !== null ? volume : draws.volume[d]);

  // Dollars of the answers to the queries of a first month, over the months of some weights.
  function answers(d, a, volume, weights) {
    const size = queries(d, volume);
    const total = weights.volumes.reduce((sum, v) => sum + v.weight * answer(d, a, size * v.size), 0);
    return size * total;
  }

  // One answer, of which caches save a part that depends on the queries a month: costs/caching.py.
  function answer(d, a, size) {
    const saved = (economics.prefixes[a] || []).reduce((sum, p) => {
      const share = p.hit !== null ? p.hit : p.reached[d] * (1 - alone(p, d, size * p.bursts[d]) / p.calls[d]);
      const dollars = share * (p.saved + p.added) - p.added;
      return sum + (p.asked_for ? Math.max(0, dollars) : dollars);
    }, 0);
    return (draws.per_query[d][a] - saved) * factors[a];
  }

  // Share of bursts that find the cache empty, at so many bursts in a minute.
  function alone(p, d, bursts) {
    const expected = bursts * p.lifetime[d];
    if (p.renewed) {
      const none = Math.exp(-expected), share = p.lifetime[d] * p.per_spell[d];
      return share * (expected > 0 ? (1 - none) / expected : 1) + (1 - share) * none;
    }
    const cycle = 1 + expected, extra = expected / cycle + (1 / (cycle * cycle) - 1) / 2;
    return Math.min(1, 1 / cycle + extra * p.per_spell[d] / Math.max(bursts, 1e-12));
  }

  function median(values) {
    const sorted = Float64Array.from(values).sort(), half = sorted.length >> 1;
    return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  }

  function eligible(volume) {
    const limit = economics.monthly_limit;
    return arms.map((_, a) => economics.fit[a] && (limit === null ||
      median(draws.monthly.map((row, d) =>
        row[a] + answers(d, a, volume, firstMonth) + reserved(d, a, volume, firstMonth))) <= limit));
  }

  // What a dollar of each month is worth today, and its traffic over the first month's: costs/schedule.py.
  let weighed = { months: null };
  function weights(months) {
    if (weighed.months === months) return weighed;
    const worth = (month) => Math.pow(1 + economics.discount, -month / 12);
    const size = Math.ceil(months - 1e-9), present = [], traffic = [];
    for (let m = 0; m < size; m++) {
      present.push((m === size - 1 ? months - m : 1) * worth(m + 1));
      traffic.push(Math.pow(1 + economics.growth, m));
    }
    const events = (every, first) => {
      let sum = 0;
      for (let at = first || every; at && at < months; at = every ? at + every : null) sum += worth(at);
      return sum;
    };
    const repeats = events(economics.retrain_months);
    const retired = arms.map((_, a) => events(economics.base_model_months, economics.retires_months[a]));
    const fixed = present.reduce((sum, p) => sum + p, 0);
    const queries = present.reduce((sum, p, m) => sum + p * traffic[m], 0);
    const volumes = volumesOf(present.map((p, m) => p * traffic[m]), traffic, queries);
    weighed = { months, present, traffic, repeats, retired, fixed, queries, volumes };
    return weighed;
  }

  // A few volumes that stand for all months: `volumes` of costs/schedule.py.
  function volumesOf(shares, traffic, whole) {
    const most = 6;
    if (!economics.growth) return [{ weight: whole, size: 1 }];
    if (shares.length <= most) return shares.map((weight, m) => ({ weight, size: traffic[m] }));
    const groups = Array.from({ length: most }, () => ({ weight: 0, size: 0 }));
    let before = 0;
    shares.forEach((share, m) => {
      const group = groups[Math.min(most - 1, Math.floor((before + share / 2) / whole * most))];
      group.weight += share;
      group.size += share * traffic[m];
      before += share;
    });
    return groups.filter((g) => g.weight > 0).map((g) => ({ weight: g.weight, size: g.size / g.weight }));
  }

  function reserved(d, a, volume, weights) {
    const machines = economics.machines[a];
    if (!machines) return 0;
    const monthly = weights.present.reduce((sum, present, m) => sum + present *
      Math.max(machines.least, Math.ceil(queries(d, volume) * weights.traffic[m] / machines.queries - 1e-9)), 0);
    return monthly * machines.hourly[d] * machines.hours;
  }

  function cost(d, a, volume, months) {
    const w = weights(months);
    return draws.upfront[d][a] + w.fixed * draws.monthly[d][a] + w.repeats * draws.retrain[d][a] +
      (w.retired[a] && w.retired[a] * draws.follow[d][a]) + answers(d, a, volume, w) + reserved(d, a, volume, w);
  }

  function total(d, a, volume, months) {
    const wrong = economics.error_usd === null ? 0 :
      economics.error_usd * weights(months).queries * queries(d, volume) * (1 - draws.score[d][a]);
    return cost(d, a, volume, months) + wrong;
  }

  function decide(volume, months) {
    // studies of older versions replace nothing
    const goes = (a) => economics.replaced !== undefined && a === economics.replaced;
    const fit = eligible(volume), candidates = fit.some(Boolean) ? fit : arms.map((_, a) => !goes(a));
    const reference = arms.some((_, a) => goes(a)) ? arms.map((_, a) => goes(a)) : candidates;
    const unacceptable = arms.map(() => 0), passed = arms.map(() => 0), wrong = arms.map(() => 0),
      mean = arms.map(() => 0);
    for (let d = 0; d < count; d++) {
      const totals = arms.map((_, a) => total(d, a, volume, months));
      const top = Math.max(...arms.map((_, a) => reference[a] ? draws.score[d][a] : -1));
      const good = arms.map((_, a) => draws.score[d][a] >= top - economics.margin &&
        (economics.min_score === null || draws.score[d][a] >= economics.min_score));
      const least = Math.min(...totals.filter((_, a) => candidates[a]));
      arms.forEach((_, a) => {
        mean[a] += totals[a] / count;
        let missed, bad;
        if (economics.error_usd !== null) {
          missed = totals[a] - least > economics.materiality * totals[a];
          bad = economics.min_score !== null && draws.score[d][a] < economics.min_score;
        } else {
          missed = arms.some((_, b) => candidates[b] && good[b] &&
            totals[a] - totals[b] > economics.materiality * totals[a]);
          bad = !good[a];
        }
        if (bad) unacceptable[a] += 1 / count;
        if (missed) passed[a] += 1 / count;
        if (bad || missed) wrong[a] += 1 / count;
      });
    }
    const loss = (a) => economics.error_usd !== null
      ? (unacceptable[a] > 0.5 ? Infinity : mean[a]) : unacceptable[a] + passed[a];
    const order = arms.map((_, a) => a).filter((a) => candidates[a])
      .sort((a, b) => loss(a) - loss(b) || unacceptable[a] - unacceptable[b] || mean[a] - mean[b]);
    const { best, risk } = simplest(order, wrong, { candidates, reference }, volume, months);
    const strength = !fit[best] || !economics.enough ? "undecided" :
      (economics.capped || wrong[best] > 0.2) && strengthOf(risk) === "confident" ? "leaning" : strengthOf(risk);
    return { best, strength, risk, short: unacceptable[best] > passed[best] };
  }

  function strengthOf(risk) {
    return risk <= 0.05 ? "confident" : risk <= 0.2 ? "leaning" : "undecided";
  }

  // The simplest of the best bet and its equals, and the risk: equals and verdict_risks of decision/rule.py.
  function simplest(order, wrong, masks, volume, months) {
    const first = order[0], strength = strengthOf(wrong[first]);
    if (!economics.simplicity) return { best: first, risk: wrong[first] };  // studies of older versions have no ranks
    const shares = arms.map((_, a) => {
      let worse = 0, dearer = 0;
      for (let d = 0; d < count; d++) {
        const own = total(d, a, volume, months);
        if (draws.score[d][a] < draws.score[d][first]) worse += 1 / count;
        if (own - total(d, first, volume, months) > economics.materiality * own) dearer += 1 / count;
      }
      return { worse, dearer };
    });
    const clearly = 0.975, alike = order.filter((a) => a === first ||
      shares[a].worse <= clearly && shares[a].dearer < 0.5);
    const simplicity = (a, b) => economics.simplicity[a] - economics.simplicity[b];
    if (strength !== "undecided") {
      const best = alike.filter((a) => a === first || strengthOf(wrong[a]) === strength).sort(simplicity)[0];
      return { best, risk: wrong[best] };
    }
    const sides = economics.sides, variants = order.filter((a) => a === first || sides &&
      sides[a] === sides[first] && Math.max(shares[a].worse, shares[a].dearer) <= clearly);
    const risk = variants.length > 1 ? sharedRisk(variants, masks, volume, months) : 1;
    if (strengthOf(risk) !== "confident") return { best: first, risk: wrong[first] };
    const likely = (a) => a === first || wrong[a] <= 0.75;
    return { best: alike.filter((a) => variants.includes(a) && likely(a)).sort(simplicity)[0], risk };
  }

  // The probability that all of some variants are wrong: Evidence._shared_risk_draws of decision/rule.py.
  function sharedRisk(variants, { candidates, reference }, volume, months) {
    let wrong = 0;
    for (let d = 0; d < count; d++) {
      const top = Math.max(...arms.map((_, a) => reference[a] ? draws.score[d][a] : -1));
      const bad = (a) => (economics.min_score !== null && draws.score[d][a] < economics.min_score) ||
        (economics.error_usd === null && draws.score[d][a] < top - economics.margin);
      const dollars = (a) => economics.error_usd === null && bad(a) ? Infinity : total(d, a, volume, months);
      const least = Math.min(...variants.map(dollars));
      const rival = Math.min(...arms.map((_, a) => candidates[a] && !variants.includes(a) ? dollars(a) : Infinity));
      const passed = Number.isFinite(least) && rival < least * (1 - economics.materiality);
      if (passed || variants.every(bad)) wrong += 1 / count;
    }
    return wrong;
  }

  const priced = economics.error_usd !== null;

  function crossing(from, to, months) {
    const build = arms.indexOf(from), run = arms.indexOf(to), volumes = [];
    const fixed = (d, a) => cost(d, a, 0, months);
    const running = (d, a) => draws.per_query[d][a] * factors[a] +
      (priced ? economics.error_usd * (1 - draws.score[d][a]) : 0);
    const cached = [build, run].some((a) => economics.prefixes[a]);
    const curved = cached || [build, run].some((a) => economics.machines[a]);
    for (let d = 0; d < (curved ? Math.min(count, 500) : count); d++) {
      const extra = fixed(d, run) - fixed(d, build), saving = running(d, build) - running(d, run);
      if (extra < 0 && !cached && (curved || saving >= 0)) volumes.push(0);
      else if (curved) bisected(d, build, run, months, cached, volumes);
      else if (saving > 0) volumes.push(extra / (weights(months).queries * saving));
    }
    return volumes.length ? median(volumes) : null;
  }

  // A staircase of machines, or a price that falls with volume: a root of the difference, as in
  // costs/break_even.py.
  function bisected(d, build, run, months, cached, volumes) {
    const behind = (v) => total(d, run, v, months) - total(d, build, v, months);
    const rungs = [0], ahead = [behind(0) < 0];
    for (let e = 0; e <= 72 && (cached || !ahead[ahead.length - 1]); e++) {
      rungs.push(Math.pow(10, 1 + e / 8));
      ahead.push(behind(rungs[rungs.length - 1]) < 0);
    }
    // With caches it is the volume from which the cheaper one stays so, where there is one.
    const stays = cached && ahead[ahead.length - 1];
    const at = stays ? ahead.lastIndexOf(false) + 1 : ahead.indexOf(true);
    if (at < 0) return;
    if (at === 0) { volumes.push(0); return; }
    let low = rungs[at - 1], high = rungs[at];
    for (let i = 0; i < 24; i++) {
      const middle = (low + high) / 2;
      if (behind(middle) < 0) high = middle; else low = middle;
    }
    volumes.push(high);
  }

  function band(a, volume, months, of, most) {
    const size = Math.min(count, most || count);
    const values = new Float64Array(size);
    for (let d = 0; d < size; d++) values[d] = (of || cost)(d, a, volume, months);
    values.sort();
    const at = (p) => {  // between two draws, as numpy does
      const place = p * (size - 1), below = Math.floor(place), above = Math.min(size - 1, below + 1);
      return values[below] + (place - below) * (values[above] - values[below]);
    };
    return [at(0.05), at(0.5), at(0.95)];
  }

  // ---- charts --------------------------------------------------------------------------

  function learning() {
    if (!curve.length) return;
    const x = curve.map((p) => p.examples);
    const accent = css("--accent");
    const edge = { type: "scatter", mode: "lines", x: ahead.map((p) => p.examples), line: { width: 0 },
      showlegend: false, hoverinfo: "skip" };
    const band = [{ ...edge, y: ahead.map((p) => p.high) },
      { ...edge, y: ahead.map((p) => p.low), fill: "tonexty", fillcolor: accent + "33" },
      { ...edge, y: ahead.map((p) => p.estimate), line: { color: accent, dash: "dot" }, hoverinfo: "y" }];
    const shape = layout("training examples", "right answers (validation set)");
    shape.yaxis.tickformat = ".0%";
    Plotly.react("curve", [...(ahead.length ? band : []), {
      type: "scatter", mode: "lines+markers", x, y: curve.map((p) => p.estimate),
      line: { color: accent }, name: "fine-tuned",
      error_y: { type: "data", symmetric: false, array: curve.map((p) => p.high - p.estimate),
        arrayminus: curve.map((p) => p.estimate - p.low), color: accent },
    }], shape, options);
  }

  const most = Math.max(7, Math.ceil(Math.log10(Math.max(1, economics.volume))) + 1);
  const grid = [];
  for (let e = 1; e <= most + 0.001; e += 0.1) grid.push(Math.pow(10, e));
  let drawn = { key: null, traces: [] };

  // The winner, its rival and what runs today, each named at its end; more lines say less.
  function lines(best) {
    const today = decision.finalists.find((f) => f.kind === "incumbent");
    const names = [arms[best], reference(best), today ? today.arm : null];
    return [...new Set(names)].map((name) => arms.indexOf(name)).filter((a) => a >= 0);
  }

  function volumes(best, volume, months) {
    const shown = lines(best), key = months + ":" + shown.join();
    if (drawn.key !== key) drawn = { key, traces: volumeTraces(shown, months) };
    const shapes = [{ type: "line", x0: volume, x1: volume, yref: "paper", y0: 0, y1: 1,
      line: { color: css("--soft"), dash: "dot", width: 1.5 } }];
    const wide = document.querySelector("main").clientWidth >= 600;
    const named = drawn.traces.filter((trace) => trace.name), annotations = wide ? labelled(named) : [];
    decision.break_even.filter((b) => [b.from, b.to].every((arm) => shown.includes(arms.indexOf(arm)))).forEach((b) => {
      const at = crossing(b.from, b.to, months);
      if (at === null || at < 10 || at > Math.pow(10, most)) return;
      shapes.push({ type: "line", x0: at, x1: at, yref: "paper", y0: 0, y1: 1,
        line: { color: css("--warn"), dash: "dash", width: 1.5 } });
      annotations.push({ x: Math.log10(at), yref: "paper", y: 1, text: "break-even", showarrow: false,
        font: { color: css("--warn"), size: 11 }, xanchor: "left" });
    });
    const shape = layout("queries a month", priced ? "US dollars a month, errors included" : "US dollars a month",
      { shapes, annotations });
    shape.xaxis.type = "log"; shape.yaxis.type = "log"; shape.hovermode = "x";
    if (wide) shape.margin.r = 160;  // for the names
    else {
      Object.assign(shape, { showlegend: true, height: 320 + 20 * named.length,
        legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom" } });
      shape.margin.b = 55 + 20 * named.length;
    }
    Plotly.react("volume-chart", drawn.traces, shape, options);
  }

  // Names at the right end of the lines, pushed apart where lines are close there.
  function labelled(traces) {
    const ordered = [...traces].sort((a, b) => b.y[grid.length - 1] - a.y[grid.length - 1]);
    const tops = ordered.map((trace) => Math.log10(trace.y[grid.length - 1]));
    const all = traces.flatMap((trace) => trace.y).map((y) => Math.log10(y));
    const gap = (Math.max(...all) - Math.min(...all)) / 6;
    for (let i = 1; i < tops.length; i++) tops[i] = Math.min(tops[i], tops[i - 1] - gap);
    return ordered.map((trace, i) => ({ xref: "paper", x: 1.01, y: tops[i], text: wrapped(trace.name), align: "left",
      showarrow: false, xanchor: "left", yanchor: "middle", font: { color: trace.line.color, size: 12 } }));
  }

  function wrapped(text) {
    const rows = [""];
    text.split(" ").forEach((word) => {
      const last = rows[rows.length - 1];
      if (last && last.length + word.length > 20) rows.push(word);
      else rows[rows.length - 1] = last ? last + " " + word : word;
    });
    return rows.join("<br>");
  }

  function volumeTraces(shown, months) {
    const traces = [];
    shown.forEach((a) => {
      const bands = grid.map((v) =>
        band(a, v, months, total, 1000).map((c) => Math.max(c / months, 1e-6)));
      const tint = colorOf(a) + "22";
      traces.push({ type: "scatter", mode: "lines", x: grid, y: bands.map((b) => b[0]),
        line: { width: 0 }, hoverinfo: "skip", showlegend: false });
      traces.push({ type: "scatter", mode: "lines", x: grid, y: bands.map((b) => b[2]), fill: "tonexty",
        fillcolor: tint, line: { width: 0 }, hoverinfo: "skip", showlegend: false });
      traces.push({ type: "scatter", mode: "lines", name: title(arms[a]), x: grid, y: bands.map((b) => b[1]),
        line: { color: colorOf(a), width: 2 } });
    });
    return traces;
  }

  // ---- the first screen ------------------------------------------------------------------

  const find = (arm) => decision.finalists.find((f) => f.arm === arm);
  const element = (id) => document.getElementById(id);
  const mean = (of) => { let sum = 0; for (let d = 0; d < count; d++) sum += of(d); return sum / count; };

  // What an option is compared with: what runs today, else the best of the other side.
  function reference(best) {
    const saved = decision.saving;
    if (!saved) return null;
    return saved.against === arms[best] ? decision.winner : saved.against;
  }

  // As ExpectedCost of decision/summary.py: means, so that the parts add up.
  function expected(a, volume, months) {
    const build = mean((d) => draws.upfront[d][a]), all = mean((d) => cost(d, a, volume, months));
    const errors = mean((d) => total(d, a, volume, months)) - all;
    return { build, run: all - build, errors, total: all + errors };
  }

  // saving_sentence of report/words.py.
  function savingSentence(kind, other, usd, lead, period) {
    const size = aboutDollars(Math.abs(usd)), points = Math.abs(100 * lead).toFixed(1) + " points";
    const included = priced ? ", errors included" : "", side = words.sides[other];
    const against = side === words.sides[kind] ? "the next best option" : side[0].toLowerCase() + side.slice(1);
    const keeps = words.kept.includes(kind) && !words.kept.includes(other);
    if (Math.abs(usd) < 1) return keeps ? side + " would cost about the same." : "It should cost about as much as " + against + ".";
    if (keeps && usd > 0) return side + " should cost about " + size + " more " + period + included +
      (lead < 0 ? ", for " + points + " more right answers." : ".");
    if (keeps) return side + " should save about " + size + " " + period + included +
      (lead > 0 ? ", with " + points + " fewer right answers." : ".");
    if (usd > 0) return "It should save about " + size + " " + period + " against " + against + included +
      (lead < 0 ? ", with " + points + " fewer right answers." : ".");
    return "It should cost about " + size + " more " + period + " than " + against + included +
      (lead > 0 ? ", for " + points + " more right answers." : ".");
  }

  // Of a log without tokens or price, nobody knows what its answers cost.
  const priceKnown = (name) => !find(name).expected_usd || find(name).expected_usd.total !== null;

  // The difference of two scores; 0 where its interval holds 0, or the study did not compare them.
  function shownLead(name, against) {
    const pairs = decision.differences.filter((d) => d.low > 0 || d.high < 0);
    const lead = (a, b) => pairs.filter((d) => d.arm === a && d.against === b).map((d) => d.estimate)[0];
    return lead(name, against) || -lead(against, name) || 0;
  }

  function verdict(result, volume, months) {
    const name = arms[result.best], against = reference(result.best);
    const strength = strengthWords[result.strength];
    const chance = result.risk < 0.01 ? "under 1%" : (100 * result.risk).toFixed(0) + "%";
    const short = decision.migration && result.short;
    const shown = { light: lights[result.strength],
      strength: strength + ": " + chance + " chance that " +
        (short ? "it is not as good as today." : "another choice is better.") };
    if (result.strength === "undecided" && short && result.risk > 0.95) {
      const sure = result.risk > 0.99 ? "Over 99%" : (100 * result.risk).toFixed(0) + "%";
      return { ...shown, strength: sure + " sure that it is not as good as today.",
        title: "Nothing measured here can replace what runs today. Nearest: " + title(name) + "." };
    }
    if (result.strength === "undecided") return { ...shown, title: "Not sure yet. Best so far: " + title(name) + "." };
    if (against === null || !priceKnown(name) || !priceKnown(against)) return { ...shown, title: words.advice[name] + "." };
    const other = arms.indexOf(against), lead = shownLead(name, against);
    const usd = mean((d) => total(d, other, volume, months) - total(d, result.best, volume, months));
    const period = months === 12 ? "a year" : "over " + months + " months";
    return { ...shown, title: words.advice[name] + ". " +
      savingSentence(words.kind[name], words.kind[against], usd, lead, period) };
  }

  function tile(id, value, note, name) {
    const box = element("tile-" + id);
    if (!box) return;
    box.querySelector(".value").textContent = value;
    if (note !== null) box.querySelector(".note").textContent = note;
    if (name) box.querySelector("dt").textContent = name;
  }

  function firstScreen(result, parts, volume, months) {
    const best = result.best, name = arms[best], against = reference(best), words = verdict(result, volume, months);
    element("headline").textContent = words.title;
    element("strength").textContent = words.strength;
    element("verdict").dataset.strength = words.light;
    element("choice").textContent = title(name) + (against === null ? "." : " instead of " + title(against) + ".");
    const built = Float64Array.from(draws.upfront, (row) => row[best]).sort();
    const at = (p) => aboutDollars(built[Math.round(p * (count - 1))]);
    tile("build", aboutDollars(parts[best].build), "90%: " + at(0.05) + " to " + at(0.95));
    if (against === null) return;
    const other = arms.indexOf(against), lead = find(name).score.estimate - find(against).score.estimate;
    const label = (decision.saving.today && against === decision.saving.against ? "Today" : title(against)) + ": ";
    tile("right", percent(find(name).score.estimate), label + percent(find(against).score.estimate));
    tile("run", priceKnown(name) ? aboutDollars(parts[best].run / months) : "not known",
      label + (priceKnown(against) ? aboutDollars(parts[other].run / months) : "not known"));
    const avoided = mean((d) => queries(d, volume) * (draws.score[d][best] - draws.score[d][other]));
    tile("errors", few(Math.abs(avoided), 3), (lead >= 0 ? "+" : "") + (100 * lead).toFixed(1) + " points",
      avoided >= 0 ? "Errors avoided, a month" : "More errors, a month");
  }

  function rows(result, parts) {
    document.querySelectorAll("#live-rows tr[data-arm]").forEach((row) => {
      const a = arms.indexOf(row.dataset.arm);
      row.className = a === result.best ? "winner" : "";
      row.querySelectorAll("[data-part]").forEach((cell) => {
        const known = priceKnown(row.dataset.arm) || !["run", "total"].includes(cell.dataset.part);
        cell.textContent = known ? dollars(parts[a][cell.dataset.part]) : "–";
      });
    });
    const tie = document.querySelector("#live-rows tr.tie");
    if (tie) tie.remove();
  }

  // ---- the sliders ---------------------------------------------------------------------

  const volumeInput = document.getElementById("volume"), monthsInput = document.getElementById("months");

  // Until a slider is moved, traffic and horizon are the declared ones: then the page says what the report says.
  const few = (value, digits) => Number(value.toPrecision(digits)).toLocaleString("en-US");
  const [least, highest] = economics.traffic;
  let chosen = { volume: null, months: economics.months };

  function volumeWords(volume) {
    if (volume !== null) return few(volume, 2);
    return least === highest ? few(least, 4) : few(least, 4) + " to " + few(highest, 4);
  }

  // The page as it came says what the study decided, from all of its draws and every guard.
  const asDecided = ["headline", "strength", "choice", "live-rows"].map((id) => [element(id), element(id).innerHTML]);
  const tiles = document.querySelector(".tiles");
  if (tiles) asDecided.push([tiles, tiles.innerHTML]);
  let changed = false, altered = false;
  const light = element("verdict").dataset.strength, declaredMonths = element("table-months").textContent;

  function update() {
    const { volume, months } = chosen;
    element("volume-value").textContent = volumeWords(volume);
    element("months-value").textContent = String(months);
    volumeInput.setAttribute("aria-valuetext", volumeWords(volume) + " queries a month");
    monthsInput.setAttribute("aria-valuetext", months + " months");
    const result = decide(volume, months), parts = arms.map((_, a) => expected(a, volume, months));
    const scenario = "At " + volumeWords(volume) + " queries a month over " + months + " months: ";
    element("live").textContent = scenario + title(arms[result.best]) + " (" +
      strengthWords[result.strength].toLowerCase() + "), for about " + aboutDollars(parts[result.best].total) +
      (priced ? " in all, errors included." : " in all.");
    element("table-months").textContent = changed ? months + " months" : declaredMonths;
    if (!changed && altered) {
      asDecided.forEach(([box, content]) => { box.innerHTML = content; });
      element("verdict").dataset.strength = light;
      element("scenario").textContent = "";
    }
    altered = changed;
    if (changed) {
      firstScreen(result, parts, volume, months);
      rows(result, parts);
      element("scenario").textContent = scenario + "the assumptions on this page, not those of the study. " +
        "What to do next and the appendix stay those of the study.";
    }
    volumes(result.best, volume === null ? economics.volume : volume, months);
  }

  volumeInput.max = String(most);
  monthsInput.max = String(Math.max(60, Math.ceil(economics.months)));
  const declared = { growth: economics.growth, discount: economics.discount, error_usd: economics.error_usd };
  function change(lines) {
    changed = true;
    if (lines) {
      weighed = { months: null };
      drawn = { key: null, traces: [] };
    }
    update();
  }
  function asDeclared() {
    changed = false;
    Object.assign(economics, declared);
    factors.fill(1);
    weighed = { months: null };
    drawn = { key: null, traces: [] };
    chosen = { volume: null, months: economics.months };
    volumeInput.value = String(Math.log10(Math.max(1, economics.volume)));
    monthsInput.value = String(Math.round(economics.months));
    Object.entries(fields).forEach(([name, unit]) => {
      document.getElementById(name).value = String(Number(((economics[key(name)] || 0) * unit).toPrecision(6)));
    });
    document.querySelectorAll("#prices input").forEach((field) => { field.value = "100"; });
  }
  // Other assumptions: what is no number within its bounds leaves the page as it was.
  const fields = { growth: 100, discount: 100, error: 1 };
  const key = (name) => (name === "error" ? "error_usd" : name);
  if (!priced) {
    document.getElementById("error-field").remove();
    delete fields.error;
  }
  Object.entries(fields).forEach(([name, unit]) => {
    const field = document.getElementById(name);
    field.addEventListener("input", () => {
      if (field.value === "" || !field.checkValidity()) return;
      economics[key(name)] = Number(field.value) / unit;
      change(true);
    });
  });
  document.getElementById("prices").append(...arms.map((name, a) => {
    const label = document.createElement("label"), field = document.createElement("input");
    Object.assign(field, { type: "number", min: "0", max: "1000000", step: "any", value: "100" });
    field.dataset.arm = name;
    field.addEventListener("input", () => {
      if (field.value === "" || !field.checkValidity()) return;
      factors[a] = Number(field.value) / 100;
      change(true);
    });
    label.append("Price of an answer of " + title(name) + ", % of today's ", field);
    return label;
  }));
  asDeclared();
  volumeInput.addEventListener("input", () => {
    chosen.volume = Math.pow(10, Number(volumeInput.value));
    change(false);
  });
  monthsInput.addEventListener("input", () => { chosen.months = Number(monthsInput.value); change(false); });
  document.getElementById("declared").addEventListener("click", () => { asDeclared(); update(); });
  function draw() { drawn = { key: null, traces: [] }; learning(); update(); }
  window.tunepoint = { band, decide, crossing, cost, verdict, expected };  // for those who want other numbers, and for the tests
  const charts = () => document.querySelectorAll(".js-plotly-plot");
  const paper = 620;  // pixels of a page between its margins, which the layout of the screen does not know
  window.addEventListener("beforeprint", () => charts().forEach((chart) => Plotly.relayout(chart, { width: paper })));
  window.addEventListener("afterprint", () => charts().forEach((chart) => Plotly.relayout(chart, { width: null, autosize: true })));
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
})();
