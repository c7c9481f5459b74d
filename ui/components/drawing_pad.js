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
