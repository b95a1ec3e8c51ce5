"use strict";

const MESSAGES = {
  en: {
    title: "Line reader", drop: "Drop, paste or choose images of single lines", otherLanguage: "中文", served: "Model version {}",
    reading: "Reading …", confidence: "confidence {}", empty: "No text found", copy: "Copy", copied: "Copied",
    correct: "Correct", save: "Save", cancel: "Cancel", saved: "Saved as a correction", correction: "Correct text", unreachable: "The server cannot be reached.",
    1: "This image cannot be read: it is damaged, or not a PNG, JPEG, GIF or plain BMP.",
    2: "This image is too large.", 3: "This image is blank.", character: "{}: confidence {}",
    keys: "Recognised text; use the arrow keys to move between characters",
    think: "What do you think it says?", compare: "Compare", agrees: "The image agrees: probability {}",
    disagrees: "The image disagrees: probability {}, that of the text above {}", missing: "It also shows: {}",
    impossible: "This cannot be in the image: the text is too long for it, or has a character that the model does not know.",
    agreement: "{}: {} probable here", turned: "read turned by {}°",
  },
  zh: {
    title: "文字行识别", drop: "拖入、粘贴或选择单行文字的图片", otherLanguage: "English", served: "模型版本 {}",
    reading: "识别中……", confidence: "置信度 {}", empty: "没有找到文字", copy: "复制", copied: "已复制",
    correct: "更正", save: "保存", cancel: "取消", saved: "已存为更正", correction: "正确的文字", unreachable: "无法连接服务器。",
    1: "无法读取这张图片：文件已损坏，或不是 PNG、JPEG、GIF 或普通 BMP。", 2: "图片太大。", 3: "图片是空白的。", character: "{}：置信度 {}",
    keys: "识别出的文字；用方向键逐字移动",
    think: "您认为写的是什么？", compare: "比较", agrees: "与图片一致：概率 {}", disagrees: "与图片不一致：概率 {}，上面的文字为 {}",
    missing: "图片中还有：{}", impossible: "图片中不可能是这段文字：文字太长，或含有模型不认识的字符。", agreement: "{}：此处概率 {}",
    turned: "转 {}° 后识别",
  },
};
const BATCH_SIZE = 8; // images per request
const CORRECTS = document.documentElement.dataset.corrects === "true";
const MODEL = `v1/models/${encodeURIComponent(document.documentElement.dataset.model)}`;

let language = navigator.language.startsWith("zh") ? "zh" : "en";
const lines = []; // shown on the page: {item, name, url, file, prediction, error, typed, comparison, corrected}

const say = (key, ...values) => values.reduce((text, value) => text.replace("{}", value), MESSAGES[language][key]);
const percent = (share) => new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 1 }).format(share);
const byId = (id) => document.getElementById(id);

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function translate() {
  document.documentElement.lang = language;
  document.title = say("title");
  for (const element of document.querySelectorAll("[data-message]")) element.textContent = say(element.dataset.message);
  const button = byId("language");
  button.textContent = say("otherLanguage");
  button.lang = language === "en" ? "zh" : "en";
  lines.forEach(show);
  showModel();
}

async function showModel() {
  try {
    const { model_version_status: versions } = await (await fetch(MODEL)).json();
    byId("model").textContent = say("served", versions.find((version) => version.state === "AVAILABLE").version);
  } catch {
    byId("model").textContent = say("unreachable");
  }
}

function show(line) {
  const { item, name, url, prediction, error } = line;
  const parts = [make("div", "name", name)];
  if (error || (prediction && prediction.status)) {
    parts.push(make("div", "error", error ? error() : say(prediction.status)));
  } else {
    const picture = make("div", "picture");
    const image = make("img");
    image.src = url;
    image.alt = prediction ? prediction.text : name;
    picture.append(image);
    parts.push(picture);
    if (prediction) parts.push(resultRow(line, picture, image));
    if (prediction && !prediction.turned) parts.push(comparisonForm(line));
    if (!prediction) parts.push(make("div", "confidence", say("reading")));
  }
  item.replaceChildren(...parts);
}

/** Returns a line's text: characters are shaded by uncertainty, and marked in the picture when selected. Only texts of images
    that are upright can be compared and corrected. */
function resultRow(line, picture, image) {
  const { prediction, corrected } = line;
  const row = make("div", "result");
  if (corrected) {
    row.append(make("div", "text", corrected), make("span", "confidence", say("saved")), button("correct", () => edit(line, row)));
    return row;
  }
  const text = make("div", "text", prediction.text ? undefined : say("empty"));
  const confidence = make("span", "confidence", say("confidence", percent(prediction.confidence)));
  row.append(text, confidence);
  if (prediction.turned) row.append(make("span", "confidence", say("turned", prediction.turned)));
  if (CORRECTS && !prediction.turned) row.append(button("correct", () => edit(line, row)));
  if (!prediction.text) return row;
  const characters = [...prediction.text].map((character, index) => {
    const span = make("span", "", character);
    span.style.backgroundColor = `rgb(214 120 20 / ${Math.min(0.75, 2 * (1 - prediction.char_confidence[index]))})`;
    span.addEventListener("pointerenter", () => select(index));
    return span;
  });
  text.append(...characters);
  text.tabIndex = 0;
  text.setAttribute("role", "group");
  text.setAttribute("aria-label", `${prediction.text}. ${say("keys")}`);
  const box = make("i");
  let selected = -1;

  function select(index) {
    characters[selected]?.classList.remove("selected");
    selected = index;
    box.remove();
    confidence.textContent = say("confidence", percent(prediction.confidence));
    if (selected < 0) return;
    characters[selected].classList.add("selected");
    const [start, end] = [prediction.char_start[selected], prediction.char_end[selected]];
    box.style.left = `${(100 * start) / image.naturalWidth}%`;
    box.style.width = `${(100 * (end - start)) / image.naturalWidth}%`;
    picture.append(box);
    confidence.textContent = say("character", characters[selected].textContent, percent(prediction.char_confidence[selected]));
  }

  text.addEventListener("pointerleave", () => select(-1));
  text.addEventListener("blur", () => select(-1));
  text.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    select(Math.min(Math.max(selected + step, 0), characters.length - 1));
  });
  const copy = button("copy", async () => {
    await navigator.clipboard.writeText(prediction.text);
    copy.textContent = say("copied");
  });
  row.append(copy);
  return row;
}

