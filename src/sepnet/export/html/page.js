/* The page: a picture in, classes out, and the receptive field of the layer that is chosen. */
"use strict";

const byId = (id) => document.getElementById(id);
const network = JSON.parse(byId("description").textContent);
const fields = JSON.parse(byId("fields").textContent);
const logits = openNetwork(network);
const { shape } = network.values[0];
const [height, width, channels] = shape;
const view = byId("view"), video = byId("video");
const SHOWN_CLASSES = 10;
const LEAST_WIDTH = 640; // of the view, in its own pixels: lines over small images are thin and smooth

let pixels = null; // what the network sees: (height, width, channels)
let loads = 0; // pictures asked for, of which only the last is shown
let stream = null; // the camera's, while it is on
let layer = null; // of `fields`
let unit = [0, 0]; // row and column among the layer's units

/* ---- From a file, a frame or a pasted picture to pixels ---- */

/* An opaque canvas in main memory, in sRGB: what is drawn there unscaled comes back as it was. */
function opaqueCanvas(width, height) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d", { alpha: false, colorSpace: "srgb", willReadFrequently: true });
  context.imageSmoothingEnabled = false;
  return context;
}

async function read(source) {
  // Colour profiles are not applied and alpha is not multiplied in: Pillow, which read the training images, does neither.
  const bitmap = await createImageBitmap(source, {
    imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none",
  });
  const part = opaqueCanvas(bitmap.width, Math.min(bitmap.height, ROWS_AT_ONCE));
  const readRows = (left, top, width, height) => {
    part.fillStyle = "white";
    part.fillRect(0, 0, width, height);
    part.drawImage(bitmap, left, top, width, height, 0, 0, width, height);
    return part.getImageData(0, 0, width, height).data;
  };
  try {
    return fitPicture(bitmap, readRows, shape);
  } finally {
    bitmap.close();
  }
}

async function load(source, name) {
  const number = ++loads;
  say("");
  try {
    const found = await read(source);
    if (number !== loads) return;
    pixels = found;
    draw();
    classify();
  } catch {
    if (number === loads) say(`${name} is not a picture that this browser can read: try a PNG or JPEG file.`);
  }
}

/* Shows the first picture among files that were dropped, pasted or chosen. */
function loadFirst(files, otherwise) {
  stopCamera();
  if (files !== byId("file").files) byId("file").value = "";
  const file = [...files].find(({ type }) => type.startsWith("image/")) ?? files[0];
  if (file) load(file, `“${file.name}”`);
  else say(otherwise);
}

function say(text) {
  byId("message").textContent = text;
}

/* ---- The camera ---- */

async function startCamera() {
  say("");
  if (!navigator.mediaDevices?.getUserMedia) {
    say("There is no camera for this page: the browser gives one only to pages opened as a file or over https.");
    return;
  }
  byId("camera").disabled = true;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    if (document.hidden) return stopCamera();
    video.srcObject = stream;
    byId("live").hidden = false;
    await video.play();
    byId("take").focus();
  } catch (error) {
    stopCamera();
    const reasons = {
      NotFoundError: "No camera was found: choose a file instead.",
      NotAllowedError: "The camera is not allowed for this page: allow it in the browser's settings, or choose a file.",
    };
    say(reasons[error.name] ?? "The camera cannot be used, perhaps since another program has it: choose a file instead.");
  } finally {
    byId("camera").disabled = false;
  }
}

function stopCamera() {
  const hadFocus = byId("live").contains(document.activeElement);
  stream?.getTracks().forEach((track) => track.stop());
  stream = video.srcObject = null;
  byId("live").hidden = true;
  if (hadFocus) byId("camera").focus();
}

async function takePicture() {
  await load(video, "What the camera gives");
  stopCamera();
}

/* ---- Classes ---- */

