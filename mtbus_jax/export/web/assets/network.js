// The runtime and the members of the ensemble: what they compute for a picture.
"use strict";

const INPUT = "image";
const TUMOUR = "tumour_probability";
const CLASSES = "class_probability";

/** Starts the runtime and loads every member; `say` is told what is going on. */
async function startNetwork(facts, say) {
  say("Unpacking the runtime …");
  const wasm = await inflate(await embedded("runtime-wasm"), "gzip");
  const code = await inflate(await embedded("runtime-code"), "gzip");
  const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const runtime = await import(address);
  URL.revokeObjectURL(address);
  runtime.env.wasm.wasmBinary = wasm.buffer;
  runtime.env.wasm.numThreads = 1; // more need headers that a file from disk does not have
  runtime.env.wasm.proxy = false;
  const members = [];
  for (let i = 0; i < facts.members.length; i++) {
    say(`Loading network ${i + 1} of ${facts.members.length} …`);
    const model = interleaved(await inflate(await embedded(`member-${i}`), "gzip"));
    members.push(await runtime.InferenceSession.create(model, { executionProviders: ["wasm"] }));
    await breathe();
  }
  return { runtime, members };
}

/**
 * What each member says about a picture, one version of it (as it is, flipped or turned) after the
 * other: [{ fold, probability, logits }], `probability` row by row, upright, or null.
 */
async function runMembers({ runtime, members }, facts, small, versions) {
  const found = [];
  const [height, width] = facts.imageSize;
  for (let i = 0; i < members.length; i++) {
    for (const version of versions) {
      const image = Float32Array.from(transformed(small, height, width, version));
      const tensor = new runtime.Tensor("float32", image, [1, height, width, 1]);
      const outputs = await members[i].run({ [INPUT]: tensor });
      const tumour = outputs[TUMOUR] && outputs[TUMOUR].data;
      const classes = outputs[CLASSES] && outputs[CLASSES].data;
      found.push({
        fold: facts.members[i].fold,
        probability: tumour ? undone(tumour, height, width, version) : null,
        // Logits but for a constant, which softmax does not see.
        logits: classes ? Array.from(classes, Math.log) : null,
      });
      for (const output of Object.values(outputs)) output.dispose();
      await breathe();
    }
  }
  return found;
}

/** A picture flipped or turned: bit 0 flips rows, bit 1 columns, bit 2 then swaps both. */
function transformed(values, height, width, version) {
  if (!version) return values;
  const whole = new values.constructor(values.length);
  for (let row = 0; row < height; row++) {
    for (let col = 0; col < width; col++) {
      const fromRow = version & 1 ? height - 1 - row : row;
      const fromCol = version & 2 ? width - 1 - col : col;
      const to = version & 4 ? col * height + row : row * width + col;
      whole[to] = values[fromRow * width + fromCol];
    }
  }
  return whole;
}

/** The inverse of `transformed`; `height` and `width` are those of the upright picture. */
function undone(values, height, width, version) {
  const whole = new Float32Array(values.length);
  for (let row = 0; row < height; row++) {
    for (let col = 0; col < width; col++) {
      const toRow = version & 1 ? height - 1 - row : row;
      const toCol = version & 2 ? width - 1 - col : col;
      whole[toRow * width + toCol] = values[version & 4 ? col * height + row : row * width + col];
    }
  }
  return whole;
}
