// Everything that can be done by a key or a button. Each returns a promise; what the server refuses is shown.

import { post, get, Refused } from "./api.js";
import { state, update, take, chosen, remember } from "./state.js";

const messages = document.getElementById("messages");

export function say(text, error = false) {
  const made = document.createElement("div");
  made.textContent = text;
  made.className = error ? "error" : "";
  messages.append(made);
  setTimeout(() => made.remove(), error ? 8000 : 3500);
}

// One gesture after the other, in the order in which they were made.
let queue = Promise.resolve();
export function act(path, body) {
  const mine = queue.then(async () => {
    document.body.dataset.busy = "yes";
    try {
      return take(await post(path, body));
    } catch (error) {
      say(error instanceof Refused ? error.message : `the server does not answer (${error.message})`, true);
      return null;
    } finally {
      document.body.dataset.busy = "";
    }
  });
  queue = mine;
  return mine;
}

export function goTo(frame) {
  if (!state.video || !Number.isFinite(frame)) return;
  const to = Math.max(0, Math.min(state.video.frames - 1, Math.round(frame)));
  if (to !== state.frame) update({ frame: to, follow: false });
}

export async function needObject() {
  if (state.object === null) await addObject();
  return state.object;
}

export async function addObject() {
  const answer = await act("add_object");
  if (answer) update({ object: answer.result });
}

export function choose(id) {
  if (state.objects.some((o) => o.id === id)) update({ object: id });
}

export async function chooseOrAdd(at) {
  if (at < state.objects.length) choose(state.objects[at].id);
  else await addObject();
}

export function changeObject(id, changes) {
  return act("change_object", { object: id, ...changes });
}

export async function onObject(path, more = {}) {
  const object = chosen();
  if (!object) return say("choose an object first", true);
  return act(path, { frame: state.frame, object: object.id, ...more });
}

export async function copyLast() {
  await needObject();
  const answer = await onObject("copy");
  if (answer) say(`taken from frame ${answer.result}`);
}

export function clearFrame(all) {
  return act("clear_points_in_frame", { frame: state.frame, object: all ? null : state.object });
}

export function propagate(direction, start = null, stop = null) {
  return act("propagate", { direction, frame: state.frame, start, stop });
}

// What was corrected is what one wants to see again once the frames around it have run by.
export function repair() {
  update({ comeBack: state.frame });
  return act("repair", { frame: state.frame });
}

// Not in the queue: it must come through while something else goes on.
export async function cancel() {
  take(await post("cancel_propagate"));
}

export async function undo() {
  const answer = await act("undo");
  if (answer) say(answer.undone ? `undone: ${answer.undone}` : "there is nothing to undo");
}

export async function redo() {
  const answer = await act("redo");
  if (answer) say(answer.redone ? `done again: ${answer.redone}` : "there is nothing to do again");
}

export async function review() {
  const [doubts, suggested] = await Promise.all([get("review?most=60"), get("suggest?k=5")]);
  update({ doubts, suggested });
}

export async function nextDoubt(step) {
  if (!state.doubts) await review();
  const frames = [...new Set(state.doubts.map((d) => d.frame))].sort((a, b) => a - b);
  const to = step > 0 ? frames.find((f) => f > state.frame) : frames.findLast((f) => f < state.frame);
  if (to === undefined) return say("no doubtful frame in that direction");
  const worst = state.doubts.find((d) => d.frame === to);
  choose(worst.id);
  goTo(to);
}

export function nextGiven(step) {
  const frames = Object.keys(state.given).map(Number).sort((a, b) => a - b);
  const to = step > 0 ? frames.find((f) => f > state.frame) : frames.findLast((f) => f < state.frame);
  if (to !== undefined) goTo(to);
}

export function setRadius(radius) {
  update({ radius: Math.max(1, Math.min(400, Math.round(radius))) });
  remember();
}

export function look(changes) {
  update(changes);
  document.documentElement.dataset.theme = state.theme;
  remember();
}

export function nextTheme() {
  const themes = ["dark", "light", "contrast"];
  const theme = themes[(themes.indexOf(state.theme) + 1) % themes.length];
  look({ theme, palette: theme === "contrast" ? "strong" : state.palette === "strong" ? "own" : state.palette });
}

export function nextPalette() {
  const palettes = ["own", "safe", "strong"];
  look({ palette: palettes[(palettes.indexOf(state.palette) + 1) % palettes.length] });
  say({ own: "each object's own color", safe: "colors for all kinds of color vision", strong: "high contrast" }[state.palette]);
}
