// The list of objects, and of doubtful frames.

import { state, subscribe, colorOf } from "./state.js";
import { icon, button } from "./icons.js";
import { addObject, choose, changeObject, onObject, act, copyLast, review, goTo } from "./actions.js";
import { askTwo, editObject } from "./dialogs.js";

const list = document.getElementById("objects");
const doubts = document.getElementById("doubts");

document.getElementById("add-object").append(icon("plus"));
document.getElementById("add-object").onclick = addObject;
document.getElementById("refresh-review").append(icon("look"));
document.getElementById("refresh-review").onclick = review;

document.getElementById("object-actions").append(
  button("edit", "Name, category, color (F2)", () => editObject()),
  button("copy", "Copy from the last frame that has a mask (C)", copyLast),
  button("absent", "Absent here (O)", () => onObject("absent"), "absent here"),
  button("absent", "Absent from here on (Shift+O)", () => onObject("absent_from"), "absent from here"),
  button("eye", "Here again from this frame (Shift+I)", () => onObject("here_again"), "here again"),
  button("both", "Merge another object into this one (M)", () => askTwo("merge"), "merge"),
  button("range", "Swap identities from here on (S)", () => askTwo("swap"), "swap"),
  button("trash", "Remove the object and its masks (Shift+Del)", () => state.object !== null && act("remove_object", { object: state.object })),
);

function entry(object) {
  const made = document.createElement("li");
  made.setAttribute("role", "option");
  made.setAttribute("aria-selected", object.id === state.object);
  made.className = object.id === state.object ? "on" : "";
  made.dataset.id = object.id;
  const color = Object.assign(document.createElement("input"), { type: "color", value: colorOf(object), title: "Color" });
  color.onchange = () => changeObject(object.id, { color: color.value });
  const id = Object.assign(document.createElement("span"), { className: "id", textContent: object.id });
  const name = Object.assign(document.createElement("span"), { className: "name", textContent: object.name });
  name.append(Object.assign(document.createElement("span"), { className: "category", textContent: object.category }));
  made.append(id, color, name,
    button(object.visible ? "eye" : "hidden", object.visible ? "Hide (I)" : "Show (I)", () => changeObject(object.id, { visible: !object.visible })),
    button(object.locked ? "lock" : "open", object.locked ? "Unlock (Shift+L)" : "Lock (Shift+L)", () => changeObject(object.id, { locked: !object.locked })));
  made.onclick = (event) => event.target.closest("button, input") || choose(object.id);
  made.ondblclick = () => editObject(object);
  return made;
}

function showObjects() {
  list.replaceChildren(...state.objects.map(entry));
  list.querySelector(".on")?.scrollIntoView({ block: "nearest" });
}

function showDoubts() {
  if (!state.doubts) return doubts.replaceChildren(note("press V after propagating"));
  if (!state.doubts.length) return doubts.replaceChildren(note("nothing stands out; that proves nothing: a mask can follow a look-alike without a sign"));
  const rows = state.doubts.map((doubt) => {
    const object = state.objects.find((o) => o.id === doubt.id);
    const made = button("look", `frame ${doubt.frame}: ${doubt.reason}`, () => { choose(doubt.id); goTo(doubt.frame); });
    const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
    swatch.style.background = object ? colorOf(object) : "#888";
    const advised = state.suggested?.includes(doubt.frame) ? "★ " : "";
    made.replaceChildren(swatch,
      Object.assign(document.createElement("span"), { className: "n", textContent: doubt.frame }),
      Object.assign(document.createElement("span"), { className: "why", textContent: advised + doubt.reason }));
    const row = document.createElement("li");
    row.append(made);
    return row;
  });
  doubts.replaceChildren(...rows);
}

function note(text) {
  return Object.assign(document.createElement("li"), { className: "empty", textContent: text });
}

subscribe((keys) => {
  if (keys.some((key) => ["objects", "object", "palette"].includes(key))) showObjects();
  if (keys.some((key) => ["doubts", "objects", "palette"].includes(key))) showDoubts();
});
