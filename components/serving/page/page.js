"use strict";

const $ = (id) => document.getElementById(id);
const COPIES = 8, CLASSES = 10, TOKEN = "token";
let card, picture, radius, answer, asking;

function state(name) {
  document.body.dataset.state = name;
}

function make(tag, text = "", attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

const down = (value, decimals) => (Math.floor(value * 10 ** decimals + 1e-9) / 10 ** decimals).toFixed(decimals);
const percent = (value) => `${(100 * value).toFixed(1)} %`;
const whole = (value) => value.toLocaleString("en");

// --- talking to the service ------------------------------------------------------------------------------------

async function call(path, options = {}) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The service does not answer: is it still running?");
  }
  if (response.ok) return response.json();
  const { message } = await response.json().catch(() => ({ message: `status ${response.status}` }));
  if (response.status === 401) askForToken(token ? "That is not the token." : "");
  throw new Error(message);
}

function askForToken(hint) {
  $("token").hidden = false;
  $("token-hint").textContent = hint;
  $("desk").hidden = true;
  $("token-text").focus();
  state("token");
}

async function start() {
  try {
    await showCard();
    showExamples(await call("/examples"));
  } catch (error) {
    if (document.body.dataset.state !== "token") refuse(error);
    return;
  }
  $("token").hidden = true;
  $("desk").hidden = false;
  clearDrawing();
  state("empty");
}

async function certify(only = null) {
  asking?.abort();
  const mine = (asking = new AbortController());
  const n = $("samples").value;
  const query = new URLSearchParams({ n, show: COPIES, ...(only === null ? {} : { radius: only }) });
  state("working");
  if (matchMedia("(max-width: 48rem)").matches) $("result").scrollIntoView();
  $("refusal").textContent = $("claim").textContent = "";
  $("verdict").textContent = `Certifying with ${only === null ? "" : "up to "}${whole(Number(n))} noisy copies …`;
  $("again").disabled = $("ask-radius").disabled = true;
  try {
    const options = { method: "POST", body: picture, headers: { "Content-Type": picture.type }, signal: mine.signal };
    answer = await call(`/invocations?${query}`, options);
    if (answer.version !== card.version || answer.model !== card.model) await showCard();
    showAnswer();
    state("answered");
  } catch (error) {
    if (error.name === "AbortError") return;
    if (document.body.dataset.state !== "token") refuse(error);
  } finally {
    if (asking === mine) $("again").disabled = $("ask-radius").disabled = false;
  }
}

function refuse(error) {
  $("desk").hidden = false;
  $("answer").hidden = true;
  $("verdict").textContent = "No certificate.";
  $("refusal").textContent = error.message;
  state("refused");
}

// --- the certificate -------------------------------------------------------------------------------------------

function showAnswer() {
  const [given] = answer.predictions, asked = answer.params.radius, sure = Math.max(0, 1 - answer.params.failure_prob);
  $("answer").hidden = false;
  if (given.abstain) {
    $("verdict").textContent = asked === null ? "Abstains: nothing is claimed" : `Not certified within ${asked}`;
    $("claim").textContent = asked === null
      ? "No class wins clearly enough under the noise. More copies may settle it."
      : `${whole(given.n)} copies do not prove that the class is the same within that radius.`;
  } else {
    $("verdict").textContent = `Class ${given.class_name}, certified within L2 radius ${down(given.radius, 3)}`;
    $("claim").textContent = `Every image nearer than that to the one below gets the class ${given.class_name}: ` +
      `true with probability ${sure} at least, over the noise that was drawn.`;
  }
  $("seen").src = answer.shown.image;
  $("seen").alt = `The image that is certified, ${card.image_shape[2]} by ${card.image_shape[1]} pixels`;
  $("resized").textContent = given.resized;
  const facts = [
    ["p of the class", `at least ${down(given.p_lower, 4)}`],
    ["p of any other", `at most ${(Math.ceil(given.p_upper * 1e4 - 1e-9) / 1e4).toFixed(4)}`],
    ["Copies counted", `${whole(given.n)}${asked === null ? "" : ` of at most ${whole(answer.params.n)}`}`],
    ["Question", asked === null ? "the largest radius" : `the radius ${asked} only`],
    ["Time", `${answer.seconds.toFixed(2)} s`],
    ["Answered by", `${answer.model} version ${answer.version}`],
  ];
  list($("figures"), facts);
  showVotes(given);
  $("copies").replaceChildren(...answer.shown.copies.map((copy) => {
    const item = make("li"), name = copy.class_name || "lost";
    item.append(make("img", "", { src: copy.image, alt: "Noisy copy" }), make("span", `→ ${name}`));
    return item;
  }));
  setUpRadius();
}

