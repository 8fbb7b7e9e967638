/* An int8 network in plain JavaScript: the answers of sepnet's definition, bit for bit.

   Values are int8, rows first, channels last; sums are int32, which the export has checked that none can leave. */
"use strict";

/* A factor mantissa / 2^shift, mantissa below 2^31, times an int32 total, to the nearest, a half up, is
   floor((total * mantissa + 2^(shift - 1)) / 2^shift). The product has up to 62 bits and a double holds 53: the mantissa
   is cut into high * 2^16 + low. In scale() below, total * low has at most 47 bits, total * high 46, and half is at most
   2^44; dividing by a power of two rounds nothing. So all of it is exact. The bits that the first floor() drops, below
   2^16, cannot change the second's result, since half is a whole number of 2^16. Where shift is 16 or less half is not,
   but then any total but 0 gives more than 2^13 in size, which is clamped anyway, and 0 gives 0. */
function multipliers(mantissas, shifts) {
  return {
    high: Float64Array.from(mantissas, (mantissa) => mantissa >> 16),
    low: Float64Array.from(mantissas, (mantissa) => mantissa & 0xffff),
    half: Float64Array.from(shifts, (shift) => 2 ** (shift - 17)),
    unit: Float64Array.from(shifts, (shift) => 2 ** (16 - shift)),
  };
}

/* Totals times a factor for each, as int8 values from `start` on. */
function scale(totals, { high, low, half, unit }, { values, zero }, start) {
  for (let i = 0; i < high.length; i++) {
    const lower = Math.floor((totals[i] * low[i]) / 65536);
    values[start + i] = clamped(Math.floor((totals[i] * high[i] + lower + half[i]) * unit[i]) + zero);
  }
}

function clamped(x) {
  return x < -128 ? -128 : x > 127 ? 127 : x;
}

/* The values (minus their zero) that a convolution sees from one pixel of its result, tap by tap; 0 outside. */
function gather({ kernel, stride, padding, dilation }, { values, shape, zero }, y, x, patch) {
  const [height, width, channels] = shape;
  let target = 0;
  for (let ky = 0; ky < kernel[0]; ky++) {
    const row = y * stride[0] - padding[0][0] + ky * dilation[0];
    for (let kx = 0; kx < kernel[1]; kx++, target += channels) {
      const column = x * stride[1] - padding[1][0] + kx * dilation[1];
      if (row < 0 || row >= height || column < 0 || column >= width) {
        patch.fill(0, target, target + channels);
        continue;
      }
      const source = (row * width + column) * channels;
      for (let c = 0; c < channels; c++) patch[target + c] = values[source + c] - zero;
    }
  }
}

/* All filters on a whole patch. Their weights lie four filters side by side, so that a value is read once for four. */
function dense(weight, patch, totals) {
  for (let filter = 0, w = 0; filter < totals.length; filter += 4) {
    let a = totals[filter], b = totals[filter + 1], c = totals[filter + 2], d = totals[filter + 3];
    for (let i = 0; i < patch.length; i++, w += 4) {
      const value = patch[i];
      a = (a + Math.imul(weight[w], value)) | 0;
      b = (b + Math.imul(weight[w + 1], value)) | 0;
      c = (c + Math.imul(weight[w + 2], value)) | 0;
      d = (d + Math.imul(weight[w + 3], value)) | 0;
    }
    totals[filter] = a;
    totals[filter + 1] = b;
    totals[filter + 2] = c;
    totals[filter + 3] = d;
  }
}

/* Each filter on the channels of its group. */
function grouped(weight, patch, channels, groups, totals) {
  const each = channels / groups, filters = totals.length / groups;
  for (let filter = 0, w = 0; filter < totals.length; filter++) {
    const first = Math.floor(filter / filters) * each;
    let total = totals[filter];
    // A depthwise convolution has a loop of its own: one of one turn inside another takes twice the time.
    if (each === 1)
      for (let i = first; i < patch.length; i += channels, w++)
        total = (total + Math.imul(weight[w], patch[i])) | 0;
    else
      for (let tap = first; tap < patch.length; tap += channels)
        for (let i = tap; i < tap + each; i++, w++) total = (total + Math.imul(weight[w], patch[i])) | 0;
    totals[filter] = total;
  }
}