/** Returns a form that takes a text, and shows where the image disagrees with it. */
function comparisonForm(line) {
  const form = make("form", "comparison");
  const label = make("label", "", say("think"));
  const field = make("input");
  const verdict = make("div", "verdict");
  verdict.setAttribute("role", "status");
  field.value = line.typed ?? "";
  field.addEventListener("input", () => (line.typed = field.value));
  label.append(field);
  form.append(label, make("button", "", say("compare")), verdict);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = field.value;
    line.comparison = text ? { text, ...(await score(line, text)) } : undefined;
    verdict.replaceChildren(...comparisonParts(line.comparison));
  });
  verdict.replaceChildren(...comparisonParts(line.comparison));
  return form;
}

/** Asks how probable a text is, beside the one that was read; returns what the model outputs, or an error. */
async function score(line, text) {
  try {
    const image = { b64: await asBase64(line.file) };
    const { predictions, error } = await predict("score", [{ image_bytes: image, text: [text, line.prediction.text], count: 2 }]);
    return error ? { error } : predictions[0];
  } catch {
    return { error: say("unreachable") };
  }
}

/** Returns the elements that show a comparison: the text with its doubtful characters marked, and what the image says to it. */
function comparisonParts(comparison) {
  if (!comparison) return [];
  const { text, error, best, log_probability: logs, agreement, missing } = comparison;
  if (error || logs[0] === null) return [make("div", "error", error || say("impossible"))];
  const shown = make("div", "text");
  [...text].forEach((character, index) => {
    const span = make("span", agreement[0][index] < 0.5 ? "doubtful" : "", character);
    span.title = say("agreement", character, percent(agreement[0][index]));
    shown.append(span);
  });
  const [given, read] = logs.map((log) => percent(Math.exp(log)));
  const parts = [shown, make("div", "", best === 0 ? say("agrees", given) : say("disagrees", given, read))];
  if (missing) parts.push(make("div", "missing", say("missing", missing)));
  return parts;
}

/** Returns the body of the server's response: predictions, or an error. */
async function predict(signature, instances) {
  const response = await fetch(`${MODEL}:predict`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ signature_name: signature, instances }),
  });
  // Servers write minus infinity, which is no JSON.
  return JSON.parse((await response.text()).replace(/("(?:[^"\\]|\\.)*")|-Infinity/g, (_, string) => string ?? "null"));
}

function button(message, action) {
  const element = make("button", "", say(message));
  element.type = "button";
  element.addEventListener("click", action);
  return element;
}

/** Lets a line's text be corrected, and sends the server the right one with the image. */
function edit(line, row) {
  const field = make("input", "correction");
  field.value = line.corrected ?? line.prediction.text;
  field.setAttribute("aria-label", say("correction"));
  field.spellcheck = false;
  const problem = make("div", "error");
  problem.setAttribute("role", "alert");
  const save = async () => {
    problem.textContent = "";
    try {
      const response = await fetch("v1/corrections", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ image_bytes: { b64: await asBase64(line.file) }, text: field.value }),
      });
      if (!response.ok) problem.textContent = (await response.json()).error;
      else line.corrected = field.value;
    } catch {
      problem.textContent = say("unreachable");
    }
    if (!problem.textContent) show(line);
  };
  field.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Enter") save();
    if (event.key === "Escape") show(line);
  });
  row.replaceChildren(field, button("save", save), button("cancel", () => show(line)), problem);
  field.focus();
}

function asBase64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

async function readFiles(files) {
  const added = [...files].map((file) => {
    const line = { item: make("li"), name: file.name, url: URL.createObjectURL(file), file };
    lines.push(line);
    byId("lines").prepend(line.item);
    show(line);
    return line;
  });
  for (let begin = 0; begin < added.length; begin += BATCH_SIZE) {
    const batch = added.slice(begin, begin + BATCH_SIZE);
    try {
      const instances = await Promise.all(batch.map(async ({ file }) => ({ image_bytes: { b64: await asBase64(file) } })));
      const { predictions, error } = await predict("detailed", instances);
      batch.forEach((line, index) => {
        if (error) line.error = () => error;
        else line.prediction = predictions[index];
      });
    } catch {
      for (const line of batch) line.error = () => say("unreachable");
    }
    batch.forEach(show);
  }
  showModel();
}

const drop = byId("drop");
byId("files").addEventListener("change", (event) => {
  readFiles(event.target.files);
  event.target.value = "";
});
byId("language").addEventListener("click", () => {
  language = language === "en" ? "zh" : "en";
  translate();
});
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.add("dragging");
  });
}
for (const kind of ["dragleave", "drop"]) document.addEventListener(kind, () => drop.classList.remove("dragging"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  readFiles(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => readFiles(event.clipboardData.files));
translate();