function list(element, facts) {
  element.replaceChildren(...facts.flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
}

function bar(share) {
  const cell = make("td"), filled = make("div", "", { class: "bar", "aria-hidden": "true" });
  filled.style.width = `${100 * share}%`;
  cell.append(filled);
  return cell;
}

function showVotes(given) {
  const total = given.n, votes = answer.shown.votes;
  const most = votes.length <= CLASSES ? votes : [...votes].sort((a, b) => b.count - a.count).slice(0, CLASSES);
  const counted = most.map((vote) => [vote.class_name, vote.count]);
  const rest = votes.reduce((sum, vote) => sum + vote.count, 0) - most.reduce((sum, vote) => sum + vote.count, 0);
  if (votes.length > most.length) counted.push([`${votes.length - most.length} other classes`, rest]);
  $("votes").tBodies[0].replaceChildren(...counted.map(([name, count]) => {
    const row = make("tr"), answered = !given.abstain && name === given.class_name;
    if (answered) row.className = "answer";
    const head = make("th", name, { scope: "row" });
    if (answered) head.append(" ", make("span", "answer", { class: "chip" }));
    row.append(head, bar(count / total));
    row.append(make("td", whole(count), { class: "number" }), make("td", percent(count / total), { class: "number" }));
    return row;
  }));
}

// --- the slider of radii ---------------------------------------------------------------------------------------

const step = () => card.sigma / 10;
const sampled = () => card.samples.find((choice) => choice.n === answer.params.n) ?? card.samples[0];

function setUpRadius() {
  const slider = $("radius"), most = sampled().largest_radius;
  slider.step = 1;
  slider.max = Math.floor(most / step());
  if (radius === undefined) radius = 5;
  slider.value = Math.min(radius, slider.max);
  $("ticks").replaceChildren(...Array.from({ length: Number(slider.max) / 5 + 1 }, (_, i) => make("option", "", { value: 5 * i })));
  $("largest").textContent = `${down(most, 2)}: all that ${whole(answer.params.n)} copies can prove`;
  $("proven").style.width = `${Math.min(100, 100 * answer.predictions[0].radius / (step() * slider.max))}%`;
  showRadius();
}

const chosen = () => Number((Number($("radius").value) * step()).toFixed(6));

function showRadius() {
  const r = chosen(), [given] = answer.predictions, asked = answer.params.radius;
  radius = Number($("radius").value);
  const certified = !given.abstain && r <= given.radius;
  const open = asked !== null && r !== asked && !certified;
  $("radius-text").textContent = `r = ${r}`;
  $("radius").setAttribute("aria-valuetext", `radius ${r}`);
  $("within").textContent = certified ? "✓ Certified" : open ? "? Not asked" : "✗ Not certified";
  $("within").className = certified ? "yes" : open ? "" : "no";
  const values = card.image_shape.reduce((a, b) => a * b), each = r / Math.sqrt(values);
  $("means").textContent = r === 0
    ? "r = 0 is the image itself."
    : `So much is, for example, ${r <= 1 ? `one value of the image changed by ${percent(r)} of its range, or ` : ""}` +
      `each of its ${whole(values)} values by ${percent(each)}, ${(255 * each).toFixed(1)} of 255.`;
  $("ask-radius").disabled = r > sampled().largest_preset_radius;
}

// --- the picture -----------------------------------------------------------------------------------------------

function use(blob, name) {
  picture = blob;
  const preview = $("preview"), old = preview.src;
  if (old.startsWith("blob:")) URL.revokeObjectURL(old);
  preview.src = URL.createObjectURL(blob);
  preview.alt = `Your image: ${name}`;
  preview.hidden = false;
  $("drop-text").textContent = name;
  certify();
}

function useFirst(files) {
  const [file] = [...files].filter((each) => each.type.startsWith("image/"));
  if (file) use(file, file.name);
  else if (files.length) refuse(new Error(`${files[0].name} is no image: PNG, JPEG or WebP is needed`));
}

function blobOf(dataUrl) {
  const [head, body] = dataUrl.split(",");
  const bytes = Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type: head.slice(5, head.indexOf(";")) });
}

function showExamples(examples) {
  $("examples").hidden = !examples.length;
  $("example-list").replaceChildren(...examples.map(({ name, image }) => {
    const button = make("button", "", { type: "button" });
    button.append(make("img", "", { src: image, alt: "Test image of class" }), make("span", name));
    button.addEventListener("click", () => use(blobOf(image), `a test image of class ${name}`));
    return button;
  }));
}

