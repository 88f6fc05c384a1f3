// Says in words what a browser lacks. Old syntax, so that an old browser can run it and say so.
"use strict";

(function () {
  // A function with one SIMD instruction: the smallest module that tells whether a browser has it.
  var simd = new Uint8Array([
    0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15,
    253, 98, 11,
  ]);
  var missing = [];
  var has = function (value) { return typeof value !== "undefined"; };
  if (!has(window.WebAssembly) || !WebAssembly.validate(simd)) missing.push("WebAssembly with SIMD");
  if (!has(window.DecompressionStream)) missing.push("DecompressionStream");
  if (!has(window.CompressionStream)) missing.push("CompressionStream");
  if (!has(window.createImageBitmap)) missing.push("createImageBitmap");
  if (!has(window.URL) || !URL.createObjectURL) missing.push("Blob URLs");
  window.browserLacks = missing;
  document.getElementById("no-script").hidden = true;
  if (missing.length) {
    var text = "This browser lacks " + missing.join(", ") + ", which the page needs to compute. " +
      "Open it in Chrome or Edge 103, Firefox 113 or Safari 16.4, or a later one.";
    var box = document.getElementById("failure");
    box.textContent = text;
    box.hidden = false;
  }
})();
