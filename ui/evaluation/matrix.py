"""The confusion matrix as a component: a table whose every cell can be clicked, at ten classes and at hundreds.

A table of its own, and not a chart: with 100 classes it is there in a third of the time, its labels stay in sight
while it is scrolled, and it can be walked with the arrow keys and read by a screen reader.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import streamlit as st

MODES = COUNTS, SHARES, MISTAKES = ("Counts", "Shares of each row", "Mistakes only")

CSS = """
.box { overflow: auto; max-height: 86vh; }
table { border-collapse: separate; border-spacing: 0; font: 11px/1 var(--st-font); color: var(--st-text-color);
  margin: 0 auto 0 0; }
td { box-sizing: border-box; width: var(--cell); min-width: var(--cell); max-width: var(--cell); height: var(--cell);
  padding: 0; text-align: center; vertical-align: middle; cursor: pointer; overflow: hidden;
  font-size: var(--digits); font-variant-numeric: tabular-nums;
  background: color-mix(in srgb, var(--st-text-color) calc(var(--s, 0) * 100%), var(--st-background-color)); }
table.loose td { box-shadow: inset 0 0 0 .5px color-mix(in srgb, var(--st-text-color) 14%, transparent); }
td.strong { color: var(--st-background-color); }
td.blank { cursor: default; background: repeating-linear-gradient(45deg, transparent 0 3px,
  color-mix(in srgb, var(--st-text-color) 9%, transparent) 3px 4px); }
td:hover, td:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: -2px; }
th { font-weight: 400; padding: 0; background: var(--st-background-color); z-index: 1; }
th.row { position: sticky; left: 0; text-align: right; padding-right: 6px; max-width: var(--name); overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; height: var(--cell); font-size: var(--names); }
th.column { position: sticky; top: 0; vertical-align: bottom; font-size: var(--names); padding-bottom: 4px; }
th.column span { display: block; max-height: var(--name); overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; margin: 0 auto; max-width: calc(var(--cell) - 2px); }
table.turned th.column span { writing-mode: vertical-rl; transform: rotate(180deg); max-width: none; }
th.corner { position: sticky; left: 0; top: 0; z-index: 2; }
th.lit { color: var(--st-primary-color); font-weight: 700; }
caption { text-align: left; padding: 0 0 6px; font-size: 12px; opacity: .75; }
.said { min-height: 2.9em; padding-top: 8px; font: 13px/1.4 var(--st-font); color: var(--st-text-color); }
"""

JS = """
const MOST = 54, LEAST = 11;

function draw(box, data) {
  const { classes, counts, totals, shades } = data, n = classes.length;
  const longest = Math.min(110, 7 * Math.max(...classes.map((name) => name.length)) + 10);
  const width = box.clientWidth - longest - 4;
  const cell = Math.max(LEAST, Math.min(MOST, Math.floor(width / n)));
  const table = document.createElement("table");
  const say = (i, j) => data.shares ? (100 * counts[i][j] / Math.max(totals[i], 1)).toFixed(1)
    : counts[i][j].toLocaleString("en");
  const widest = Math.max(...counts.flatMap((row, i) => row.map((count, j) =>
    count && !(data.mistakes && i === j) ? say(i, j).length : 1)));
  const digits = Math.min(13, cell - 2, Math.floor((cell - 3) / (0.6 * widest)));
  const turned = 6.2 * Math.max(...classes.map((name) => name.length)) > cell - 2;
  table.className = (n <= 20 ? "loose " : "") + (turned ? "turned" : "");
  table.style.setProperty("--cell", cell + "px");
  table.style.setProperty("--name", longest + "px");
  table.style.setProperty("--names", Math.min(12, Math.max(9, cell - 2)) + "px");
  // Too small to be read, a number is for screen readers alone.
  table.style.setProperty("--digits", (digits >= 8 ? digits : 0) + "px");
  table.setAttribute("role", "grid");
  table.setAttribute("aria-label", "confusion matrix");
  const caption = table.createCaption();
  caption.textContent = "Down: true class. Across: predicted class.";
  const head = table.insertRow();
  const corner = document.createElement("th");
  corner.className = "corner";
  corner.setAttribute("role", "presentation");
  head.append(corner);
  const label = (name, kind) => {
    const th = document.createElement("th"), text = document.createElement("span");
    th.scope = kind;
    th.className = kind === "col" ? "column" : "row";
    text.textContent = name;
    th.title = name;
    th.append(text);
    return th;
  };
  head.append(...classes.map((name) => label(name, "col")));
  counts.forEach((row, i) => {
    const line = document.createElement("tr");
    line.append(label(classes[i], "row"));
    row.forEach((count, j) => {
      const td = document.createElement("td"), shade = shades[i][j];
      if (data.mistakes && i === j) td.className = "blank";
      else {
        if (shade) td.style.setProperty("--s", shade / 100);
        if (shade > 50) td.className = "strong";
        if (count) td.textContent = say(i, j);
      }
      td.tabIndex = -1;
      line.append(td);
    });
    table.append(line);
  });
  box.replaceChildren(table);
  const first = table.rows[1]?.cells[1];
  if (first) first.tabIndex = 0;
}

