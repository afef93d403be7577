"use strict";

// A click on a column's header sorts its table; another one turns the order round.
function cellKeys(rows, column) {
  const texts = rows.map((row) => row.cells[column].textContent.trim());
  const numbers = texts.map((text) => Number.parseFloat(text.replace(/[,+]/g, "").replace("−", "-")));
  const empty = texts.map((text) => text === "" || text === "–");
  const numeric = column > 0 && texts.every((_, i) => empty[i] || !Number.isNaN(numbers[i]));
  return texts.map((text, i) => ({ empty: empty[i], value: numeric ? numbers[i] : text }));
}

function sortTable(header) {
  const table = header.closest("table");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const keys = new Map(cellKeys(rows, header.cellIndex).map((key, i) => [rows[i], key]));
  const order = header.ariaSort === "ascending" ? "descending" : "ascending";
  const sign = order === "ascending" ? 1 : -1;
  rows.sort((first, second) => {
    const a = keys.get(first), b = keys.get(second);
    if (a.empty || b.empty) return a.empty - b.empty; // what is missing stays at the foot
    if (typeof a.value === "number") return sign * (a.value - b.value);
    return sign * a.value.localeCompare(b.value);
  });
  for (const other of table.tHead.rows[0].cells) other.ariaSort = "none";
  header.ariaSort = order;
  body.append(...rows);
}

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => sortTable(button.closest("th")));
}

// plotly.js lies in the page compressed, which takes 2 MB for 5; a browser unpacks it by itself.
async function loadPlotly(packed) {
  const bytes = Uint8Array.from(atob(packed.textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

// The legend stands below the curves: in a narrow window each entry has a line of its own.
function heightOf(chart, figure) {
  const named = figure.data.filter((trace) => trace.showlegend !== false);
  const letters = Math.max(...named.map((trace) => trace.name.length));
  const columns = Math.max(1, Math.floor((chart.clientWidth - 60) / (50 + 7.5 * letters)));
  return 400 + 22 * Math.ceil(named.length / columns);
}

async function drawCharts() {
  const packed = document.getElementById("plotly");
  if (packed === null) return;
  await loadPlotly(packed);
  for (const chart of document.querySelectorAll(".chart")) {
    const figure = JSON.parse(chart.nextElementSibling.textContent);
    figure.layout.height = heightOf(chart, figure);
    const config = { responsive: true, displaylogo: false, displayModeBar: false };
    await Plotly.newPlot(chart, figure.data, figure.layout, config);
  }
  document.documentElement.dataset.drawn = "yes";
}

drawCharts().catch((error) => {
  for (const chart of document.querySelectorAll(".chart")) {
    chart.textContent = `This browser cannot draw the chart (${error}); the tables hold its numbers.`;
  }
});
