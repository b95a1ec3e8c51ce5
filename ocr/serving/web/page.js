"use strict";

const SAYS = {
  en: {
    title: "Line reader", drop: "Drop, paste or choose images of single lines", other: "中文", served: "Model version {}",
    reading: "reading …", sure: "{} sure", empty: "no text found", copy: "Copy", copied: "Copied", unreachable: "The server does not answer.",
    1: "This is no image that can be read.", 2: "This image is too large.", at: "{}: {} sure",
    keys: "Text read; arrow keys go from character to character",
  },
  zh: {
    title: "文字行识别", drop: "拖入、粘贴或选择单行文字的图片", other: "English", served: "模型版本 {}",
    reading: "识别中……", sure: "置信度 {}", empty: "没有找到文字", copy: "复制", copied: "已复制", unreachable: "服务器没有应答。",
    1: "这不是能读取的图片。", 2: "图片太大。", at: "{}：置信度 {}",
    keys: "识别出的文字；用方向键逐字移动",
  },
};
const AT_ONCE = 8; // images of a request
const MODEL = "v1/models/ocr";

let language = navigator.language.startsWith("zh") ? "zh" : "en";
const lines = []; // {item, name, url, answer, failure}: what is shown

const say = (key, ...values) => values.reduce((text, value) => text.replace("{}", value), SAYS[language][key]);
const percent = (share) => new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 1 }).format(share);
const find = (id) => document.getElementById(id);

function make(kind, name, text) {
  const element = document.createElement(kind);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

function translate() {
  document.documentElement.lang = language;
  document.title = say("title");
  for (const element of document.querySelectorAll("[data-says]")) element.textContent = say(element.dataset.says);
  const other = find("language");
  other.textContent = say("other");
  other.lang = language === "en" ? "zh" : "en";
  lines.forEach(show);
  tellModel();
}

async function tellModel() {
  try {
    const { model_version_status: all } = await (await fetch(MODEL)).json();
    find("model").textContent = say("served", all.find((version) => version.state === "AVAILABLE").version);
  } catch {
    find("model").textContent = say("unreachable");
  }
}

function show(line) {
  const { item, name, url, answer, failure } = line;
  const parts = [make("div", "name", name)];
  if (failure || (answer && answer.status)) {
    parts.push(make("div", "wrong", failure ? failure() : say(answer.status)));
  } else {
    const picture = make("div", "picture");
    const image = make("img");
    image.src = url;
    image.alt = answer ? answer.text : name;
    picture.append(image);
    parts.push(picture, answer ? said(answer, picture, image) : make("div", "sure", say("reading")));
  }
  item.replaceChildren(...parts);
}

/** Returns a line's text, each character shaded as it is unsure and shown in the picture when it is pointed at. */
function said(answer, picture, image) {
  const row = make("div", "read");
  const text = make("div", "text", answer.text ? undefined : say("empty"));
  const sure = make("span", "sure", say("sure", percent(answer.confidence)));
  row.append(text, sure);
  if (!answer.text) return row;
  const characters = [...answer.text].map((character, place) => {
    const span = make("span", "", character);
    span.style.backgroundColor = `rgb(214 120 20 / ${Math.min(0.75, 2 * (1 - answer.char_confidence[place]))})`;
    span.addEventListener("pointerenter", () => point(place));
    return span;
  });
  text.append(...characters);
  text.tabIndex = 0;
  text.setAttribute("role", "group");
  text.setAttribute("aria-label", `${answer.text}. ${say("keys")}`);
  const box = make("i");
  let at = -1;

  function point(place) {
    characters[at]?.classList.remove("at");
    at = place;
    box.remove();
    sure.textContent = say("sure", percent(answer.confidence));
    if (at < 0) return;
    characters[at].classList.add("at");
    const [start, end] = [answer.char_start[at], answer.char_end[at]];
    box.style.left = `${(100 * start) / image.naturalWidth}%`;
    box.style.width = `${(100 * (end - start)) / image.naturalWidth}%`;
    picture.append(box);
    sure.textContent = say("at", characters[at].textContent, percent(answer.char_confidence[at]));
  }

  text.addEventListener("pointerleave", () => point(-1));
  text.addEventListener("blur", () => point(-1));
  text.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    point(Math.min(Math.max(at + step, 0), characters.length - 1));
  });
  const copy = make("button", "", say("copy"));
  copy.type = "button";
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(answer.text);
    copy.textContent = say("copied");
  });
  row.append(copy);
  return row;
}

function asBase64(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(file);
  });
}

async function read(files) {
  const added = [...files].map((file) => {
    const line = { item: make("li"), name: file.name, url: URL.createObjectURL(file), file };
    lines.push(line);
    find("lines").prepend(line.item);
    show(line);
    return line;
  });
  for (let begin = 0; begin < added.length; begin += AT_ONCE) {
    const some = added.slice(begin, begin + AT_ONCE);
    try {
      const instances = await Promise.all(some.map(async ({ file }) => ({ image_bytes: { b64: await asBase64(file) } })));
      const response = await fetch(`${MODEL}:predict`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ signature_name: "detailed", instances }),
      });
      const body = await response.json();
      some.forEach((line, place) => {
        if (response.ok) line.answer = body.predictions[place];
        else line.failure = () => body.error;
      });
    } catch {
      for (const line of some) line.failure = () => say("unreachable");
    }
    some.forEach(show);
  }
  tellModel();
}

const drop = find("drop");
find("files").addEventListener("change", (event) => {
  read(event.target.files);
  event.target.value = "";
});
find("language").addEventListener("click", () => {
  language = language === "en" ? "zh" : "en";
  translate();
});
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
for (const kind of ["dragleave", "drop"]) document.addEventListener(kind, () => drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  read(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => read(event.clipboardData.files));
translate();
