const KEYS = /Mac|iPhone|iPad/.test(navigator.platform) ? "Cmd+V" : "Ctrl+V";
const UNREADABLE = "The browser does not let this page read the clipboard. Press " + KEYS + " instead.";
const NO_PICTURE = "There is no picture in the clipboard. Copy one, then press this again.";

let count = 0;

// Browsers call whatever was copied from a page image.png.
const named = (file) => file.name && !/^image\.\w+$/.test(file.name) ? file
  : new File([file], "pasted-" + ++count + "." + file.type.split("/")[1], { type: file.type });

const isPicture = (thing) => thing.type.startsWith("image/");

function hand(files, uploader) {
  const input = document.querySelector(".st-key-" + CSS.escape(uploader) + " input[type=file]");
  const transfer = new DataTransfer();
  files.map(named).forEach((file) => transfer.items.add(file));
  input.files = transfer.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}

async function read() {
  let found;
  try {
    found = await navigator.clipboard.read();
  } catch {
    return [[], UNREADABLE];
  }
  const files = [];
  for (const item of found) {
    const type = item.types.find((type) => type.startsWith("image/"));
    if (type) files.push(new File([await item.getType(type)], "", { type }));
  }
  return [files, files.length ? "" : NO_PICTURE];
}

export default function(component) {
  const { data, parentElement } = component;
  let button = parentElement.querySelector("button");
  if (!button) {
    button = document.createElement("button");
    button.type = "button";
    button.textContent = "Paste a picture";
    const said = document.createElement("div");
    said.className = "said";
    said.setAttribute("role", "status");
    parentElement.append(button, said);
  }
  const said = parentElement.querySelector(".said");
  button.title = "Or press " + KEYS + " anywhere on the page";
  button.onclick = async () => {
    const [files, problem] = await read();
    said.textContent = problem;
    if (files.length) hand(files, data.uploader);
  };
  // Streamlit calls this again whenever the data changes, and may end an earlier call after a later one began.
  button.listening?.abort();
  const listening = button.listening = new AbortController();
  document.addEventListener("paste", (event) => {
    if (event.defaultPrevented) return;
    const [target] = event.composedPath();
    const isField = target.isContentEditable || target.matches?.("input, textarea");
    if (isField && event.clipboardData.getData("text/plain")) return;
    const files = Array.from(event.clipboardData.files).filter(isPicture);
    if (!files.length) return;
    event.preventDefault();
    said.textContent = "";
    hand(files, data.uploader);
  }, { signal: listening.signal });
  return () => listening.abort();
}