/* What each operator of a plan computes; inputs and output are { values, shape, zero }. */
const operators = {
  Normalize({ factor, offset }, [pixels], output) {
    const channels = factor.length;
    for (let i = 0, c = 0; i < output.values.length; i++, c = c + 1 === channels ? 0 : c + 1) {
      const pixel = pixels.values[i] & 0xff; // the arena's bytes are signed, pixels are not
      output.values[i] = clamped((Math.imul(pixel, factor[c]) + offset[c] + (1 << 15)) >> 16);
    }
  },

  Convolve(layer, [input], output) {
    const [rows, columns, filters] = output.shape;
    const { groups, patch, totals, weight, bias, multiplier } = layer;
    for (let y = 0, start = 0; y < rows; y++)
      for (let x = 0; x < columns; x++, start += filters) {
        gather(layer, input, y, x, patch);
        totals.set(bias);
        if (groups === 1) dense(weight, patch, totals);
        else grouped(weight, patch, input.shape[2], groups, totals);
        scale(totals, multiplier, output, start);
      }
  },

  Table({ table }, [input], output) {
    for (let i = 0; i < output.values.length; i++) output.values[i] = table[input.values[i] + 128];
  },

  Sum({ factors, shift }, [left, right], output) {
    const half = 1 << (shift - 1);
    for (let i = 0; i < output.values.length; i++) {
      const first = Math.imul(left.values[i] - left.zero, factors[0]);
      const second = Math.imul(right.values[i] - right.zero, factors[1]);
      output.values[i] = clamped(((first + second + half) >> shift) + output.zero);
    }
  },

  /* Over the pixels that are there; a mean is to the nearest, halves away from 0. */
  Pool({ kernel, stride, padding, averages }, [input], output) {
    const [height, width, channels] = input.shape;
    const [rows, columns] = output.shape;
    let target = 0;
    for (let y = 0; y < rows; y++)
      for (let x = 0; x < columns; x++) {
        const top = y * stride[0] - padding[0][0], left = x * stride[1] - padding[1][0];
        const bottom = Math.min(top + kernel[0], height), right = Math.min(left + kernel[1], width);
        for (let c = 0; c < channels; c++) {
          let total = 0, count = 0, best = -128;
          for (let row = Math.max(top, 0); row < bottom; row++)
            for (let column = Math.max(left, 0); column < right; column++, count++) {
              const value = input.values[(row * width + column) * channels + c];
              total += value;
              best = Math.max(best, value);
            }
          // A quotient of int32s is nearer to its double than to the next integer: truncating it is exact.
          const mean = Math.trunc((total + Math.sign(total) * (count >> 1)) / count);
          output.values[target++] = averages ? mean : best;
        }
      }
  },

  Average({ multiplier }, [input], output) {
    const channels = output.values.length;
    const totals = new Int32Array(1);
    for (let c = 0; c < channels; c++) {
      totals[0] = 0;
      for (let i = c; i < input.values.length; i += channels) totals[0] += input.values[i] - input.zero;
      scale(totals, multiplier, output, c);
    }
  },

  PadZeros({ height, width, channels }, [input], output) {
    output.values.fill(input.zero);
    copyImage(input, output, height[0], width[0], channels[0]);
  },

  Join(_, inputs, output) {
    let channel = 0;
    for (const input of inputs) {
      copyImage(input, output, 0, 0, channel);
      channel += input.shape[2];
    }
  },

  View(_, [input], output) {
    output.values.set(input.values);
  },
};

/* An image into a larger one. */
function copyImage(input, output, top, left, channel) {
  const [rows, columns, channels] = input.shape;
  const [, width, all] = output.shape;
  for (let y = 0; y < rows; y++)
    for (let x = 0; x < columns; x++) {
      const source = (y * columns + x) * channels;
      const pixel = input.values.subarray(source, source + channels);
      output.values.set(pixel, ((top + y) * width + left + x) * all + channel);
    }
}

/* Returns the function from an image's pixels, a Uint8Array of (height, width, channels), to its int8 scores. */
function openNetwork({ values, steps, constants }) {
  const bytes = Uint8Array.from(atob(constants), (letter) => letter.charCodeAt(0)).buffer;
  const int8 = ([start, length]) => new Int8Array(bytes, start, length);
  const int32 = ([start, length]) => new Int32Array(bytes, start, length);
  const arena = new Int8Array(Math.max(...values.map(({ start, size }) => start + size)));
  const opened = values.map(({ start, size, shape, zero }) => ({
    values: arena.subarray(start, start + size), shape, zero,
  }));
  const run = steps.map(({ kind, inputs, output, ...settings }) => {
    const { mantissa, shifts, weight, bias, table, factor, offset } = settings;
    if (mantissa) settings.multiplier = multipliers(int32(mantissa), int8(shifts));
    if (table) settings.table = int8(table);
    if (factor) Object.assign(settings, { factor: int32(factor), offset: int32(offset) });
    if (weight) {
      Object.assign(settings, { weight: int8(weight), bias: int32(bias), totals: new Int32Array(bias[1]) });
      settings.patch = new Int16Array((weight[1] / bias[1]) * settings.groups);
    }
    const given = inputs.map((number) => opened[number]);
    return () => operators[kind](settings, given, opened[output]);
  });
  const [image] = opened, scores = opened[steps.at(-1).output];
  return (pixels) => {
    if (pixels.length !== image.values.length)
      throw new RangeError(`${pixels.length} bytes: expected ${image.values.length}, ${image.shape.join("×")}`);
    image.values.set(pixels);
    run.forEach((step) => step());
    return scores.values.slice();
  };
}
