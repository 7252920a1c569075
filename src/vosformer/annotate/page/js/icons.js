// Line icons, drawn for this page: 16 x 16.

const PATHS = {
  click: "M8 2v4M8 10v4M2 8h4M10 8h4",
  box: "M2.5 3.5h11v9h-11z",
  brush: "M10 2l4 4-6 6H4V8zM4 12l-2 2",
  eraser: "M6 13l-4-4 7-7 5 5-6 6zM5 13h9",
  polygon: "M8 2l6 4-2 7H5L2 7z",
  lasso: "M8 3c4 0 6 1.500 6 4s-3 4-6 4-6-1.500-6-4 2-4 6-4zM5 11c-1 1-1 2 0 3",
  fill: "M7 2l6 6-5 5-5-5zM3 8h10M14 11c1 1.500 1 3 0 3s-1-1.500 0-3",
  move: "M8 1v14M1 8h14M6 3l2-2 2 2M6 13l2 2 2-2M3 6L1 8l2 2M13 6l2 2-2 2",
  hand: "M4 8V4M7 8V2M10 8V3M13 9V5M13 9c0 4-2 5-5 5S4 13 2 9",
  copy: "M5 5h9v9H5zM2 11V2h9",
  absent: "M8 2a6 6 0 100 12A6 6 0 008 2zM4 4l8 8",
  trash: "M3 4h10M6 4V2h4v2M4 4l1 10h6l1-10",
  undo: "M5 3L2 6l3 3M2 6h7a4 4 0 010 8H6",
  redo: "M11 3l3 3-3 3M14 6H7a4 4 0 000 8h3",
  forward: "M3 3l6 5-6 5zM12 3v10",
  backward: "M13 3L7 8l6 5zM4 3v10",
  both: "M6 4L2 8l4 4M10 4l4 4-4 4M2 8h12",
  range: "M3 3v10M13 3v10M5 8h6M9 6l2 2-2 2",
  repair: "M2 8h4M10 8h4M8 4l2 4-2 4-2-4zM4 6L2 8l2 2M12 6l2 2-2 2",
  stop: "M4 4h8v8H4z",
  plus: "M8 3v10M3 8h10",
  eye: "M1 8c2-3.500 4-5 7-5s5 1.500 7 5c-2 3.500-4 5-7 5s-5-1.500-7-5zM8 6a2 2 0 100 4 2 2 0 000-4z",
  hidden: "M1 8c2-3.500 4-5 7-5s5 1.500 7 5c-2 3.500-4 5-7 5s-5-1.500-7-5zM2 14L14 2",
  lock: "M4 7h8v7H4zM5.500 7V5a2.500 2.500 0 015 0v2",
  open: "M4 7h8v7H4zM5.500 7V4.500a2.500 2.500 0 015 0",
  first: "M12 3L6 8l6 5zM4 3v10",
  last: "M4 3l6 5-6 5zM12 3v10",
  previous: "M10 3L5 8l5 5",
  next: "M6 3l5 5-5 5",
  export: "M8 10V2M5 5l3-3 3 3M2 10v4h12v-4",
  import: "M8 2v8M5 7l3 3 3-3M2 10v4h12v-4",
  look: "M7 2a5 5 0 100 10A5 5 0 007 2zM11 11l4 4",
  help: "M5.500 6a2.500 2.500 0 114 2c-1 .700-1.500 1-1.500 2.200M8 13v.2",
  theme: "M8 2a6 6 0 100 12zM8 2a6 6 0 010 12",
  edit: "M11 2l3 3-8 8H3v-3z",
};

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

export function button(name, title, onClick, text = "") {
  const made = document.createElement("button");
  made.type = "button";
  made.title = title;
  made.setAttribute("aria-label", text || title);
  made.append(icon(name));
  if (text) made.append(text);
  made.addEventListener("click", onClick);
  return made;
}
