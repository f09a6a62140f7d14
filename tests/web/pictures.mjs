// Writes photographs of Fashion-MNIST as files whose names say nothing: a folder as somebody who begins a project has it.
//
// node tests/web/pictures.mjs IDX_FOLDER FOLDER

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { deflateSync, gunzipSync } from "node:zlib";

const NAMES = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];
/** Each pixel becomes a square of so many, so that people can see something. */
const ZOOM = 4;

/** The checksum of PNG; that of node:zlib came with Node 20.15 only. */
function crc32(bytes) {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

/** The items of an IDX file: its numbers without the heading. */
function idx(path, heading) {
  return gunzipSync(readFileSync(path)).subarray(heading);
}

/** A grey picture as PNG. */
export function png(pixels, side) {
  const chunk = (name, data) => {
    const body = Buffer.concat([Buffer.from(name, "latin1"), data]);
    const framed = Buffer.alloc(body.length + 8);
    framed.writeUInt32BE(data.length);
    body.copy(framed, 4);
    framed.writeUInt32BE(crc32(body), body.length + 4);
    return framed;
  };
  const head = Buffer.alloc(13);
  head.writeUInt32BE(side, 0);
  head.writeUInt32BE(side, 4);
  head[8] = 8;
  const lines = Buffer.alloc(side * (side + 1));
  for (let y = 0; y < side; y++) pixels.copy(lines, y * (side + 1) + 1, y * side, (y + 1) * side);
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([
    signature,
    chunk("IHDR", head),
    chunk("IDAT", deflateSync(lines)),
    chunk("IEND", Buffer.alloc(0)),
  ]);
}

function enlarged(pixels) {
  const side = 28 * ZOOM;
  const large = Buffer.alloc(side * side);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) large[y * side + x] = pixels[Math.floor(y / ZOOM) * 28 + Math.floor(x / ZOOM)];
  }
  return png(large, side);
}

/**
 * Fills `folder/images` with `count` photographs of the classes `classes`, one copy and one broken file, and `folder/new` with
 * `news` more. Returns what each shows: file name → class name.
 */
export function writePhotographs(source, folder, { classes, count, news }) {
  const truth = new Map();
  const write = (part, from, wanted, subfolder, digits) => {
    mkdirSync(join(folder, subfolder), { recursive: true });
    const photos = idx(join(source, `${from}-images-idx3-ubyte.gz`), 16);
    const labels = idx(join(source, `${from}-labels-idx1-ubyte.gz`), 8);
    let written = 0;
    for (let i = 0; written < wanted; i++) {
      if (!classes.includes(labels[i])) continue;
      const name = `${part}_${String(written).padStart(digits, "0")}.png`;
      writeFileSync(join(folder, subfolder, name), enlarged(photos.subarray(784 * i, 784 * (i + 1))));
      truth.set(name, NAMES[labels[i]]);
      written += 1;
    }
  };
  write("IMG", "train", count, "images", 5);
  write("new", "t10k", news, "new", 3);
  const first = readFileSync(join(folder, "images", "IMG_00000.png"));
  writeFileSync(join(folder, "images", "copy of the first.png"), first);
  truth.set("copy of the first.png", truth.get("IMG_00000.png"));
  writeFileSync(join(folder, "images", "broken.png"), first.subarray(0, 200));
  return truth;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [source, folder] = process.argv.slice(2);
  // Trousers, sandals, bags: told apart after a few labels.
  const truth = writePhotographs(source, folder, { classes: [1, 5, 8], count: 300, news: 12 });
  writeFileSync(join(folder, "truth.json"), JSON.stringify(Object.fromEntries(truth)));
}
