// Keys, as in Cutie and CVAT where they have one. The table is what `?` shows.

import { state } from "./state.js";
import * as do_ from "./actions.js";
import { fit, zoom, view } from "./view.js";
import { setTool, cancelOutline, closeOutline, moveCursor, actAtCursor, outlined } from "./tools.js";
import { showHelp, showExport, showImport, showRange, askTwo, editObject } from "./dialogs.js";

// keys, words, action; "shift+", "ctrl+", "alt+" before the key's name
export const KEYS = [
  ["Frames"],
  [["arrowright"], "next frame", () => do_.goTo(state.frame + 1)],
  [["arrowleft"], "frame before", () => do_.goTo(state.frame - 1)],
  [["shift+arrowright", "pagedown"], "10 frames on", () => do_.goTo(state.frame + 10)],
  [["shift+arrowleft", "pageup"], "10 frames back", () => do_.goTo(state.frame - 10)],
  [["home"], "first frame", () => do_.goTo(0)],
  [["end"], "last frame", () => do_.goTo(state.video.frames - 1)],
  [["k"], "next given frame", () => do_.nextGiven(1)],
  [["shift+k"], "given frame before", () => do_.nextGiven(-1)],
  [["t"], "next doubtful frame", () => do_.nextDoubt(1)],
  [["shift+t"], "doubtful frame before", () => do_.nextDoubt(-1)],
  [["v"], "find doubtful frames", () => do_.review()],
  ["Propagate"],
  [["f", " "], "forward from here", () => do_.propagate("forward")],
  [["b"], "backward from here", () => do_.propagate("backward")],
  [["shift+f"], "both ways, blended between given frames", () => do_.propagate("both")],
  [["shift+r"], "a range", () => showRange()],
  [["r"], "repair: only between the neighboring given frames", () => do_.repair()],
  [["escape"], "stop, or give up what is being drawn", () => cancelOutline() || do_.cancel()],
  ["Objects"],
  [["n"], "new object", () => do_.addObject()],
  [["1", "2", "3", "4", "5", "6", "7", "8", "9"], "choose object 1 to 9", (event) => do_.chooseOrAdd(Number(event.key) - 1)],
  [["tab"], "next object", () => stepObject(1)],
  [["shift+tab"], "object before", () => stepObject(-1)],
  [["f2"], "name, category, color", () => editObject()],
  [["i"], "show or hide", () => toggle("visible")],
  [["shift+l"], "lock or unlock", () => toggle("locked")],
  [["m"], "merge another object into this one", () => askTwo("merge")],
  [["s"], "swap identities from here on", () => askTwo("swap")],
  [["o"], "absent here", () => do_.onObject("absent")],
  [["shift+o"], "absent from here on", () => do_.onObject("absent_from")],
  [["shift+i"], "here again from this frame", () => do_.onObject("here_again")],
  [["shift+delete"], "remove the object", () => do_.act("remove_object", { object: state.object })],
  ["Masks"],
  [["a"], "click tool", () => setTool("click")],
  [["x"], "box", () => setTool("box")],
  [["d"], "brush", () => setTool("brush")],
  [["e"], "eraser", () => setTool("eraser")],
  [["p"], "polygon", () => setTool("polygon")],
  [["l"], "scissors lasso", () => setTool("lasso")],
  [["g"], "fill", () => setTool("fill")],
  [["w"], "move", () => setTool("move")],
  [["h"], "pan", () => setTool("hand")],
  [["["], "smaller brush", () => do_.setRadius(state.radius / 1.25 - 0.5)],
  [["]"], "larger brush", () => do_.setRadius(state.radius * 1.25 + 0.5)],
  [["c"], "copy the mask from the last frame that has one", () => do_.copyLast()],
  [["delete"], "clear the object on this frame", () => do_.clearFrame(false)],
  [["ctrl+delete"], "clear the frame", () => do_.clearFrame(true)],
  [["ctrl+z"], "undo", () => do_.undo()],
  [["ctrl+shift+z", "ctrl+y"], "redo", () => do_.redo()],
  ["Keyboard alone"],
  [["alt+arrowright"], "cursor right (with Shift: 1 pixel)", (e) => moveCursor(e.shiftKey ? 1 : 10, 0)],
  [["alt+arrowleft"], "cursor left", (e) => moveCursor(e.shiftKey ? -1 : -10, 0)],
  [["alt+arrowup"], "cursor up", (e) => moveCursor(0, e.shiftKey ? -1 : -10)],
  [["alt+arrowdown"], "cursor down", (e) => moveCursor(0, e.shiftKey ? 1 : 10)],
  [["enter"], "act at the cursor: on the object; close an outline", () => (outlined() ? closeOrAct(false) : actAtCursor(true))],
  [["backspace"], "not on the object", () => actAtCursor(false)],
  ["View"],
  [["+", "="], "zoom in", () => zoom(1.25)],
  [["-"], "zoom out", () => zoom(0.8)],
  [["0"], "whole frame", () => fit()],
  [["arrowup"], "masks more opaque", () => do_.look({ opacity: Math.min(1, state.opacity + 0.1) })],
  [["arrowdown"], "masks less opaque", () => do_.look({ opacity: Math.max(0, state.opacity - 0.1) })],
  [["u"], "outlines on or off", () => do_.look({ outline: !state.outline })],
  [["shift+c"], "palette: own colors, for color blindness, high contrast", () => do_.nextPalette()],
  [["shift+h"], "dark, light, high contrast", () => do_.nextTheme()],
  ["Files"],
  [["ctrl+e"], "export", () => showExport()],
  [["ctrl+i"], "import masks", () => showImport()],
  [["?"], "these keys", () => showHelp(KEYS)],
];

function closeOrAct(subtract) {
  return state.tool === "polygon" || state.tool === "lasso" ? closeOutline(subtract) : actAtCursor(true);
}

function stepObject(step) {
  const at = state.objects.findIndex((o) => o.id === state.object);
  if (state.objects.length) do_.choose(state.objects[(at + step + state.objects.length) % state.objects.length].id);
}

function toggle(what) {
  const object = state.objects.find((o) => o.id === state.object);
  if (object) do_.changeObject(object.id, { [what]: !object[what] });
}

const TABLE = new Map(KEYS.filter((row) => row.length > 1).flatMap(([keys, , action]) => keys.map((key) => [key, action])));

function nameOf(event) {
  let key = event.key.toLowerCase();
  const shifted = event.shiftKey && !["?", "+", "[", "]", "="].includes(key) && !event.altKey;
  return `${event.ctrlKey || event.metaKey ? "ctrl+" : ""}${event.altKey ? "alt+" : ""}${shifted ? "shift+" : ""}${key}`;
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=range]), select, textarea") || event.target.closest("dialog");
  if (typing || !state.video) return;
  const name = nameOf(event);
  // Tab goes through the page as everywhere, but for the stage, where it goes through the objects.
  if (name.endsWith("tab") && event.target.id !== "stage") return;
  if (["enter", " "].includes(name) && event.target.matches("button, summary")) return;
  if (name === " " && event.repeat) return event.preventDefault();
  const action = TABLE.get(name);
  if (!action) return;
  event.preventDefault();
  action(event);
});

document.addEventListener("keyup", () => { view.spaceDown = false; });
