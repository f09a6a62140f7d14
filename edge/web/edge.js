// Classifies a photo in this page. Beside it lie harvest_edge.wasm and the bundle's config.json and model.onnx; the
// address may name others: ?bundle=FOLDER/ &model=model.int8.onnx, and images to classify at once: &image=FILE (repeated).

const settings = new URLSearchParams(location.search);
const answer = document.getElementById("answer");
const folder = settings.get("bundle") ?? "";
const model = settings.get("model") ?? "model.onnx";

async function fetched(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path} cannot be fetched (${response.status})`);
  return new Uint8Array(await response.arrayBuffer());
}

/** The module with its memory behind two functions. */
async function start() {
  const { instance } = await WebAssembly.instantiate(await fetched("harvest_edge.wasm"), {});
  const edge = instance.exports;
  const give = (bytes) => {
    const address = edge.harvest_alloc(bytes.length);
    if (address === 0) throw new Error("there is not enough memory");
    new Uint8Array(edge.memory.buffer, address, bytes.length).set(bytes);
    return address;
  };
  const result = () => {
    const bytes = new Uint8Array(edge.memory.buffer, edge.harvest_result(), edge.harvest_result_length());
    const found = JSON.parse(new TextDecoder().decode(bytes));
    if (found.error) throw new Error(found.error);
    return found;
  };
  const call = (work, ...inputs) => {
    const addresses = inputs.map(give);
    work(...addresses);
    addresses.forEach((address) => edge.harvest_free(address));
    return result();
  };
  return {
    load: (config, model) => call(edge.harvest_load, config, model),
    classify: (image) => call(edge.harvest_classify, image),
  };
}

function words({ class: name, confidence, abstained }) {
  const percent = `${(confidence * 100).toFixed(1)} %`;
  return abstained ? `No answer: ${name} would be likeliest, with only ${percent}` : `${name} (${percent})`;
}

try {
  const edge = await start();
  edge.load(await fetched(`${folder}config.json`), await fetched(`${folder}${model}`));
  answer.textContent = "";

  const show = async (file) => {
    try {
      const bytes = new Uint8Array(await file.arrayBuffer());
      const picture = document.getElementById("picture");
      URL.revokeObjectURL(picture.src);
      picture.src = URL.createObjectURL(file);
      picture.hidden = false;
      answer.textContent = words(edge.classify(bytes));
    } catch (error) {
      answer.textContent = error.message;
    }
  };
  const drop = document.getElementById("drop");
  document.getElementById("file").addEventListener("change", (event) => event.target.files[0] && show(event.target.files[0]));
  for (const name of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", name === "dragover");
      if (name === "drop" && event.dataTransfer.files[0]) show(event.dataTransfer.files[0]);
    });
  }
  for (const image of settings.getAll("image")) {
    const { class: name, confidence, abstained } = edge.classify(await fetched(image));
    answer.append(`${image},${name},${confidence.toFixed(6)},${abstained}\n`);
  }
} catch (error) {
  answer.textContent = error.message;
}
answer.dataset.ready = "true";
