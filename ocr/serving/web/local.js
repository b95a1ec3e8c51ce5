"use strict";
// Answers the page's requests to a server within the page: reads images with ONNX Runtime. `ocr_export --format=web` adds it.

const MAX_BYTES = 20e6, MAX_PIXELS = 40e6, MAX_SCALED_WIDTH = 8000, SCALED_HEIGHT = 32;
const READ = 0, UNDECODABLE = 1, TOO_LARGE = 2, NO_CONTRAST = 3;
const MAGIC = [[0x89, 0x50, 0x4e, 0x47], [0xff, 0xd8, 0xff], [0x47, 0x49, 0x46, 0x38], [0x42, 0x4d]]; // PNG, JPEG, GIF, BMP
const MIN_CONTRAST = 3; // grey levels
const LUMA = [0.299, 0.587, 0.114];
const fetchFile = window.fetch.bind(window);

const model = (async () => {
  ort.env.wasm.wasmPaths = new URL("./", document.baseURI).href;
  ort.env.wasm.numThreads = 1; // more would need headers that static servers do not send
  const [about, charset, session] = await Promise.all([
    fetchFile("model.json").then((response) => response.json()),
    fetchFile("charset.txt").then((response) => response.text()),
    ort.InferenceSession.create("model.onnx", { executionProviders: ["wasm"] }),
  ]);
  return { height: about.line_height, frame: about.frame_width, version: about.version, session, characters: charset.split("\n") };
})();

window.fetch = async (address, options) => {
  if (!String(address).startsWith("v1/models/")) return fetchFile(address, options);
  if (!String(address).endsWith(":predict")) {
    const { version } = await model;
    return Response.json({ model_version_status: [{ version, state: "AVAILABLE" }] });
  }
  const predictions = [];
  for (const { image_bytes } of JSON.parse(options.body).instances) {
    predictions.push(await read(Uint8Array.from(atob(image_bytes.b64), (character) => character.charCodeAt(0))));
  }
  return Response.json({ predictions });
};

/** Reads an image file, as the signature `detailed` does. */
async function read(bytes) {
  const unread = (status) => ({ text: "", confidence: 0, status, chars: [], char_confidence: [], char_start: [], char_end: [] });
  if (!MAGIC.some((magic) => magic.every((byte, index) => bytes[index] === byte))) return unread(UNDECODABLE);
  if (bytes.length > MAX_BYTES) return unread(TOO_LARGE);
  let image;
  try {
    image = await createImageBitmap(new Blob([bytes]), { premultiplyAlpha: "none", colorSpaceConversion: "none" });
  } catch {
    return unread(UNDECODABLE);
  }
  const { width: given, height } = image;
  if (given * height > MAX_PIXELS || given * SCALED_HEIGHT > MAX_SCALED_WIDTH * height) return unread(TOO_LARGE);
  const { height: lineHeight, frame, session, characters } = await model;
  const { pixels, width } = toLine(image, lineHeight);
  const range = pixels.reduce(([darkest, lightest], value) => [Math.min(darkest, value), Math.max(lightest, value)], [255, 0]);
  if (range[1] - range[0] < MIN_CONTRAST) return unread(NO_CONTRAST);
  const columns = Math.ceil(width / frame) * frame;
  const padded = new Uint8Array(lineHeight * columns);
  for (let row = 0; row < lineHeight; row++) padded.set(pixels.subarray(row * width, (row + 1) * width), row * columns);
  const outputs = await session.run({
    pixels: new ort.Tensor("uint8", padded, [1, lineHeight, columns]),
    width: new ort.Tensor("int32", Int32Array.of(width), [1]),
  });
  const chars = Array.from(outputs.ids.data, (id) => characters[id]);
  const places = placesOf(outputs.frames.data, width, frame, lineHeight);
  return {
    text: chars.join(""), confidence: outputs.confidence.data[0], status: READ, chars,
    char_confidence: Array.from(outputs.char_confidence.data),
    char_start: places.map(([start]) => Math.floor((start * given) / width)),
    char_end: places.map(([, end]) => Math.floor((end * given) / width)),
  };
}

