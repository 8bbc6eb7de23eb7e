"use strict";
// Search and enlarging. Texts are set as text, never as markup; the page works without all of this.
const data = JSON.parse(document.getElementById("data").textContent);
const PAGE = 24, ABSTAIN = -1;
const at = (id) => document.getElementById(id);
const made = (tag, text, name) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
};
const classOf = (label) => (label === ABSTAIN ? "abstains" : data.classes[label] ?? String(label));
const number = (count) => count.toLocaleString("en");

// --- the large picture ----------------------------------------------------------------------------------------------
const show = (title, ...parts) => {
  at("large-title").textContent = title;
  at("large-body").replaceChildren(...parts);
  at("large").showModal();
};
at("large").addEventListener("click", (event) => { if (event.target === at("large")) at("large").close(); });
for (const card of document.querySelectorAll(".card")) {
  const pictures = card.querySelector(".pictures");
  if (!pictures) continue;
  const title = `${card.querySelector("h4").textContent}, ${card.closest("details").querySelector("summary").textContent}`;
  const open = () => {
    const copy = card.cloneNode(true);
    copy.querySelectorAll("h4, .enlarge").forEach((part) => part.remove());
    show(title, ...copy.childNodes);
  };
  const button = made("button", "Enlarge", "enlarge");
  button.type = "button";
  button.setAttribute("aria-label", `Enlarge ${title}`);
  button.addEventListener("click", open);
  pictures.addEventListener("click", open);
  card.append(button);
}

// --- the search -----------------------------------------------------------------------------------------------------
const places = new Map(data.rows.map((row, place) => [row, place]));
const tile = (row) => {
  const { url, columns, width, height } = data.sheet;
  const place = places.get(row), rows = Math.ceil(data.rows.length / columns);
  const element = made("span", undefined, "tile");
  const share = (i, of) => (of > 1 ? (100 * i) / (of - 1) : 0);
  element.style.backgroundImage = `url("${url}")`;
  element.style.backgroundSize = `${100 * columns}% ${100 * rows}%`;
  element.style.backgroundPosition = `${share(place % columns, columns)}% ${share(Math.floor(place / columns), rows)}%`;
  element.style.setProperty("--aspect", `${width} / ${height}`);
  element.setAttribute("role", "img");
  element.setAttribute("aria-label", `Image ${row[0]}, of class ${classOf(row[1])}`);
  return element;
};
const outcome = (row, level) => {
  if (!level) return "not certified";
  if (level[0] === ABSTAIN) return "○ abstains";
  return level[0] === row[1] ? `✓ radius ${level[1]}` : `✗ “${classOf(level[0])}”, radius ${level[1]}`;
};
const votes = (level) => {
  if (!level || level.length < 6) return "";
  const [, , n, own, rival, rivals] = level;
  return `: ${number(own)} of ${number(n)} votes` + (rivals ? `; most others “${classOf(rival)}”, ${number(rivals)}` : "");
};
const result = (row) => {
  const button = made("button", undefined, "result");
  button.type = "button";
  if (data.sheet) button.append(tile(row));
  button.append(made("b", `Image ${row[0]}: “${classOf(row[1])}”`));
  row[2].forEach((level, i) => button.append(made("span", `σ ${data.sigmas[i]} ${outcome(row, level)}`)));
  button.addEventListener("click", () => {
    const list = made("ul");
    row[2].forEach((level, i) => list.append(made("li", `σ ${data.sigmas[i]} ${outcome(row, level)}${votes(level)}`)));
    show(`Image ${row[0]}: “${classOf(row[1])}”`, ...(data.sheet ? [tile(row)] : []), list);
  });
  return button;
};
const failed = (row) => row[2].some((level) => level && level[0] !== row[1]);
let found = [], shown = 0;
const more = () => {
  at("results").append(...found.slice(shown, shown + PAGE).map(result));
  shown = Math.min(shown + PAGE, found.length);
  at("more").hidden = shown >= found.length;
};
const search = () => {
  const query = at("query").value.trim().toLowerCase(), only = at("which").value === "failed";
  const fits = (row) => !query || String(row[0]) === query || classOf(row[1]).toLowerCase() === query
    || (query.length > 1 && Number.isNaN(Number(query)) && classOf(row[1]).toLowerCase().includes(query));
  found = query || only ? data.rows.filter((row) => fits(row) && (!only || failed(row))) : [];
  shown = 0;
  at("results").replaceChildren();
  const beyond = data.left_out ? ` (the first ${number(data.rows.length)} of ${number(data.rows.length + data.left_out)})` : "";
  at("count").textContent = query || only ? `${number(found.length)} of ${number(data.rows.length)} images${beyond}` : "";
  more();
};
at("query").addEventListener("input", search);
at("which").addEventListener("change", search);
at("more").addEventListener("click", more);
at("search").hidden = false;
document.documentElement.classList.add("js");
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
