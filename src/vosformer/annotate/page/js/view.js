// The canvas: the frame, the masks over it, zoom and pan. Positions are in pixels of the source.

import { state, subscribe, colorOf, hasMask } from "./state.js";

const canvas = document.getElementById("canvas");
const context = canvas.getContext("2d");
const FULL_HEIGHT = 1080; // frames above are shown smaller until somebody zooms in
const KEPT = 24;

export const view = { scale: 1, x: 0, y: 0, fitted: true, scores: {}, shown: -1, draw: null };

const pictures = new Map(); // frame and height -> promise of a bitmap
let masks = null; // {frame, version, width, height, ids}
let overlay = null; // canvas in the size of `masks`
let asked = 0;

function pixelHeight() {
  const { height } = state.video;
  return height > FULL_HEIGHT && view.scale * devicePixelRatio < 0.75 ? FULL_HEIGHT : null;
}

export function fit() {
  const box = canvas.getBoundingClientRect();
  const { width, height } = state.video;
  view.scale = Math.min(box.width / width, box.height / height) * 0.98;
  view.x = (box.width - width * view.scale) / 2;
  view.y = (box.height - height * view.scale) / 2;
  view.fitted = true;
  paint();
}

export function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
  const scale = Math.min(64, Math.max(0.02, view.scale * factor));
  view.x = x - ((x - view.x) * scale) / view.scale;
  view.y = y - ((y - view.y) * scale) / view.scale;
  view.scale = scale;
  view.fitted = false;
  load();
  paint();
}

export function pan(dx, dy) {
  view.x += dx;
  view.y += dy;
  view.fitted = false;
  paint();
}

// A pointer's place in pixels of the source: (0, 0) is the middle of the first pixel.
export function place(event) {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left - view.x) / view.scale - 0.5, (event.clientY - box.top - view.y) / view.scale - 0.5];
}

export function inside([x, y]) {
  return x >= -0.5 && y >= -0.5 && x < state.video.width - 0.5 && y < state.video.height - 0.5;
}

export function idAt([x, y]) {
  if (!masks || masks.frame !== state.frame || !inside([x, y])) return 0;
  const column = Math.floor(((x + 0.5) * masks.width) / state.video.width);
  const row = Math.floor(((y + 0.5) * masks.height) / state.video.height);
  return masks.ids[row * masks.width + column];
}

async function picture(frame, height) {
  const key = `${frame}/${height}`;
  const got = pictures.get(key) || fetch(`api/frames/${frame}.jpg${height ? `?h=${height}` : ""}`).then(async (r) => createImageBitmap(await r.blob()));
  // The one that was asked for last goes last; what is shown must not be closed, however long ago that was.
  pictures.delete(key);
  pictures.set(key, got);
  got.catch(() => pictures.delete(key));
  while (pictures.size > KEPT) {
    const [old, gone] = pictures.entries().next().value;
    pictures.delete(old);
    gone.then((bitmap) => bitmap !== view.bitmap && bitmap.close(), () => {});
  }
  return got;
}