async function showCard() {
  card = await call("/card");
  const results = card.results.certified_accuracy ?? {}, shape = card.image_shape.join(" × ");
  document.title = `${card.model} version ${card.version}: certified classification`;
  $("model").textContent = card.model;
  $("version").textContent = `version ${card.version}`;
  $("sigma").textContent = `σ = ${card.sigma}`;
  $("rule").textContent = `It becomes the model's image: ${card.pictures}.`;
  $("limit").textContent = Math.floor(card.limits.pixels / 1e6);
  $("failure").textContent = card.failure_prob;
  list($("card"), [
    ["Name", card.model], ["Version", card.version], ["Noise σ", String(card.sigma)], ["Classes", card.classes.join(", ")],
    ["Image", `${shape} (channels, height, width), ${card.grid} steps from 0 to 1`],
    ["Network", card.network], ["Trained by", card.method],
    ["Bound", card.bound.replace("_", "-")], ["Arithmetic of the noise", card.arithmetic],
    ["Copies by default", whole(card.n)], ["failure_prob", String(card.failure_prob)],
    ...(card.results.acr ? [["Average certified radius", `${down(card.results.acr, 3)} on its test images`]] : []),
    ...(card.results.clean_accuracy ? [["Clean accuracy", percent(card.results.clean_accuracy)]] : []),
    ["Weights", `sha256 ${card.weights_sha256.slice(0, 16)}…`],
  ]);
  const rows = Object.entries(results).sort(([a], [b]) => a - b);
  const most = card.samples.find(({ n }) => n === card.n)?.largest_radius ?? Infinity;
  $("results").hidden = !rows.length;
  $("beyond").hidden = !rows.some(([r]) => r > most);
  $("beyond").textContent = `–: beyond what ${whole(card.n)} copies can certify for any model.`;
  $("results").tBodies[0].replaceChildren(...rows.map(([r, accuracy]) => {
    const row = make("tr");
    const text = r > most ? "–" : percent(accuracy);
    row.append(make("th", r, { scope: "row" }), bar(accuracy), make("td", text, { class: "number" }));
    return row;
  }));
  const before = $("samples").value || card.n;
  $("samples").replaceChildren(...card.samples.map(({ n }) => make("option", whole(n), { value: n })));
  $("samples").value = before;
  $("dark-ink").checked = card.image_shape[0] !== 1;
}

// --- drawing ---------------------------------------------------------------------------------------------------

function clearDrawing() {
  const pen = $("canvas").getContext("2d");
  pen.fillStyle = $("dark-ink").checked ? "#fff" : "#000";
  pen.fillRect(0, 0, 280, 280);
}

function drawLine(event) {
  if (event.buttons !== 1 && event.type !== "pointerdown") return;
  const canvas = $("canvas"), box = canvas.getBoundingClientRect(), pen = canvas.getContext("2d");
  const at = [(event.clientX - box.left) * 280 / box.width, (event.clientY - box.top) * 280 / box.height];
  pen.strokeStyle = $("dark-ink").checked ? "#000" : "#fff";
  pen.lineWidth = 30;
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  pen.moveTo(...(event.type === "pointerdown" ? at : drawLine.last ?? at));
  pen.lineTo(...at);
  pen.stroke();
  drawLine.last = at;
}

// --- what people do --------------------------------------------------------------------------------------------

$("token").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, $("token-text").value);
  $("token-text").value = "";
  state("loading");
  start();
});
$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  useFirst($("file").files);
  $("file").value = "";
});
$("draw").addEventListener("click", () => {
  $("drawing").hidden = !$("drawing").hidden;
  $("draw").setAttribute("aria-expanded", String(!$("drawing").hidden));
});
$("clear").addEventListener("click", clearDrawing);
$("dark-ink").addEventListener("change", clearDrawing);
$("canvas").addEventListener("pointerdown", drawLine);
$("canvas").addEventListener("pointermove", drawLine);
$("certify-drawing").addEventListener("click", () => $("canvas").toBlob((blob) => use(blob, "your drawing")));
$("samples").addEventListener("change", () => picture && certify());
$("again").addEventListener("click", () => certify());
$("radius").addEventListener("input", showRadius);
$("ask-radius").addEventListener("click", () => certify(chosen()));
document.addEventListener("paste", (event) => useFirst(event.clipboardData.files));
for (const [kind, over] of [["dragenter", true], ["dragover", true], ["dragleave", false], ["drop", false]]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", over);
    if (kind === "drop") useFirst(event.dataTransfer.files);
  });
}
start();