/* Probabilities by softmax of the scores as real numbers. */
function probabilities(scores) {
  const real = [...scores].map((score) => (score - network.zero) * network.scale);
  const largest = Math.max(...real);
  const powers = real.map((x) => Math.exp(x - largest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

function classify() {
  const shares = probabilities(logits(pixels));
  const order = shares.map((_, place) => place).sort((a, b) => shares[b] - shares[a]);
  const percent = (place) => `${(100 * shares[place]).toFixed(1)} %`;
  byId("answer").textContent = `${network.classes[order[0]]}, ${percent(order[0])}`;
  byId("scores").replaceChildren(...order.slice(0, SHOWN_CLASSES).map((place) => {
    const item = document.createElement("li");
    item.style.setProperty("--share", `${100 * shares[place]}%`);
    for (const text of [network.classes[place], percent(place)])
      item.append(Object.assign(document.createElement("span"), { textContent: text }));
    return item;
  }));
}

/* ---- The picture and the receptive field over it ---- */

const zoom = Math.ceil(LEAST_WIDTH / width);
view.width = width * zoom;
view.height = height * zoom;

function draw() {
  const context = view.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.clearRect(0, 0, view.width, view.height);
  if (pixels) {
    const rgba = new ImageData(width, height);
    for (let i = 0; i < width * height; i++)
      for (let c = 0; c < 4; c++) rgba.data[4 * i + c] = c === 3 ? 255 : pixels[i * channels + Math.min(c, channels - 1)];
    const image = opaqueCanvas(width, height);
    image.putImageData(rgba, 0, 0);
    context.drawImage(image.canvas, 0, 0, view.width, view.height);
  }
  if (layer) drawField(context);
}

/* Darkens what the unit does not see, and frames what it does; a frame outside the picture is drawn at its edge. */
function drawField(context) {
  const [[top, bottom], [left, right]] = [0, 1].map((axis) => {
    const [low, high] = seen(axis), end = [height, width][axis];
    return [Math.min(Math.max(low, 0), end) * zoom, Math.min(Math.max(high + 1, 0), end) * zoom];
  });
  const outside = new Path2D();
  outside.rect(0, 0, view.width, view.height);
  outside.rect(left, top, right - left, bottom - top);
  context.fillStyle = "rgb(0 0 0 / 55%)";
  context.fill(outside, "evenodd");
  const line = view.width / 160;
  for (const [colour, inset] of [["black", line / 2], ["white", line * 1.5]]) {
    context.strokeStyle = colour;
    context.lineWidth = line;
    context.strokeRect(left + inset, top + inset, right - left - 2 * inset, bottom - top - 2 * inset);
  }
}

/* The first and last row (axis 0) or column (axis 1) of the picture that the unit sees; they may lie outside. */
function seen(axis) {
  const low = layer.start[axis] + layer.jump[axis] * unit[axis];
  return [low, low + layer.size[axis] - 1];
}

function moveTo(wanted) {
  unit = wanted.map((place, axis) => Math.min(Math.max(place, 0), layer.units[axis] - 1));
  draw();
  const [rows, columns] = [seen(0), seen(1)];
  const beyond = rows[0] < 0 || columns[0] < 0 || rows[1] >= height || columns[1] >= width;
  const all = rows[0] <= 0 && columns[0] <= 0 && rows[1] >= height - 1 && columns[1] >= width - 1;
  const where = `The unit at row ${unit[0]}, column ${unit[1]} of ${layer.units.join("×")}`;
  const extent = `${layer.size.join("×")} pixels: rows ${rows.join(" to ")}, columns ${columns.join(" to ")}`;
  const note = all ? ", all of the picture" : beyond ? ", partly outside the picture" : "";
  byId("field").textContent = `${where} sees ${extent}${note}.`;
}

function chooseLayer(value) {
  layer = value === "" ? null : fields[Number(value)];
  if (layer) return moveTo(layer.units.map((count) => count >> 1));
  byId("field").textContent = "No layer is chosen.";
  draw();
}

/* Moves to the unit whose field is centred nearest to the pointer. */
function point(event) {
  if (!layer) return;
  const bounds = view.getBoundingClientRect();
  const place = [
    ((event.clientY - bounds.top) / bounds.height) * height,
    ((event.clientX - bounds.left) / bounds.width) * width,
  ];
  moveTo(place.map((pixel, axis) => {
    const centre = pixel - layer.start[axis] - layer.size[axis] / 2;
    return layer.jump[axis] === 0 ? 0 : Math.round(centre / layer.jump[axis]);
  }));
}

/* ---- What the user does ---- */

byId("file").addEventListener("change", ({ target }) => target.files.length && loadFirst(target.files));
byId("camera").addEventListener("click", startCamera);
byId("take").addEventListener("click", takePicture);
byId("stop").addEventListener("click", stopCamera);
for (const event of ["visibilitychange", "pagehide"])
  addEventListener(event, () => document.hidden && stopCamera(), true);

addEventListener("paste", ({ clipboardData }) =>
  loadFirst(clipboardData.files, "There is no picture in the clipboard: copy one first."));
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", () => document.body.classList.remove("dropping"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  loadFirst(event.dataTransfer.files, "That is not a picture's file: save the picture first, then drop its file.");
});

for (const input of document.getElementsByName("layer"))
  input.addEventListener("change", () => chooseLayer(input.value));
view.addEventListener("pointerdown", point);
view.addEventListener("pointermove", (event) => event.buttons && point(event));
view.addEventListener("keydown", (event) => {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (!step || !layer) return;
  event.preventDefault();
  moveTo(unit.map((place, axis) => place + step[axis]));
});

/* For tests, and for other scripts of a copy of this page. */
window.sepnet = Object.freeze({ logits, read, probabilities });
draw();