async function readMasks(frame, height, version) {
  const response = await fetch(`api/masks/${frame}.png${height ? `?h=${height}` : ""}`);
  const scores = JSON.parse(response.headers.get("x-scores") || "{}");
  const bitmap = await createImageBitmap(await response.blob(), { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const surface = new OffscreenCanvas(bitmap.width, bitmap.height);
  const drawing = surface.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  drawing.drawImage(bitmap, 0, 0);
  const { data } = drawing.getImageData(0, 0, bitmap.width, bitmap.height);
  const ids = new Uint32Array(bitmap.width * bitmap.height);
  for (let at = 0, from = 0; at < ids.length; at++, from += 4) ids[at] = data[from] | (data[from + 1] << 8) | (data[from + 2] << 16);
  return { frame, version, height: bitmap.height, width: bitmap.width, ids, scores };
}

// Bring the picture and the masks of the current frame; of several calls only the last one shows.
export async function load(force = false) {
  if (!state.video) return;
  const mine = ++asked;
  const { frame, version } = state;
  const height = pixelHeight();
  const stale = force || !masks || masks.frame !== frame || masks.version !== version || masks.asked !== height;
  const [bitmap, read] = await Promise.all([
    picture(frame, height),
    stale ? (hasMask(frame) || force ? readMasks(frame, height, version) : null) : masks,
  ]);
  if (mine !== asked) return;
  masks = read || { frame, version, width: 1, height: 1, ids: new Uint32Array(1), scores: {} };
  masks.asked = height;
  Object.assign(view, { bitmap, scores: masks.scores, shown: frame });
  canvas.dataset.frame = frame;
  canvas.dataset.version = version;
  overlay = null;
  paint();
  for (const near of [frame + 1, frame - 1]) if (near >= 0 && near < state.video.frames) picture(near, height).catch(() => {});
}

function makeOverlay() {
  const { ids, width, height } = masks;
  const colors = new Map();
  for (const object of state.objects) {
    const rgb = parseInt(colorOf(object).slice(1), 16);
    if (object.visible) colors.set(object.id, [rgb >> 16, (rgb >> 8) & 255, rgb & 255, object.id === state.object]);
  }
  const made = new OffscreenCanvas(width, height);
  const drawing = made.getContext("2d");
  const image = drawing.createImageData(width, height);
  const { data } = image;
  const inner = Math.round(255 * state.opacity);
  const reach = Math.max(1, Math.round(height / 400));
  let last = 0;
  let color = null;
  for (let at = 0; at < ids.length; at++) {
    const id = ids[at];
    if (id === 0) continue;
    if (id !== last) [last, color] = [id, colors.get(id)];
    if (!color) continue;
    const edge = state.outline && (ids[at - reach] !== id || ids[at + reach] !== id || ids[at - reach * width] !== id || ids[at + reach * width] !== id);
    const to = 4 * at;
    data[to] = color[0];
    data[to + 1] = color[1];
    data[to + 2] = color[2];
    data[to + 3] = edge ? 255 : color[3] ? Math.min(255, inner * 1.15) : inner;
  }
  drawing.putImageData(image, 0, 0);
  return made;
}

export function paint() {
  const ratio = devicePixelRatio;
  const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  if (!view.bitmap) return;
  const [w, h] = [state.video.width * view.scale, state.video.height * view.scale];
  context.imageSmoothingEnabled = view.scale < 3;
  context.drawImage(view.bitmap, view.x, view.y, w, h);
  if (masks && masks.frame === view.shown) {
    overlay ||= makeOverlay();
    context.imageSmoothingEnabled = view.scale * (state.video.height / masks.height) < 1.5;
    context.drawImage(overlay, view.x, view.y, w, h);
  }
  drawPrompts();
  if (view.draw) view.draw(context, toScreen);
}

export function toScreen([x, y]) {
  return [view.x + (x + 0.5) * view.scale, view.y + (y + 0.5) * view.scale];
}

// The clicks and the box that the chosen object's mask comes from.
function drawPrompts() {
  const prompt = state.given[state.frame]?.prompts[state.object];
  if (!prompt || view.shown !== state.frame) return;
  if (prompt.box) {
    const [[x0, y0], [x1, y1]] = [toScreen(prompt.box.slice(0, 2)), toScreen(prompt.box.slice(2))];
    context.strokeStyle = "#fff";
    context.setLineDash([5, 4]);
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    context.setLineDash([]);
  }
  prompt.points.forEach((point, at) => {
    const [x, y] = toScreen(point);
    context.beginPath();
    context.arc(x, y, 5, 0, 7);
    context.fillStyle = prompt.labels[at] ? "#19c26b" : "#ff4339";
    context.fill();
    context.strokeStyle = "#fff";
    context.lineWidth = 1.5;
    context.stroke();
  });
}

subscribe((keys) => {
  if (!state.video) return;
  if (keys.some((key) => ["frame", "version", "spans"].includes(key))) load();
  if (keys.some((key) => ["objects", "object", "opacity", "outline", "palette"].includes(key))) {
    overlay = null;
    paint();
  }
});
new ResizeObserver(() => state.video && (view.fitted ? fit() : paint())).observe(canvas);