export default function(component) {
  const { data, parentElement, setTriggerValue } = component;
  let box = parentElement.querySelector(".box");
  if (!box) {
    box = document.createElement("div");
    box.className = "box";
    const said = document.createElement("div");
    said.className = "said";
    said.setAttribute("aria-live", "polite");
    parentElement.append(box, said);
    const watch = new ResizeObserver(() => {
      if (!box.shown || Math.abs(box.clientWidth - box.drawnAt) <= 8) return;
      box.drawnAt = box.clientWidth;
      draw(box, box.shown);
    });
    watch.observe(box);
    const place = (event) => {
      const td = event.target.closest?.("td");
      return td && [td.parentElement.rowIndex - 1, td.cellIndex - 1, td];
    };
    const tell = (event) => {
      const at = place(event), data = box.shown;
      box.querySelectorAll("th.lit").forEach((th) => th.classList.remove("lit"));
      if (!at) { said.textContent = ""; return; }
      const [i, j, td] = at, count = data.counts[i][j], total = data.totals[i];
      td.parentElement.cells[0].classList.add("lit");
      box.querySelector("tr").cells[j + 1].classList.add("lit");
      const share = total ? " (" + (100 * count / total).toFixed(1) + "%)" : "";
      const of = count.toLocaleString("en") + " of " + total.toLocaleString("en") + " " + data.what + share;
      said.textContent = i === j ? data.classes[i] + " recognised: " + of
        : data.classes[i] + " taken for " + data.classes[j] + ": " + of;
    };
    box.addEventListener("mouseover", tell);
    box.addEventListener("focusin", tell);
    box.addEventListener("mouseleave", tell);
    const open = (event) => {
      const at = place(event);
      if (at && !at[2].classList.contains("blank"))
        box.trigger("cell", [box.shown.order[at[0]], box.shown.order[at[1]]]);
    };
    box.addEventListener("click", open);
    box.addEventListener("keydown", (event) => {
      const at = place(event);
      if (!at) return;
      if (event.key === "Enter" || event.key === " ") { open(event); event.preventDefault(); return; }
      const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
      if (!step) return;
      const next = at[2].closest("table").rows[at[0] + 1 + step[0]]?.cells[at[1] + 1 + step[1]];
      if (next && next.tagName === "TD") {
        at[2].tabIndex = -1;
        next.tabIndex = 0;
        next.focus();
      }
      event.preventDefault();
      event.stopPropagation();
    });
  }
  box.trigger = setTriggerValue;
  if (box.dataset.version === data.version) return;
  box.dataset.version = data.version;
  box.shown = data;
  box.drawnAt = box.clientWidth;
  draw(box, data);
}
"""

_component = st.components.v2.component("loupe_confusion_matrix", css=CSS, js=JS)


def confusion_grid(
    matrix: np.ndarray, classes: Sequence[str], *, mode: str, order: np.ndarray, what: str, key: str
) -> tuple[int, int] | None:
    """Show a confusion matrix; returns the true and the predicted class of the cell that was just clicked.

    mode: one of MODES: cells are counts, shares of their row in percent, or counts with the diagonal left blank and the
    shades of the mistakes spread over the whole scale. order: of the classes, as indices. what: is counted.
    """
    totals = matrix.sum(axis=1)
    shares = matrix / np.maximum(totals[:, None], 1)
    if mode == MISTAKES:
        np.fill_diagonal(shares, 0)
        shares /= max(shares.max(), 1e-9)
    # The diagonal would drown the mistakes: a root spreads the low end of the scale.
    shades = np.ceil(100 * np.sqrt(shares)).astype(int)
    data = {
        "classes": [classes[label] for label in order],
        "counts": matrix[np.ix_(order, order)].tolist(),
        "totals": totals[order].tolist(),
        "shades": shades[np.ix_(order, order)].tolist(),
        "order": order.tolist(),
        "shares": mode == SHARES,
        "mistakes": mode == MISTAKES,
        "what": what,
    }
    data["version"] = hashlib.sha256(repr(data).encode()).hexdigest()[:16]
    picked = _component(data=data, key=key, on_cell_change=lambda: None).cell
    return None if picked is None else (int(picked[0]), int(picked[1]))
