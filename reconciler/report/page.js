"use strict";
// Tables of items: searched, filtered and paged here. Texts come from anybody, so they only ever become text nodes.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const PAGE = 15, LONG = 420;
  const SIGNS = { pass: "✓ pass", fail: "✗ fail", error: "! error" };

  const el = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === true) made.setAttribute(key, "");
      else if (value !== false && value != null) made.setAttribute(key, value);
    }
    made.append(...children.filter((child) => child != null && child !== ""));
    return made;
  };

  const passed = (answer) => answer != null && answer.status === "pass";

  const flipped = data.pairs.flatMap((pair) =>
    data.evals[pair.eval].items.flatMap((item) => {
      const before = item.answers[pair.before], after = item.answers[pair.after];
      if (!before || !after || passed(before) === passed(after)) return [];
      return [{ item, pair, eval: pair.eval, columns: [pair.before, pair.after], change: passed(after) ? "gained" : "lost" }];
    }));
  flipped.sort((a, b) => (a.change < b.change) - (a.change > b.change));

  const all = data.evals.flatMap((one, index) =>
    one.items.map((item) => ({ item, eval: index, columns: one.runs.map((_, column) => column) })));

  const hay = (row) => {
    if (row.hay === undefined) {
      const texts = [`#${row.item.id}`, ...Object.values(row.item.fields)];
      for (const column of row.columns) {
        const answer = row.item.answers[column];
        if (answer) texts.push(answer.text, answer.error || "", ...answer.grades.map((grade) => grade[3]));
      }
      row.hay = texts.join("\n").toLowerCase();
    }
    return row.hay;
  };

  const marked = (text, words) => {
    const wanted = words.filter(Boolean);
    if (!wanted.length) return [text];
    const parts = [], low = text.toLowerCase();
    if (low.length !== text.length) return [text];
    for (let at = 0; at < text.length;) {
      let next = -1, size = 0;
      for (const word of wanted) {
        const found = low.indexOf(word, at);
        if (found >= 0 && (next < 0 || found < next)) { next = found; size = word.length; }
      }
      if (next < 0) { parts.push(text.slice(at)); break; }
      if (next > at) parts.push(text.slice(at, next));
      parts.push(el("mark", {}, text.slice(next, next + size)));
      at = next + size;
    }
    return parts;
  };

  const texted = (text, words) => {
    const box = el("span", { class: "text", dir: "auto" });
    if (text.length <= LONG) { box.append(...marked(text, words)); return box; }
    const more = el("button", { type: "button", class: "more", "aria-expanded": "false" }, "show all");
    const fill = (open) => {
      box.replaceChildren(...marked(open ? text : `${text.slice(0, LONG)}… `, words), more);
      more.setAttribute("aria-expanded", String(open));
      more.textContent = open ? "show less" : "show all";
    };
    more.addEventListener("click", () => { fill(more.getAttribute("aria-expanded") === "false"); more.focus(); });
    fill(false);
    return box;
  };

  const graded = (grade) => {
    const [name, status, score, note] = grade;
    const number = score == null ? "" : ` ${Number(score.toFixed(3))}`;
    return el("li", { class: status }, el("span", { "aria-hidden": "true" }, SIGNS[status][0]), ` ${name}${number}`,
      el("span", { class: "hidden" }, ` ${status}`), note ? el("span", { class: "note" }, ` ${note}`) : null);
  };

  const answered = (answer, words) => {
    if (!answer) return [el("span", { class: "note" }, "no answer here")];
    const facts = [answer.ms != null ? `${answer.ms.toLocaleString("en")} ms` : "", answer.tokens ? `${answer.tokens} tokens` : ""];
    return [
      el("span", { class: `badge ${answer.status}` }, SIGNS[answer.status]),
      answer.error ? el("p", { class: "error" }, answer.error) : null,
      el("div", { class: "answer" }, answer.text ? texted(answer.text, words) : el("i", {}, "(empty answer)")),
      el("ul", { class: "grades" }, ...answer.grades.map(graded), el("li", { class: "note" }, facts.filter(Boolean).join(", "))),
    ];
  };

  const line = (row, words) => {
    const runs = data.evals[row.eval].runs;
    const head = el("th", { scope: "row" }, el("span", { class: "item-id" }, ...marked(`#${row.item.id}`, words)),
      row.change ? el("span", { class: row.change }, row.change === "gained" ? "▲ gained" : "▼ lost") : null);
    const fields = el("dl", {}, ...Object.entries(row.item.fields).flatMap(([name, value]) =>
      [el("dt", {}, name), el("dd", {}, texted(value, words))]));
    return el("tr", {}, head, el("td", {}, fields), ...row.columns.map((column) =>
      el("td", { "data-label": runs[column].subject }, ...answered(row.item.answers[column], words).filter(Boolean))));
  };

  const choices = (label, options, chosen, choose) => {
    const group = el("div", { class: "choices", role: "group", "aria-label": label });
    for (const [value, text] of options) {
      const button = el("button", { type: "button", "aria-pressed": String(value === chosen) }, text);
      button.addEventListener("click", () => {
        for (const other of group.children) other.setAttribute("aria-pressed", String(other === button));
        choose(value);
      });
      group.append(button);
    }
    return group;
  };

  const browse = (place, rows, filters, empty) => {
    const view = { words: [], filter: filters[0][0], place: 0, page: 0 };
    const places = place.dataset.browse === "flips"
      ? data.pairs.map((pair) => [(row) => row.pair === pair, pair.eval, [pair.before, pair.after]])
      : data.evals.map((one, index) => [(row) => row.eval === index, index, one.runs.map((_, column) => column)]);
    const name = place.dataset.browse;
    const search = el("input", { type: "search", "aria-label": `Search ${name}`, placeholder: "Search items and answers", autocomplete: "off", spellcheck: "false" });
    const said = el("p", { class: "count", role: "status" });
    const head = el("tr"), body = el("tbody");
    const table = el("table", { class: "things" }, el("thead", {}, head), body);
    const back = el("button", { type: "button" }, "← previous"), next = el("button", { type: "button" }, "next →");
    const where = el("span", { class: "where" });
    const keep = Object.fromEntries(filters.map(([value, , test]) => [value, test]));
    let here = [];

    const draw = () => {
      const [mine, index, columns] = places[view.place];
      here = rows.filter((row) => mine(row) && keep[view.filter](row) && view.words.every((word) => hay(row).includes(word)));
      const pages = Math.max(1, Math.ceil(here.length / PAGE));
      view.page = Math.min(view.page, pages - 1);
      const shown = here.slice(view.page * PAGE, (view.page + 1) * PAGE);
      const runs = data.evals[index].runs;
      head.replaceChildren(el("th", { scope: "col" }, "#"), el("th", { scope: "col" }, "item"), ...columns.map((column) =>
        el("th", { scope: "col" }, runs[column].subject, runs[column].part === "baseline" ? el("span", { class: "part" }, " baseline") : null)));
      body.replaceChildren(...shown.map((row) => line(row, view.words)));
      if (!shown.length) body.append(el("tr", {}, el("td", { colspan: columns.length + 2, class: "none" }, empty)));
      const ours = rows.filter(mine);
      said.textContent = `${here.length.toLocaleString("en")} of ${ours.length.toLocaleString("en")} ${ours.length === 1 ? "item" : "items"}`;
      filters.forEach(([, text, test], at) => {
        kinds.children[at].textContent = `${text} ${ours.filter(test).length.toLocaleString("en")}`;
      });
      table.classList.toggle("many", columns.length > 3);
      where.textContent = `page ${view.page + 1} of ${pages}`;
      back.disabled = view.page === 0;
      next.disabled = view.page >= pages - 1;
    };
    const turn = (by) => {
      view.page += by;
      draw();
      place.scrollIntoView({ block: "start" });
    };
    let soon;
    search.addEventListener("input", () => {
      clearTimeout(soon);
      soon = setTimeout(() => {
        view.words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
        view.page = 0;
        draw();
      }, 80);
    });
    back.addEventListener("click", () => turn(-1));
    next.addEventListener("click", () => turn(1));

    const kinds = choices(`Show of ${name}`, filters.map(([value, text]) => [value, text]), view.filter,
      (value) => { view.filter = value; view.page = 0; draw(); });
    const tools = el("div", { class: "tools" }, search, kinds);
    if (places.length > 1) {
      const select = el("select", { "aria-label": "Which eval" }, ...places.map(([, index, columns], at) => {
        const one = data.evals[index];
        const text = name === "flips" ? `${one.name}: ${one.runs[columns[1]].subject}` : one.name;
        return el("option", { value: String(at) }, text);
      }));
      select.addEventListener("change", () => { view.place = Number(select.value); view.page = 0; draw(); });
      tools.prepend(select);
    }
    place.append(tools, said, el("div", { class: "scroll" }, table), el("div", { class: "pager" }, back, where, next));
    draw();
  };

  // What is asked of an item is asked of its candidates' answers; baselines are there to compare with.
  const judged = (row) => row.columns.filter((column) => data.evals[row.eval].runs[column].part !== "baseline");
  const status = (value) => (row) => judged(row).some((column) => row.item.answers[column]?.status === value);
  for (const place of document.querySelectorAll("[data-browse]")) {
    if (place.dataset.browse === "flips") {
      browse(place, flipped, [["all", "all", () => true], ["lost", "▼ lost", (row) => row.change === "lost"],
        ["gained", "▲ gained", (row) => row.change === "gained"]], "No item changed sides.");
    } else {
      const pass = (row) => judged(row).every((column) => passed(row.item.answers[column]));
      browse(place, all, [["all", "all", () => true], ["pass", "✓ pass", pass], ["fail", "✗ fail", status("fail")],
        ["error", "! error", status("error")]], "No item here.");
    }
  }
})();
