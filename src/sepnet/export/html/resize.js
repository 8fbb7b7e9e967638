/* From a picture to a network's image, by sepnet's one rule: cropped about the centre to the image's aspect ratio and
   resized by Lanczos's filter, in the fixed-point arithmetic of Pillow, which made the training images. Results may differ
   from Pillow's by a step of 255, since some of its versions take columns before rows where a picture is tall.

   A picture of the image's own size comes out as it is: then each pixel's only weight is 1. */
"use strict";

const ROWS_AT_ONCE = 64;
const WEIGHT_BITS = 22;

function lanczos(x) {
  const sinc = (t) => (t === 0 ? 1 : Math.sin(t * Math.PI) / (t * Math.PI));
  return -3 <= x && x < 3 ? sinc(x) * sinc(x / 3) : 0;
}

/* For each of `count` places between `from` and `to`, the first pixel of `size` that it sees, the end, and their weights.
   Pillow takes the crop in single precision. */
function lanczosWeights(size, from, to, count) {
  const low = Math.fround(from), high = Math.fround(to);
  const scale = Math.fround(high - low) / count, widened = Math.max(scale, 1), support = 3 * widened;
  return Array.from({ length: count }, (_, place) => {
    const centre = low + (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(size, Math.trunc(centre + support + 0.5));
    const real = Array.from({ length: end - first }, (_, i) => lanczos((first + i - centre + 0.5) / widened));
    const sum = real.reduce((total, weight) => total + weight, 0);
    return { first, end, weights: Int32Array.from(real, (weight) => Math.round((weight / sum) * 2 ** WEIGHT_BITS)) };
  });
}

/* Weighs `weights.length` bytes, `stride` apart. */
function weigh(bytes, start, stride, weights) {
  let total = 1 << (WEIGHT_BITS - 1);
  for (let i = 0, at = start; i < weights.length; i++, at += stride) total += Math.imul(bytes[at], weights[i]);
  return Math.min(255, Math.max(0, total >> WEIGHT_BITS));
}

/* RGBA bytes without alpha; of one channel, the grey that Pillow makes of them. */
function toChannels(rgba, channels) {
  const pixels = new Uint8Array((rgba.length / 4) * channels);
  for (let from = 0, to = 0; from < rgba.length; from += 4, to += channels) {
    const [red, green, blue] = [rgba[from], rgba[from + 1], rgba[from + 2]];
    if (channels === 1) pixels[to] = (red * 19595 + green * 38470 + blue * 7471 + (1 << 15)) >> 16;
    else pixels.set([red, green, blue], to);
  }
  return pixels;
}

/* Returns the image (height, width, channels), a Uint8Array, of a picture of that size, of which
   readRows(left, top, width, height) returns a part as RGBA bytes. */
function fitPicture(size, readRows, [height, width, channels]) {
  const ratio = width / height;
  const wide = size.width / size.height >= ratio;
  const cropWidth = wide ? ratio * size.height : size.width;
  const cropHeight = wide ? size.height : size.width / ratio;
  const left = (size.width - cropWidth) / 2, top = (size.height - cropHeight) / 2;
  const columns = lanczosWeights(size.width, left, left + cropWidth, width);
  const rows = lanczosWeights(size.height, top, top + cropHeight, height);
  const firstRow = rows[0].first, firstColumn = columns[0].first, across = columns.at(-1).end - firstColumn;

  const narrow = new Uint8Array((rows.at(-1).end - firstRow) * width * channels);
  for (let row = firstRow, target = 0; row < rows.at(-1).end; row += ROWS_AT_ONCE) {
    const count = Math.min(ROWS_AT_ONCE, rows.at(-1).end - row);
    const pixels = toChannels(readRows(firstColumn, row, across, count), channels);
    for (let y = 0; y < count; y++)
      for (const { first, weights } of columns)
        for (let c = 0; c < channels; c++, target++)
          narrow[target] = weigh(pixels, (y * across + first - firstColumn) * channels + c, channels, weights);
  }

  const image = new Uint8Array(height * width * channels);
  const stride = width * channels;
  rows.forEach(({ first, weights }, y) => {
    for (let x = 0; x < stride; x++)
      image[y * stride + x] = weigh(narrow, (first - firstRow) * stride + x, stride, weights);
  });
  return image;
}
