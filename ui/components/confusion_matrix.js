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
