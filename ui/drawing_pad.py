"""A sheet of paper to draw on, with mouse, finger or pen."""

import base64
import binascii

import streamlit as st

# A drawing takes about 10 kB; whatever is far beyond that did not come from the pad.
MOST = 1_000_000
FORM = "data:image/png;base64,"

CSS = """
.pad { width: min(280px, 100%); }
.paper { position: relative; border: 1px solid var(--st-border-color); border-radius: var(--st-base-radius);
  overflow: hidden; background: #fff; }
.paper:has(:focus-visible) { outline: 2px solid var(--st-primary-color); outline-offset: 2px; }
.empty .paper::after { content: "Draw here"; position: absolute; inset: 0; display: grid; place-items: center;
  color: #767676; font: 16px var(--st-font); pointer-events: none; }
canvas { display: block; width: 100%; aspect-ratio: 1; outline: none; cursor: crosshair; touch-action: none;
  user-select: none; -webkit-user-select: none; }
.buttons { display: flex; gap: 8px; margin-top: 8px; }
button { flex: 1; min-height: 40px; border: 1px solid var(--st-border-color); border-radius: var(--st-button-radius);
  background: var(--st-background-color); color: var(--st-text-color); font: 14px var(--st-font); cursor: pointer; }
button:hover, button:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 1px; }
.empty button { opacity: .5; cursor: default; }
.empty button:not(:focus-visible) { outline: none; }
"""

JS = """
// The side of the picture that is sent, in pixels, on whatever screen it was drawn.
const SIDE = 280;
// A 4 is drawn in two strokes, and is meant to be sent once.
const PAUSE = 300;

// Kept as long as the window: a sheet that is taken off the page and put back is as it was left.
const sheets = new Map();

function paint(canvas, strokes, side) {
  const pen = canvas.getContext("2d", { alpha: false });
  if (canvas.width !== side) canvas.width = canvas.height = side;
  pen.setTransform(side, 0, 0, side, 0, 0);
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, 1, 1);
  pen.fillStyle = "#000";
  pen.lineCap = pen.lineJoin = "round";
  for (const { thickness, points } of strokes) {
    pen.lineWidth = thickness;
    // A line without length would leave nothing, and a tap is to leave a dot.
    pen.beginPath();
    pen.arc(...points[0], thickness / 2, 0, 2 * Math.PI);
    pen.fill();
    pen.beginPath();
    pen.moveTo(...points[0]);
    // Curves from middle to middle, bent by the points: without corners, however far apart these are.
    points.forEach(([x, y], number) => {
      const [u, v] = points[number + 1] ?? [x, y];
      pen.quadraticCurveTo(x, y, (x + u) / 2, (y + v) / 2);
    });
    pen.stroke();
  }
}

function encode(strokes) {
  if (!strokes.length) return null;
  const canvas = document.createElement("canvas");
  paint(canvas, strokes, SIDE);
  return canvas.toDataURL("image/png");
}

function lay(pad, sheet) {
  pad.innerHTML = `
    <div class="paper"><canvas tabindex="0" role="img" aria-keyshortcuts="Control+Z Meta+Z"></canvas></div>
    <div class="buttons"><button type="button">Undo</button><button type="button">Clear</button></div>`;
  const canvas = pad.querySelector("canvas"), [undo, clear] = pad.querySelectorAll("button");
  const show = () => {
    const { length } = sheet.strokes, drawn = length === 1 ? "1 stroke" : length + " strokes";
    pad.classList.toggle("empty", !length);
    canvas.setAttribute("aria-label", "Sheet to draw on: " + (length ? drawn : "empty"));
    // Not disabled: the focus would be lost.
    for (const button of [undo, clear]) button.setAttribute("aria-disabled", String(!length));
    const side = Math.round(canvas.clientWidth * devicePixelRatio);
    if (side) paint(canvas, sheet.strokes, side);
  };
  const soon = () => {
    clearTimeout(sheet.timer);
    sheet.timer = setTimeout(() => sheet.send("drawing", encode(sheet.strokes)), PAUSE);
  };
  const keep = (count) => {
    if (stroke || sheet.strokes.length === count) return;
    sheet.strokes.length = count;
    show();
    soon();
  };
  const back = () => keep(Math.max(0, sheet.strokes.length - 1));
  let stroke = null, pointer, frame;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  canvas.onpointerdown = (event) => {
    if (stroke || event.button) return;
    clearTimeout(sheet.timer);
    pointer = event.pointerId;
    canvas.setPointerCapture(pointer);
    stroke = { thickness: sheet.thickness, points: [place(event)] };
    sheet.strokes.push(stroke);
    show();
  };
  canvas.onpointermove = (event) => {
    if (!stroke || event.pointerId !== pointer) return;
    const between = event.getCoalescedEvents?.() ?? [];
    stroke.points.push(...(between.length ? between : [event]).map(place));
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(show);
  };
  canvas.onlostpointercapture = (event) => {
    if (!stroke || event.pointerId !== pointer) return;
    stroke = null;
    soon();
  };
  // A finger that rests would open a menu, which ends the stroke.
  canvas.oncontextmenu = (event) => { if (stroke) event.preventDefault(); };
  undo.onclick = back;
  clear.onclick = () => keep(0);
  pad.onkeydown = (event) => {
    if (event.key.toLowerCase() !== "z" || !(event.ctrlKey || event.metaKey) || event.shiftKey) return;
    event.preventDefault();
    event.stopPropagation();
    back();
  };
  new ResizeObserver(show).observe(canvas);
  return soon;
}

export default function(component) {
  const { data, parentElement, setStateValue } = component;
  if (!sheets.has(data.key)) sheets.set(data.key, { strokes: [] });
  const sheet = sheets.get(data.key);
  sheet.send = setStateValue;
  sheet.thickness = data.thickness;
  if (parentElement.querySelector(".pad")) return;
  const pad = document.createElement("div");
  pad.className = "pad empty";
  parentElement.append(pad);
  const soon = lay(pad, sheet);
  if (data.held !== sheet.strokes.length > 0) soon();
}
"""

_component = st.components.v2.component("loupe_drawing_pad", css=CSS, js=JS)


def drawing_pad(key: str, thickness: float) -> bytes | None:
    """Show a sheet to draw on; returns the drawing as a PNG, black on white, or None while nothing is drawn.

    thickness: of the stroke, in parts of the sheet's side.
    """
    held = png_of(st.session_state.get(key, {}).get("drawing")) is not None
    data = {"key": key, "thickness": thickness, "held": held}
    return png_of(_component(data=data, key=key, on_drawing_change=lambda: None).drawing)


def png_of(value: object) -> bytes | None:
    """Return the PNG that a browser sent as a data URL, or None where it sent anything else."""
    if not isinstance(value, str) or len(value) > MOST or not value.startswith(FORM):
        return None
    try:
        content = base64.b64decode(value.removeprefix(FORM), validate=True)
    except binascii.Error:
        return None
    return content if content.startswith(b"\x89PNG\r\n\x1a\n") else None
