// Tools on the canvas: mouse, finger and pen alike. A keyboard cursor stands in for a pointer.

import { post } from "./api.js";
import { state, subscribe, update } from "./state.js";
import { act, needObject, onObject, say, choose } from "./actions.js";
import { view, place, inside, idAt, zoom, pan, paint, toScreen } from "./view.js";

export const TOOLS = {
  click: ["Click (A): left on the object, right not on it", "left click: on the object · right click: not on it · drag: box"],
  box: ["Box (X): drag around the object", "drag a box around the object"],
  brush: ["Brush (D)", "drag to paint · [ ] changes the size · right button erases"],
  eraser: ["Eraser (E)", "drag to erase · [ ] changes the size"],
  polygon: ["Polygon (P)", "click the corners · Enter or double click closes · right click takes one back · Alt takes away"],
  lasso: ["Scissors lasso (L): holds on to edges", "click along the outline, the line holds on to edges · Enter closes · Alt takes away"],
  fill: ["Fill (G): a hole, or one color", "click into a hole or an area of one color"],
  move: ["Move (W)", "drag the object"],
  hand: ["Pan (H), also with Space or the middle button", "drag the picture · wheel zooms"],
};

const stage = document.getElementById("stage");
const canvas = document.getElementById("canvas");
const hint = document.getElementById("hint");
const ring = document.getElementById("cursor");

let gesture = null; // {kind, points, ...} while a button is down
let outline = []; // corners of a polygon or a lasso so far
let thread = null; // path of the scissors to the pointer
const pointers = new Map(); // of fingers, for two at once
export const cursor = { at: null, shown: false };

export function setTool(tool) {
  cancelOutline();
  update({ tool });
}

export function cancelOutline() {
  const had = outline.length > 0;
  outline = [];
  thread = null;
  paint();
  return had;
}

const round = ([x, y]) => [Math.round(x * 4) / 4, Math.round(y * 4) / 4];
const clamp = ([x, y]) => [Math.max(0, Math.min(state.video.width - 1, x)), Math.max(0, Math.min(state.video.height - 1, y))];

export async function click(at, positive) {
  if (!inside(at)) return;
  const frame = state.frame;
  const object = await needObject();
  if (object !== null) await act("add_points", { frame, object, points: [round(clamp(at))], labels: [positive ? 1 : 0] });
}

async function box([x0, y0], [x1, y1]) {
  const [left, top] = clamp([Math.min(x0, x1), Math.min(y0, y1)]);
  const [right, bottom] = clamp([Math.max(x0, x1), Math.max(y0, y1)]);
  if (right - left < 2 || bottom - top < 2) return;
  const frame = state.frame;
  const object = await needObject();
  if (object !== null) await act("add_points", { frame, object, box: [left, top, right, bottom].map((v) => Math.round(v)) });
}

async function stroke(path, erase) {
  const frame = state.frame;
  const object = await needObject();
  if (object !== null) await act("stroke", { frame, object, path: path.map(round), radius: state.radius, erase });
}

export async function closeOutline(subtract) {
  const points = outline.map((corner) => corner.path || [corner.at]).flat();
  cancelOutline();
  if (points.length < 3) return;
  const frame = state.frame;
  const object = await needObject();
  if (object !== null) await act("polygon", { frame, object, points: points.map(round), mode: subtract ? "subtract" : "add" });
}

async function addCorner(at) {
  if (state.tool === "lasso" && outline.length) {
    const start = outline.at(-1).at;
    const path = await scissors(start, at);
    outline.push({ at, path });
  } else outline.push({ at, path: null });
  thread = null;
  paint();
}

async function scissors(start, end) {
  try {
    return await post("scissors", { frame: state.frame, start: clamp(start), end: clamp(end) });
  } catch (error) {
    say(error.message, true);
    return [end];
  }
}

let asking = false;
async function followEdge(at) {
  if (asking || !outline.length || !inside(at)) return;
  asking = true;
  thread = await scissors(outline.at(-1).at, at);
  asking = false;
  if (!outline.length) thread = null;
  paint();
}

