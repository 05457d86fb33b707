"use strict";
(() => {
  const counts = JSON.parse(document.getElementById("data").textContent);
  const PAGE = 10;
  const byId = (id) => document.getElementById(id);

  for (const table of document.querySelectorAll("table")) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const numeric = "number" in head.dataset;
        // Of numbers the largest are looked for first, of words the beginning of the alphabet.
        const before = head.getAttribute("aria-sort");
        const up = before === "none" ? !numeric : before === "descending";
        for (const other of heads) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        sort(body, place, numeric, up);
      });
    });
  }

  function sort(body, place, numeric, up) {
    const keyed = [...body.rows].map((row) => {
      const cell = row.cells[place];
      const text = cell.textContent.trim();
      const value = !numeric ? text : "sort" in cell.dataset ? Number(cell.dataset.sort) : null;
      return { row, value: value === "" ? null : value };
    });
    const compare = numeric ? (a, b) => a - b : (a, b) => a.localeCompare(b, "en", { numeric: true });
    keyed.sort((a, b) => {
      // What has no value stands last either way.
      if (a.value === null || b.value === null) return (a.value === null) - (b.value === null);
      return up ? compare(a.value, b.value) : compare(b.value, a.value);
    });
    body.append(...keyed.map((one) => one.row));
  }

  function openAll() {
    for (const fold of document.querySelectorAll("details:not([open])")) {
      fold.open = true;
      fold.dataset.folded = "";
    }
  }
  function closeAgain() {
    for (const fold of document.querySelectorAll("details[data-folded]")) {
      fold.open = false;
      delete fold.dataset.folded;
    }
  }
  window.addEventListener("beforeprint", openAll);
  window.addEventListener("afterprint", closeAgain);

  if (!byId("filters")) return;
  const groups = [...document.querySelectorAll(".group")];
  const cases = groups.map((group) =>
    [...group.querySelectorAll(".case")].map((element) => ({
      element,
      outcomes: element.dataset.outcomes,
      text: element.textContent.toLowerCase(),
    })),
  );
  const picks = { group: byId("pick-group"), method: byId("pick-method"), other: byId("pick-other"), text: byId("pick-text") };
  let page = 0;
  let marked = null;

  function option(value, text) {
    const made = document.createElement("option");
    made.value = value;
    made.textContent = text;
    return made;
  }

  function fillMethods() {
    const found = counts[picks.group.value];
    const own = found.names.map((name, place) => option(place, `${name} (${found.wrong[place].toLocaleString("en")})`));
    picks.method.replaceChildren(...own, option("any", "any method"));
    const students = found.names.findIndex((name, place) => place > 0 || name !== "teacher");
    picks.method.value = String(Math.max(students, 0));
    const chief = found.names.indexOf("step-by-step");
    if (chief >= 0) picks.method.value = String(chief);
    fillOthers();
  }

  function fillOthers() {
    const found = counts[picks.group.value];
    const made = [option("any", "all")];
    found.names.forEach((name, place) => {
      if (String(place) === picks.method.value) return;
      made.push(option(`right ${place}`, `those that ${name} got right`), option(`wrong ${place}`, `those that ${name} got wrong, too`));
    });
    picks.other.replaceChildren(...made);
  }

  function fits(one) {
    const isWrong = (place) => one.outcomes[place] !== "1";
    const method = picks.method.value;
    if (method === "any" ? ![...one.outcomes].some((_, place) => isWrong(place)) : !isWrong(Number(method))) return false;
    const [want, place] = picks.other.value.split(" ");
    if (want === "right" && isWrong(Number(place))) return false;
    if (want === "wrong" && !isWrong(Number(place))) return false;
    const words = picks.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    return words.every((word) => one.text.includes(word));
  }

  function inAll() {
    const found = counts[picks.group.value];
    const method = picks.method.value;
    if (method === "any" || picks.text.value.trim()) return null;
    const [want, place] = picks.other.value.split(" ");
    const right = want === "any" ? 0 : found.pairs[Number(method)][Number(place)];
    return want === "right" ? right : found.wrong[Number(method)] - right;
  }

  function show() {
    const chosen = Number(picks.group.value);
    groups.forEach((group, place) => group.classList.toggle("filtered", place !== chosen));
    const there = cases[chosen].filter((one) => {
      const fit = fits(one);
      one.element.classList.toggle("filtered", !fit);
      return fit;
    });
    const pages = Math.max(1, Math.ceil(there.length / PAGE));
    page = Math.min(page, pages - 1);
    there.forEach((one, place) => one.element.classList.toggle("paged", Math.floor(place / PAGE) !== page));
    mark(groups[chosen], picks.method.value);
    const all = inAll();
    const from = there.length ? page * PAGE + 1 : 0;
    const to = Math.min(there.length, (page + 1) * PAGE);
    const rest = all === null ? "" : all === there.length ? ", which is all of them" : `; in all there are ${all.toLocaleString("en")}`;
    byId("status").textContent = there.length ? `${from} to ${to} of ${there.length} in this file${rest}.` : `None in this file${rest}.`;
    byId("page").textContent = `page ${page + 1} of ${pages}`;
    byId("before").disabled = page === 0;
    byId("next").disabled = page >= pages - 1;
  }

  function mark(group, method) {
    if (marked) for (const one of marked) one.classList.remove("picked");
    marked = method === "any" ? null : group.querySelectorAll(`.answer[data-place="${Number(method)}"]`);
    if (marked) for (const one of marked) one.classList.add("picked");
  }

  function turn(by) {
    page += by;
    show();
    byId("status").scrollIntoView({ block: "start" });
  }

  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  picks.group.addEventListener("change", () => { page = 0; fillMethods(); show(); });
  picks.method.addEventListener("change", () => { page = 0; fillOthers(); show(); });
  picks.other.addEventListener("change", () => { page = 0; show(); });
  picks.text.addEventListener("input", () => { page = 0; show(); });
  byId("before").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  for (const hidden of document.querySelectorAll(".needs-script")) hidden.hidden = false;
  fillMethods();
  show();
})();
