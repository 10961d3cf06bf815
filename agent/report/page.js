"use strict";
// Everything the page does: theme, plots, sorting and filtering the ranked table, opening and closing, printing. Without it the page still reads.
(function () {
  const root = document.documentElement;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);

  // --- plots -------------------------------------------------------------------------------------------------------------------
  const plots = JSON.parse(document.getElementById("figure-data").textContent);
  const places = Array.from(document.querySelectorAll("[data-figure]"));

  function themed(layout, light) {
    const ink = light ? "#1c1f22" : "#e8e6e1";
    const grid = light ? "#dfe3e6" : "#353e47";
    const changes = { "font.color": ink, "legend.font.color": ink, "hoverlabel.bgcolor": light ? "#ffffff" : "#1d232a", "hoverlabel.font.color": ink };
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis\d*$/.test(key)) {
        changes[key + ".gridcolor"] = grid;
        changes[key + ".zerolinecolor"] = light ? "#9aa0a6" : "#6b7681";
        changes[key + ".linecolor"] = grid;
      }
    }
    return changes;
  }

  function draw(place) {
    const figure = plots[place.dataset.figure];
    const touch = window.matchMedia("(pointer: coarse)").matches;
    const layout = Object.assign({}, figure.layout, { dragmode: touch ? false : "zoom", autosize: true });
    const narrow = place.clientWidth < 520;
    if (narrow) {
      layout.font = Object.assign({}, layout.font, { size: 11 });
      layout.margin = Object.assign({}, layout.margin, { l: 44, r: 8 });
    }
    const config = { displayModeBar: false, displaylogo: false, responsive: true, scrollZoom: false, showTips: false };
    return window.Plotly.newPlot(place, figure.data, layout, config).then(() => recolour(place, !isDark()));
  }

  function recolour(place, light) {
    return window.Plotly.relayout(place, themed(plots[place.dataset.figure].layout, light));
  }

  if (window.Plotly) {
    places.forEach(draw);
    window.addEventListener("beforeprint", () => {
      for (const place of places) window.Plotly.relayout(place, Object.assign({ width: 680, autosize: false }, themed(plots[place.dataset.figure].layout, true)));
    });
    window.addEventListener("afterprint", () => {
      for (const place of places) window.Plotly.relayout(place, Object.assign({ width: null, autosize: true }, themed(plots[place.dataset.figure].layout, !isDark())));
    });
  }

  // --- light and dark ----------------------------------------------------------------------------------------------------------
  const theme = document.getElementById("theme");
  function showTheme() {
    theme.textContent = isDark() ? "Light colours" : "Dark colours";
    if (window.Plotly) places.forEach((place) => place.layout && recolour(place, !isDark()));
  }
  theme.hidden = false;
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    showTheme();
  });
  dark.addEventListener("change", showTheme);
  showTheme();

  // --- the ranked table --------------------------------------------------------------------------------------------------------
  const table = document.getElementById("ranked-table");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const headings = Array.from(table.tHead.rows[0].cells);

  function value(row, column, kind) {
    const cell = row.cells[column];
    if (kind === "text") return cell.textContent.trim().toLowerCase();
    return cell.dataset.sort === "" ? null : Number(cell.dataset.sort);
  }

  function sort(column) {
    const heading = headings[column];
    const kind = heading.dataset.kind;
    const now = heading.getAttribute("aria-sort");
    const first = kind === "text" || column === 0 ? "ascending" : "descending";
    const next = now === null ? first : now === "ascending" ? "descending" : "ascending";
    const sign = next === "ascending" ? 1 : -1;
    headings.forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", next);
    const keyed = rows.map((row) => [value(row, column, kind), Number(row.dataset.rank), row]);
    keyed.sort((a, b) => {
      if (a[0] === null || b[0] === null) return (a[0] === null) - (b[0] === null) || a[1] - b[1];
      return (a[0] < b[0] ? -sign : a[0] > b[0] ? sign : 0) || a[1] - b[1];
    });
    body.append(...keyed.map((entry) => entry[2]));
  }

  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    button.addEventListener("click", () => sort(column));
    heading.replaceChildren(button);
  });

  const filter = document.getElementById("filter");
  if (filter) {
    const find = document.getElementById("find");
    const verdict = document.getElementById("verdict");
    const count = document.getElementById("count");
    const apply = () => {
      const wanted = find.value.trim().toLowerCase();
      let left = 0;
      for (const row of rows) {
        const show = row.textContent.toLowerCase().includes(wanted) && (verdict.value === "" || row.dataset.verdict === verdict.value);
        row.hidden = !show;
        left += show ? 1 : 0;
      }
      count.textContent = left + " of " + rows.length + " shown";
    };
    filter.hidden = false;
    find.addEventListener("input", apply);
    verdict.addEventListener("change", apply);
    apply();
  }

  // --- opening and closing -----------------------------------------------------------------------------------------------------
  const sections = Array.from(document.querySelectorAll("details.parameter"));
  for (const button of document.querySelectorAll("button.all")) {
    button.hidden = false;
    button.addEventListener("click", () => sections.forEach((section) => (section.open = button.dataset.open === "true")));
  }
  function openTarget() {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (target instanceof HTMLDetailsElement) target.open = true;
  }
  window.addEventListener("hashchange", openTarget);
  openTarget();
})();