/** Turns a decoded image into a grey line of this height, as ocr/images/preprocess_numpy.py does. */
function toLine(image, lineHeight) {
  const { width, height } = image;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const opacity = Float64Array.from({ length: width * height }, (_, place) => data[4 * place + 3] / 255);
  let grey = toGrey(data, opacity);
  if (opacity.some((value) => value < 1)) layOnGround(grey, opacity);
  const target = Math.max(Math.floor((2 * width * lineHeight + height) / (2 * height)), 1);
  if (height !== lineHeight) {
    grey = transposed(resizedRows(grey, width, height, target), target, height);
    grey = transposed(resizedRows(grey, height, target, lineHeight), lineHeight, target);
  }
  return { pixels: Uint8Array.from(grey, (value) => Math.round(Math.min(Math.max(value, 0), 255))), width: target };
}

/** Returns an image along the axis of colour on which it varies most. */
function toGrey(data, opacity) {
  const channels = [0, 1, 2];
  const visible = opacity.reduce((one, other) => one + other, 1e-30);
  const mean = channels.map((one) => opacity.reduce((sum, value, place) => sum + value * data[4 * place + one], 0) / visible);
  let spread = channels.map((one) => channels.map((other) => opacity.reduce(
    (sum, value, place) => sum + value * (data[4 * place + one] - mean[one]) * (data[4 * place + other] - mean[other]), 0)));
  for (let squaring = 0; squaring < 6; squaring++) {
    const trace = Math.max(spread[0][0] + spread[1][1] + spread[2][2], 1e-30);
    spread = channels.map((one) => channels.map((other) => channels.reduce(
      (sum, by) => sum + (spread[one][by] / trace) * (spread[by][other] / trace), 0)));
  }
  let axis = spread.map((row) => row.reduce((sum, value, one) => sum + value * LUMA[one], 0));
  const length = axis.reduce((sum, value) => sum + Math.abs(value), 1e-30);
  axis = axis.map((value) => value / length);
  const center = channels.reduce((sum, one) => sum + mean[one] * LUMA[one], 0);
  return opacity.map((_, place) => channels.reduce((sum, one) => sum + axis[one] * (data[4 * place + one] - mean[one]), center));
}

function layOnGround(grey, opacity) {
  let visible = 1e-6, sum = 0, deviation = 0;
  opacity.forEach((value, place) => { visible += value; sum += value * grey[place]; });
  const mean = sum / visible;
  opacity.forEach((value, place) => { deviation += value * (grey[place] - mean) ** 2; });
  const isPage = visible / grey.length >= 0.5 && Math.sqrt(deviation / visible) >= 20;
  const ground = mean > 127.5 && !isPage ? 0 : 255;
  opacity.forEach((value, place) => { grey[place] = ground + (grey[place] - ground) * value; });
}

/** Scales the rows of an image [rows, width] to another width: a triangle filter, wider where the image shrinks. */
function resizedRows(values, width, rows, target) {
  const scale = width / target, support = Math.max(scale, 1);
  const resized = new Float64Array(rows * target);
  for (let column = 0; column < target; column++) {
    const center = (column + 0.5) * scale;
    const first = Math.max(Math.floor(center - support + 0.5), 0), last = Math.min(Math.floor(center + support + 0.5), width);
    const weights = [];
    for (let at = first; at < last; at++) weights.push(Math.max(1 - Math.abs(at - center + 0.5) / support, 0));
    const total = weights.reduce((one, other) => one + other, 0);
    for (let row = 0; row < rows; row++) {
      let sum = 0;
      weights.forEach((weight, index) => { sum += weight * values[row * width + first + index]; });
      resized[row * target + column] = sum / total;
    }
  }
  return resized;
}

function transposed(values, width, rows) {
  const result = new Float64Array(values.length);
  values.forEach((value, place) => { result[(place % width) * rows + Math.floor(place / width)] = value; });
  return result;
}

/** Returns the first column of each character and the one after its last, as `_places` in ocr/model/recogniser.py does. */
function placesOf(frames, width, frame, lineHeight) {
  const count = frames.length / 2, reach = Math.floor(lineHeight / 2);
  const starts = [], ends = [];
  for (let index = 0; index < count; index++) {
    starts.push(frames[2 * index] * frame);
    ends.push(Math.min((frames[2 * index + 1] + 1) * frame, width));
  }
  return starts.map((start, index) => {
    const before = index ? Math.floor((start - ends[index - 1]) / 2) : start;
    const behind = index < count - 1 ? Math.ceil((starts[index + 1] - ends[index]) / 2) : width - ends[index];
    return [start - Math.min(before, reach), ends[index] + Math.min(behind, reach)];
  });
}