function begin(event) {
  stage.focus({ preventScroll: true });
  pointers.set(event.pointerId, event);
  canvas.setPointerCapture(event.pointerId);
  if (pointers.size === 2) return startPinch();
  const at = place(event);
  const right = event.button === 2 || event.button === 5; // 5: the eraser end of a pen
  if (event.button === 1 || state.tool === "hand" || view.spaceDown) gesture = { kind: "pan", event };
  else if (event.ctrlKey && idAt(at)) return choose(idAt(at));
  else if (state.tool === "click" || state.tool === "box") gesture = { kind: "click", from: at, at, right, screen: event };
  else if (state.tool === "brush" || state.tool === "eraser") gesture = { kind: "stroke", path: [at], erase: right || state.tool === "eraser" };
  else if (state.tool === "move") gesture = { kind: "move", from: at, at };
  else if (state.tool === "fill") fill(at);
  else if (right) { outline.pop(); paint(); }
  else if (event.detail > 1 && outline.length > 2) closeOutline(event.altKey);
  else addCorner(at);
  paint();
}

export async function fill(at) {
  if (!inside(at)) return;
  await needObject();
  const [x, y] = clamp(at);
  await onObject("fill", { x, y, tolerance: state.tolerance });
}

// Two fingers zoom and pan; what the first one began is given up.
function startPinch() {
  gesture = { kind: "pinch", ...twoFingers() };
  paint();
}

function twoFingers() {
  const [a, b] = [...pointers.values()];
  return { distance: Math.max(1, Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY)), x: (a.clientX + b.clientX) / 2, y: (a.clientY + b.clientY) / 2 };
}

function moved(event) {
  if (pointers.has(event.pointerId)) {
    const before = pointers.get(event.pointerId);
    pointers.set(event.pointerId, event);
    if (gesture?.kind === "pinch" && pointers.size === 2) pinch();
    else if (gesture?.kind === "pan") pan(event.clientX - before.clientX, event.clientY - before.clientY);
  }
  const at = place(event);
  cursor.at = at;
  cursor.shown = false;
  showRing(event);
  document.dispatchEvent(new CustomEvent("under", { detail: at }));
  if (gesture?.kind === "stroke") {
    const all = event.getCoalescedEvents?.() || [];
    gesture.path.push(...(all.length ? all : [event]).map(place));
  } else if (gesture && "at" in gesture) gesture.at = at;
  else if (state.tool === "lasso" && outline.length) followEdge(at);
  if (gesture || outline.length) paint();
}

function pinch() {
  const now = twoFingers();
  const frame = canvas.getBoundingClientRect();
  pan(now.x - gesture.x, now.y - gesture.y);
  zoom(now.distance / gesture.distance, now.x - frame.left, now.y - frame.top);
  gesture = { kind: "pinch", ...now };
}

async function ended(event) {
  pointers.delete(event.pointerId);
  const done = gesture;
  gesture = null;
  if (!done || event.type === "pointercancel") return paint();
  if (done.kind === "click") {
    const far = Math.hypot(event.clientX - done.screen.clientX, event.clientY - done.screen.clientY) > 6;
    if (far) await box(done.from, done.at);
    else if (state.tool === "click") await click(done.from, !done.right);
  } else if (done.kind === "stroke") await stroke(done.path, done.erase);
  else if (done.kind === "move") {
    const [dx, dy] = [Math.round(done.at[0] - done.from[0]), Math.round(done.at[1] - done.from[1])];
    if (dx || dy) await onObject("move", { dx, dy });
  }
  paint();
}

function showRing(event) {
  const brush = state.tool === "brush" || state.tool === "eraser";
  ring.style.display = brush ? "block" : "none";
  if (!brush) return;
  const frame = stage.getBoundingClientRect();
  const size = 2 * state.radius * view.scale;
  Object.assign(ring.style, { left: `${event.clientX - frame.left}px`, top: `${event.clientY - frame.top}px`, width: `${size}px`, height: `${size}px` });
}

// What is being drawn, until the server's answer shows the result.
view.draw = (context) => {
  context.lineWidth = 1.5;
  context.strokeStyle = "#fff";
  if (gesture?.kind === "click") {
    const [[x0, y0], [x1, y1]] = [toScreen(gesture.from), toScreen(gesture.at)];
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  } else if (gesture?.kind === "stroke") {
    context.beginPath();
    gesture.path.forEach((at) => context.lineTo(...toScreen(at)));
    Object.assign(context, { lineWidth: 2 * state.radius * view.scale, lineCap: "round", lineJoin: "round" });
    context.strokeStyle = gesture.erase ? "#0009" : "#fff9";
    context.lineTo(...toScreen(gesture.path.at(-1)));
    context.stroke();
  } else if (gesture?.kind === "move") {
    line(context, [gesture.from, gesture.at]);
  }
  if (outline.length) {
    line(context, [...outline.flatMap((corner) => corner.path || [corner.at]), ...(thread || (cursor.at ? [cursor.at] : []))]);
    for (const corner of outline) dot(context, toScreen(corner.at), 3);
  }
  if (cursor.shown && cursor.at) {
    const [x, y] = toScreen(cursor.at);
    line(context, [[cursor.at[0] - 12 / view.scale, cursor.at[1]], [cursor.at[0] + 12 / view.scale, cursor.at[1]]]);
    line(context, [[cursor.at[0], cursor.at[1] - 12 / view.scale], [cursor.at[0], cursor.at[1] + 12 / view.scale]]);
    dot(context, [x, y], 2);
  }
};

function line(context, points) {
  for (const [color, width] of [["#000a", 4], ["#fff", 1.8]]) {
    context.beginPath();
    points.forEach((at) => context.lineTo(...toScreen(at)));
    Object.assign(context, { strokeStyle: color, lineWidth: width, lineCap: "butt" });
    context.stroke();
  }
}

function dot(context, [x, y], radius) {
  context.beginPath();
  context.arc(x, y, radius, 0, 7);
  context.fillStyle = "#fff";
  context.fill();
}

// The keyboard's pointer: moved by arrows with Alt, it acts with Enter (on the object) and Backspace (not on it).
export function moveCursor(dx, dy) {
  const from = cursor.at && inside(cursor.at) ? cursor.at : [state.video.width / 2, state.video.height / 2];
  cursor.at = clamp([from[0] + dx, from[1] + dy]);
  cursor.shown = true;
  document.dispatchEvent(new CustomEvent("under", { detail: cursor.at }));
  paint();
}

let corner = null;
export async function actAtCursor(positive, subtract) {
  if (outline.length > 2 && !cursor.shown) return closeOutline(subtract);
  if (!cursor.at) return moveCursor(0, 0);
  if (state.tool === "click") return click(cursor.at, positive);
  if (state.tool === "brush" || state.tool === "eraser") return stroke([cursor.at], state.tool === "eraser" || !positive);
  if (state.tool === "fill") return fill(cursor.at);
  if (state.tool === "box") {
    if (!corner) { corner = cursor.at; return say("first corner; Enter at the other one"); }
    const first = corner;
    corner = null;
    return box(first, cursor.at);
  }
  if (state.tool === "polygon" || state.tool === "lasso") {
    const again = outline.length > 2 && Math.hypot(cursor.at[0] - outline.at(-1).at[0], cursor.at[1] - outline.at(-1).at[1]) < 1;
    return again ? closeOutline(subtract) : addCorner(cursor.at);
  }
}

export function outlined() {
  return outline.length > 0;
}

canvas.addEventListener("pointerdown", begin);
canvas.addEventListener("pointermove", moved);
canvas.addEventListener("pointerup", ended);
canvas.addEventListener("pointercancel", ended);
canvas.addEventListener("pointerleave", () => { ring.style.display = "none"; });
canvas.addEventListener("contextmenu", (event) => event.preventDefault());
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const frame = canvas.getBoundingClientRect();
  zoom(Math.exp(-event.deltaY / 400), event.clientX - frame.left, event.clientY - frame.top);
}, { passive: false });

subscribe((keys) => {
  if (keys.includes("tool")) {
    hint.textContent = TOOLS[state.tool][1];
    canvas.style.cursor = state.tool === "hand" ? "grab" : state.tool === "move" ? "move" : "crosshair";
  }
  if (keys.includes("frame")) cancelOutline();
});
