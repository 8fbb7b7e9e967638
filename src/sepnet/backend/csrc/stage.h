// One stage of a separable network, image by image in cache, forward and backward.
//
//   input  = activation(x * scale + shift + residual)                    each part optional
//   middle = depthwise(input)                                            optional
//   y      = relu_out?(pointwise(middle) + bias)                         pointwise optional
//   sums   = sum of y and of y² over all positions, channel by channel
//
// Tensors are (N, H, W, C), contiguous, of float or bf16; coefficients and weights are float, sums double.
#pragma once

#include <type_traits>

#include "activation.h"
#include "depthwise.h"
#include "memory.h"
#include "tiles.h"

namespace sepnet {

struct Stage {
  int64_t threads, images, height, width, channels, out_height, out_width, out_channels;
  Window window;
  int64_t pad_rows, pad_columns, activation, relu_out;
  const void* x;
  const float* coefficients;  // (2, C): scale, shift
  const void* residual;       // as x
  const float* depthwise;     // (C, taps)
  const float* pointwise;     // (out_channels, C)
  const float* bias;          // (out_channels)
  void* y;
  double* sums;    // (2, out_channels)
  void* middle;    // (N, out H, out W, C rounded up to LANES)
  void* given;     // as x: the input, kept
  const void* grad_y;
  const double* grad_sums;
  const void* grad_given;
  void* grad_x;
  float* grad_coefficients;
  void* grad_residual;
  float* grad_depthwise;
  float* grad_pointwise;
  float* grad_bias;

  // Whether a pointwise convolution takes x as it is.
  bool direct() const { return !depthwise && !coefficients && !residual && !activation && !given && !grad_given; }
  int64_t in_positions() const { return height * width; }
  int64_t out_positions() const { return out_height * out_width; }
  int64_t taps() const { return window.rows * window.columns; }
  int64_t in_vectors() const { return ceil_div(channels, LANES); }
  int64_t out_vectors() const { return ceil_div(out_channels, LANES); }
  int64_t padded_in() const { return in_vectors() * LANES; }
  int64_t padded_out() const { return out_vectors() * LANES; }
  // Small images are taken several at a time, so that products have enough rows.
  int64_t group() const { return std::max<int64_t>(1, std::min(images, 512 / std::max<int64_t>(1, out_positions()))); }
  int64_t tiles() const { return ceil_div(images, group()); }
  int64_t parts() const { return parts_of(tiles()); }
  int64_t block_rows() const { return height + 2 * pad_rows; }
  int64_t block_columns() const { return width + 2 * pad_columns; }
  int64_t slack() const { return (SPAN + window.columns * window.dilation_columns) * window.stride_columns; }
  int64_t block_floats() const { return (block_rows() * block_columns() + slack()) * LANES; }
  int64_t reach_rows() const { return (window.rows - 1) * window.dilation_rows; }
  int64_t reach_columns() const { return (window.columns - 1) * window.dilation_columns; }
  int64_t slope_columns() const { return width + reach_columns(); }
  int64_t slope_floats() const { return ((height + reach_rows()) * slope_columns() + slack()) * LANES; }
};

inline int lanes_at(int64_t channels, int64_t vector) {
  return static_cast<int>(std::min<int64_t>(LANES, channels - vector * LANES));
}

// The stage's input, LANES channels of one position at a time.
template <class T>
struct Input {
  const T* x;
  const T* residual;
  int64_t channels;
  int lanes;
  bool affine;
  Activation activation;
  Vector scale, shift;

  Input(const Stage& s, int64_t vector)
      : x(static_cast<const T*>(s.x) + vector * LANES),
        residual(s.residual ? static_cast<const T*>(s.residual) + vector * LANES : nullptr),
        channels(s.channels),
        lanes(lanes_at(s.channels, vector)),
        affine(s.coefficients),
        activation(static_cast<Activation>(s.activation)),
        scale(splat(1)),
        shift(zero()) {
    if (affine) {
      scale = load_part(s.coefficients + vector * LANES, lanes);
      shift = load_part(s.coefficients + s.channels + vector * LANES, lanes);
    }
  }
  [[gnu::always_inline]] Vector raw(int64_t position) const { return load_lanes(x + position * channels, lanes); }
  [[gnu::always_inline]] Vector before(int64_t position) const {
    Vector value = raw(position);
    if (affine) value = value * scale + shift;
    if (residual) value += load_lanes(residual + position * channels, lanes);
    return value;
  }
  template <bool SMOOTH>
  [[gnu::always_inline]] Vector at(int64_t position) const {
    Vector value = before(position);
    if (SMOOTH) return smooth(activation, value);
    return activation == RELU ? positive(value) : value;
  }
};

// Call a function with std::true_type if the stage's activation is a smooth one, else with std::false_type.
template <class Function>
void by_smoothness(const Stage& s, Function function) {
  if (s.activation > RELU)
    function(std::true_type());
  else
    function(std::false_type());
}

// Write the input of one image and LANES channels into a zero-bordered block.
template <class T, bool SMOOTH>
[[gnu::noinline]] void fill_block(const Stage& s, int64_t image, int64_t vector, float* block, T* copy) {
  Input<T> input(s, vector);
  int64_t position = image * s.in_positions();
  for (int64_t row = 0; row < s.height; row++) {
    float* to = block + ((row + s.pad_rows) * s.block_columns() + s.pad_columns) * LANES;
    if (input.lanes == LANES && !copy) {
      input.lanes = LANES;
      for (int64_t column = 0; column < s.width; column++, position++, to += LANES) store(to, input.template at<SMOOTH>(position));
      continue;
    }
    for (int64_t column = 0; column < s.width; column++, position++, to += LANES) {
      Vector value = input.template at<SMOOTH>(position);
      store(to, value);
      if (copy) store_lanes(copy + position * s.channels + vector * LANES, value, input.lanes);
    }
  }
}

// Depthwise weights (C, taps) as [vector][tap][LANES], reversed if asked.
inline void arrange_taps(const Stage& s, float* to, bool reversed) {
  int64_t taps = s.taps();
  for (int64_t vector = 0; vector < s.in_vectors(); vector++)
    for (int64_t tap = 0; tap < taps; tap++)
      for (int64_t lane = 0; lane < LANES; lane++) {
        int64_t channel = vector * LANES + lane, from = reversed ? taps - 1 - tap : tap;
        *to++ = channel < s.channels ? s.depthwise[channel * taps + from] : 0.0f;
      }
}

// Takes finished values, adds bias, clips, sums, stores: the end of a forward stage.
template <class T>
struct Output {
  T* y;
  int64_t channels;
  bool relu, summed;
  const float* bias;  // padded
  float* sums;        // [2][padded]
  int64_t padded;
  Ahead* ahead;
  bool streamed;

  template <int ROWS, int VECTORS>
  [[gnu::always_inline]] void operator()(int64_t row, int64_t vector, Vector (&values)[ROWS][VECTORS], int rows = ROWS) {
    ahead->step();
    Vector added[VECTORS], first[VECTORS] = {}, second[VECTORS] = {};
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) added[v] = load(bias + (vector + v) * LANES);
    const bool whole = (vector + VECTORS) * LANES <= channels;
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
      if (r >= rows) break;
      T* to = y + (row + r) * channels + vector * LANES;
      Vector done[VECTORS];
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) {
        done[v] = values[r][v] + added[v];
        if (relu) done[v] = positive(done[v]);
        first[v] += done[v];
        second[v] += done[v] * done[v];
      }
      if (whole) {
#pragma GCC unroll 2
        for (int v = 0; v + 1 < VECTORS; v += 2) store_both(to + v * LANES, done[v], done[v + 1], streamed);
        if (VECTORS % 2) store(to + (VECTORS - 1) * LANES, done[VECTORS - 1]);
      } else {
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) store_lanes(to + v * LANES, done[v], lanes_at(channels, vector + v));
      }
    }
    if (summed)
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) {
        float* to = sums + (vector + v) * LANES;
        store(to, load(to) + first[v]);
        store(to + padded, load(to + padded) + second[v]);
      }
  }
};

// Whether an image tensor is so large that nothing of it will be in a cache when it is read again, and lies so that
// vectors can be written past the caches.
template <class T>
inline bool is_streamed(const void* tensor, int64_t positions, int64_t channels) {
  constexpr int64_t LARGE = 12 << 20, LINE = 64;
  const int64_t row = channels * sizeof(T);
  return sizeof(T) == 2 && row % LINE == 0 && reinterpret_cast<uintptr_t>(tensor) % LINE == 0 && positions * row > LARGE;
}

// A few values, as those of a pooled image over a small batch, may lie so close together that their variance is lost in
// the rounding of float's squares: a batch norm after them needs double.
constexpr int64_t FEW_POSITIONS = 256;

inline void sum_exactly(const Stage& s, double* totals, int64_t positions, int64_t padded_out) {
  std::fill(totals, totals + 2 * padded_out, 0.0);
  const float* y = static_cast<const float*>(s.y);
  for (int64_t position = 0; position < positions; position++)
    for (int64_t channel = 0; channel < s.out_channels; channel++) {
      const double value = y[position * s.out_channels + channel];
      totals[channel] += value;
      totals[padded_out + channel] += value * value;
    }
}

template <class T>
void forward(const Stage& s) {
  const int64_t padded_in = s.padded_in(), padded_out = s.padded_out();
  const bool deep = s.depthwise, wide = s.pointwise, as_it_is = s.direct() && s.channels % PER_UNIT<T> == 0;
  // In tiles, rows are taken with their padding, so that depths divide well.
  const bool in_whole = in_tiles<T>(units_of<T>(padded_in)) && !as_it_is;
  const int64_t units = units_of<T>(in_whole ? padded_in : s.channels);
  const bool tiled = in_tiles<T>(units);
  const int64_t group = s.group(), tiles = s.tiles();
  Arena& shared = shared_arena();
  shared.reserve(Arena::room<float>(s.taps() * padded_in) + Arena::room<float>((units + 1) * padded_out) +
                 Arena::room<float>(padded_out) + Arena::room<double>(s.parts() * 2 * padded_out));
  float* taps = shared.take<float>(s.taps() * padded_in);
  float* weights = shared.take<float>((units + 1) * padded_out);
  float* bias = shared.take<float>(padded_out);
  double* totals = shared.take<double>(s.parts() * 2 * padded_out);
  std::fill(totals, totals + s.parts() * 2 * padded_out, 0.0);
  std::fill(bias, bias + padded_out, 0.0f);
  if (s.bias) std::copy(s.bias, s.bias + s.out_channels, bias);
  if (deep) arrange_taps(s, taps, false);
  if (wide) pack<T>(weights, s.pointwise, s.channels, units, s.out_channels, 1, s.channels);

  share_out(tiles, s.threads, [&](int64_t part, int64_t first_tile, int64_t last_tile) {
    const int64_t rows_most = group * s.out_positions();
    Arena& own = own_arena();
    own.reserve(Arena::room<float>(s.block_floats()) + Arena::room<T>(rows_most * padded_in) +
                Arena::room<float>(2 * padded_out));
    float* block = own.take<float>(s.block_floats());
    T* own_middle = own.take<T>(rows_most * padded_in);
    float* sums = own.take<float>(2 * padded_out);
    std::fill(block, block + s.block_floats(), 0.0f);
    for (int64_t tile = first_tile; tile < last_tile; tile++) {
      const int64_t first = tile * group, last = std::min(s.images, first + group);
      const int64_t rows = (last - first) * s.out_positions(), start = first * s.out_positions();
      std::fill(sums, sums + 2 * padded_out, 0.0f);
      Ahead ahead;
      const int64_t next = std::min(last_tile * group, last + group) - last, in_values = s.in_positions() * s.channels;
      ahead.add(static_cast<const T*>(s.x) + last * in_values, next * in_values * sizeof(T));
      if (s.residual) ahead.add(static_cast<const T*>(s.residual) + last * in_values, next * in_values * sizeof(T));
      if (wide) ahead.spread(blocks_of(tiled, rows, s.out_channels));
      Output<T> output{static_cast<T*>(s.y) + start * s.out_channels, s.out_channels, bool(s.relu_out), bool(s.sums),
                       bias, sums, padded_out, &ahead, wide && is_streamed<T>(s.y, s.images * s.out_positions(), s.out_channels)};
      T* middle = s.middle ? static_cast<T*>(s.middle) + start * padded_in : own_middle;
      for (int64_t image = first; image < last && deep; image++)
        for (int64_t vector = 0; vector < s.in_vectors(); vector++) {
          by_smoothness(s, [&](auto smooth) {
            fill_block<T, smooth>(s, image, vector, block, static_cast<T*>(s.given));
          });
          auto done = [&](int64_t row, int64_t column, int64_t count, Vector(&values)[SPAN]) {
            int64_t position = (image - first) * s.out_positions() + row * s.out_width + column;
            if (wide) {
#pragma GCC unroll 8
              for (int i = 0; i < SPAN; i++)
                if (i < count) store(middle + (position + i) * padded_in + vector * LANES, values[i]);
            } else {
              Vector(&as_rows)[SPAN][1] = reinterpret_cast<Vector(&)[SPAN][1]>(values);
              output(position, vector, as_rows, static_cast<int>(count));
            }
          };
          correlate(block, s.block_columns(), taps + vector * s.taps() * LANES, s.window, s.out_height, s.out_width,
                    done);
        }
      if (wide) {
        Left left{reinterpret_cast<const char*>(middle), int64_t(padded_in * sizeof(T)), 4};
        if (as_it_is) {
          left.data = reinterpret_cast<const char*>(static_cast<const T*>(s.x) + start * s.channels);
          left.row_stride = s.channels * sizeof(T);
        } else if (!deep) {
          by_smoothness(s, [&](auto smooth) {
            for (int64_t vector = 0; vector < s.in_vectors(); vector++) {
              Input<T> input(s, vector);
              T* given = s.given ? static_cast<T*>(s.given) + start * s.channels + vector * LANES : nullptr;
              for (int64_t row = 0; row < rows; row++) {
                Vector value = input.template at<smooth>(start + row);
                store(middle + row * padded_in + vector * LANES, value);
                if (given) store_lanes(given + row * s.channels, value, input.lanes);
              }
            }
          });
        }
        product<T>(tiled, left, rows, weights, units, s.out_channels, output);
      }
      for (int64_t i = 0; i < 2 * padded_out; i++) totals[part * 2 * padded_out + i] += sums[i];
    }
    stream_end();
  });

  add_parts(totals, s.parts(), 2 * padded_out);
  if (!s.sums) return;
  const int64_t positions = s.images * s.out_positions();
  if (sizeof(T) == sizeof(float) && positions <= FEW_POSITIONS) sum_exactly(s, totals, positions, padded_out);
  for (int64_t which = 0; which < 2; which++)
    for (int64_t channel = 0; channel < s.out_channels; channel++)
      s.sums[which * s.out_channels + channel] = totals[which * padded_out + channel];
}

// Takes the gradient by the stage's input, position by position, and writes that by x and by the residual.
template <class T>
struct InputGradient {
  const Stage& s;
  Input<T> input;
  int64_t vector;
  Vector by_scale, by_shift;

  InputGradient(const Stage& stage, int64_t which)
      : s(stage), input(stage, which), vector(which), by_scale(zero()), by_shift(zero()) {}

  // `gate` is the input itself, which a smooth activation has no need of.
  template <bool SMOOTH>
  [[gnu::always_inline]] void take(int64_t position, Vector slope, Vector gate) {
    int64_t at = position * s.channels + vector * LANES;
    if (s.grad_given) slope += load_lanes(static_cast<const T*>(s.grad_given) + at, input.lanes);
    if (SMOOTH)
      slope *= smooth_slope(input.activation, input.before(position));
    else if (input.activation == RELU)
      slope = where_positive(gate, slope);
    if (s.grad_residual) store_lanes(static_cast<T*>(s.grad_residual) + at, slope, input.lanes);
    if (input.affine) {
      by_shift += slope;
      by_scale += slope * input.raw(position);
      slope *= input.scale;
    }
    if (s.grad_x) store_lanes(static_cast<T*>(s.grad_x) + at, slope, input.lanes);
  }
  void add_to(double* totals, int64_t padded) const {
    for (int i = 0; i < LANES; i++) {
      totals[vector * LANES + i] += by_scale[i];
      totals[padded + vector * LANES + i] += by_shift[i];
    }
  }
};

// The gradient by scale and shift, from what each part summed: [part][2][padded].
inline void add_coefficients(const Stage& s, double* totals, int64_t parts) {
  add_parts(totals, parts, 2 * s.padded_in());
  for (int64_t which = 0; which < 2; which++)
    for (int64_t channel = 0; channel < s.channels; channel++)
      s.grad_coefficients[which * s.channels + channel] = static_cast<float>(totals[which * s.padded_in() + channel]);
}

// The gradient by what the pointwise convolution (or the depthwise one, alone) gave: before bias, clipping and sums.
template <class T>
struct OutputGradient {
  const T* y;
  const T* slope;
  int64_t channels;
  bool relu, summed;
  const float* by_sums;  // [2][padded]
  int64_t padded;

  [[gnu::always_inline]] Vector operator()(int64_t row, int64_t vector, int lanes) const {
    int64_t at = row * channels + vector * LANES;
    Vector value = slope ? load_lanes(slope + at, lanes) : zero();
    if (summed || relu) {
      Vector own = load_lanes(y + at, lanes);
      if (summed) value += load(by_sums + vector * LANES) + own * load(by_sums + padded + vector * LANES);
      if (relu) value = where_positive(own, value);
    }
    return value;
  }
};

constexpr int64_t STRIP = 128;  // positions whose gradients are in the first cache at once

inline void put_pair(float* units, int64_t unit, int64_t padded, int64_t vector, Vector first, Vector, float*) {
  store(units + unit * padded + vector * LANES, first);
}
#if defined(__AVX512BF16__)
inline void put_pair(float* units, int64_t unit, int64_t padded, int64_t vector, Vector first, Vector second, bf16*) {
  store(units + unit * padded + vector * LANES, pair(first, second));
}
#endif

// Write the slopes of a strip's positions into zero-bordered blocks, for a depthwise convolution alone.
template <class T>
[[gnu::noinline]] void scatter_slopes(const OutputGradient<T>& gradient, int64_t start, int64_t count, int64_t vectors,
                                      float* slopes, int64_t slope_vector, const int64_t* places, float* by_bias) {
  for (int64_t vector = 0; vector < vectors; vector++) {
    const int lanes = lanes_at(gradient.channels, vector);
    Vector bias = load(by_bias + vector * LANES);
    for (int64_t row = 0; row < count; row++) {
      Vector value = gradient(start + row, vector, lanes);
      bias += value;
      store(slopes + vector * slope_vector + places[row], value);
    }
    store(by_bias + vector * LANES, bias);
  }
}

// Write the slopes of a strip's positions row by row, and in units of positions.
template <class T>
[[gnu::noinline]] void gather_slopes(const OutputGradient<T>& gradient, int64_t start, int64_t count, int64_t vectors,
                                     T* rows, float* units, float* by_bias) {
  constexpr int64_t PER = PER_UNIT<T>;
  const int64_t padded = vectors * LANES;
  for (int64_t row = 0; row < count; row += PER) {
    const bool both = row + 1 < count;
    int64_t vector = 0;
#if defined(__AVX512BF16__)
    if constexpr (PER == 2)
      for (; (vector + 2) * LANES <= gradient.channels; vector += 2) {
        Vector values[2][2];
#pragma GCC unroll 2
        for (int v = 0; v < 2; v++) {
          values[0][v] = gradient(start + row, vector + v, LANES);
          values[1][v] = both ? gradient(start + row + 1, vector + v, LANES) : zero();
          float* bias = by_bias + (vector + v) * LANES;
          if (by_bias) store(bias, load(bias) + (values[0][v] + values[1][v]));
        }
        __m512i first = narrow(values[0][0], values[0][1]), second = narrow(values[1][0], values[1][1]);
        _mm512_storeu_si512(rows + row * padded + vector * LANES, first);
        _mm512_storeu_si512(rows + (row + 1) * padded + vector * LANES, second);
        store_pairs(units + row / 2 * padded + vector * LANES, first, second);
      }
#endif
    for (; vector < vectors; vector++) {
      const int lanes = lanes_at(gradient.channels, vector);
      Vector value = gradient(start + row, vector, lanes), next = zero();
      store(rows + row * padded + vector * LANES, value);
      if (PER == 2 && both) {
        next = gradient(start + row + 1, vector, lanes);
        store(rows + (row + 1) * padded + vector * LANES, next);
      }
      put_pair(units, row / PER, padded, vector, value, next, static_cast<T*>(nullptr));
      if (by_bias) store(by_bias + vector * LANES, load(by_bias + vector * LANES) + (value + next));
    }
  }
}

// The strip's middle in units of positions.
template <class T>
[[gnu::noinline]] const float* gather_middle(const T* middle, int64_t count, int64_t vectors, float* units);
template <>
const float* gather_middle<float>(const float* middle, int64_t, int64_t, float*) {
  return middle;
}
#if defined(__AVX512BF16__)
template <>
const float* gather_middle<bf16>(const bf16* middle, int64_t count, int64_t vectors, float* units) {
  const int64_t padded = vectors * LANES;
  for (int64_t unit = 0; unit < ceil_div(count, 2); unit++) {
    const bf16* one = middle + unit * 2 * padded;
    float* to = units + unit * padded;
    const bool both = unit * 2 + 1 < count;
    int64_t vector = 0;
    for (; vector + 2 <= vectors; vector += 2)
      store_pairs(to + vector * LANES, _mm512_loadu_si512(one + vector * LANES),
                  both ? _mm512_loadu_si512(one + padded + vector * LANES) : _mm512_setzero_si512());
    if (vector < vectors)
      store(to + vector * LANES, both ? pair(one + vector * LANES, one + padded + vector * LANES)
                                      : pair(load(one + vector * LANES), zero()));
  }
  return units;
}
#endif

template <class T>
void backward(const Stage& s) {
  const int64_t padded_in = s.padded_in(), padded_out = s.padded_out();
  const bool tiled = in_tiles<T>(units_of<T>(padded_out));
  const int64_t units = units_of<T>(tiled ? padded_out : s.out_channels);
  const int64_t taps = s.taps(), group = s.group(), tiles = s.tiles();
  const bool deep = s.depthwise, wide = s.pointwise;
  const bool direct = s.direct() && s.channels % LANES == 0;
  const bool streamed = direct && s.grad_x && is_streamed<T>(s.grad_x, s.images * s.out_positions(), s.channels);
  constexpr int64_t PER = PER_UNIT<T>;
  const int64_t per_part = padded_in * padded_out + taps * padded_in + padded_out;
  Arena& shared = shared_arena();
  shared.reserve(Arena::room<float>(taps * padded_in) + Arena::room<float>((units + 1) * padded_in) +
                 Arena::room<float>(2 * padded_out) + Arena::room<float>(s.parts() * per_part) +
                 Arena::room<double>(s.parts() * 2 * padded_in));
  float* reversed = shared.take<float>(taps * padded_in);
  float* weights = shared.take<float>((units + 1) * padded_in);
  float* by_sums = shared.take<float>(2 * padded_out);
  float* by_weights = shared.take<float>(s.parts() * per_part);
  double* totals = shared.take<double>(s.parts() * 2 * padded_in);
  std::fill(totals, totals + s.parts() * 2 * padded_in, 0.0);
  std::fill(by_sums, by_sums + 2 * padded_out, 0.0f);
  if (s.grad_sums)
    for (int64_t channel = 0; channel < s.out_channels; channel++) {
      by_sums[channel] = static_cast<float>(s.grad_sums[channel]);
      by_sums[padded_out + channel] = static_cast<float>(2 * s.grad_sums[s.out_channels + channel]);
    }
  if (deep) arrange_taps(s, reversed, true);
  if (wide) pack<T>(weights, s.pointwise, s.out_channels, units, s.channels, s.channels, 1);

  share_out(tiles, s.threads, [&](int64_t part, int64_t first_tile, int64_t last_tile) {
    const int64_t slope_floats = s.slope_floats(), slope_vector = slope_floats * group;
    const int64_t slopes_room = deep ? slope_vector * s.in_vectors() : STRIP * padded_in;
    Arena& own = own_arena();
    own.reserve(Arena::room<float>(s.block_floats()) + Arena::room<float>(slopes_room) +
                Arena::room<int64_t>(group * s.out_positions()) + Arena::room<T>(STRIP * padded_out) +
                Arena::room<float>(STRIP / PER * padded_out) + Arena::room<float>(STRIP / PER * padded_in) +
                Arena::room<T>(STRIP * padded_in) + Arena::room<float>(taps * LANES));
    float* block = own.take<float>(s.block_floats());
    float* slopes = own.take<float>(slopes_room);
    int64_t* places = own.take<int64_t>(group * s.out_positions());
    T* rows_of_slopes = own.take<T>(STRIP * padded_out);
    float* units_of_slopes = own.take<float>(STRIP / PER * padded_out);
    float* units_of_middle = own.take<float>(STRIP / PER * padded_in);
    T* inputs = own.take<T>(STRIP * padded_in);
    float* tile_taps = own.take<float>(taps * LANES);
    float* by_pointwise = by_weights + part * per_part;
    std::fill(by_pointwise, by_pointwise + per_part, 0.0f);
    float* by_depthwise = by_pointwise + padded_in * padded_out;
    float* by_bias = by_depthwise + taps * padded_in;
    double* by_coefficients = totals + part * 2 * padded_in;
    std::fill(block, block + s.block_floats(), 0.0f);
    const int64_t margin = (s.reach_rows() - s.pad_rows) * s.slope_columns() + s.reach_columns() - s.pad_columns;
    if (deep) {
      std::fill(slopes, slopes + slopes_room, 0.0f);
      for (int64_t row = 0; row < group * s.out_positions(); row++) {
        int64_t image = row / s.out_positions(), position = row % s.out_positions();
        int64_t at = position / s.out_width * s.window.stride_rows * s.slope_columns() +
                     position % s.out_width * s.window.stride_columns + margin;
        places[row] = image * slope_floats + at * LANES;
      }
    }

    for (int64_t tile = first_tile; tile < last_tile; tile++) {
      const int64_t first = tile * group, last = std::min(s.images, first + group);
      const int64_t rows = (last - first) * s.out_positions(), start = first * s.out_positions();
      OutputGradient<T> gradient{static_cast<const T*>(s.y),
                                 static_cast<const T*>(s.grad_y),
                                 s.out_channels,
                                 bool(s.relu_out),
                                 bool(s.grad_sums),
                                 by_sums,
                                 padded_out};
      for (int64_t strip = 0; strip < rows; strip += STRIP) {
        const int64_t count = std::min(STRIP, rows - strip), strip_units = ceil_div(count, PER), at = start + strip;
        if (!wide) {
          scatter_slopes(gradient, at, count, s.out_vectors(), slopes, slope_vector, places + strip, by_bias);
          continue;
        }
        gather_slopes(gradient, at, count, s.out_vectors(), rows_of_slopes, units_of_slopes,
                      s.grad_bias ? by_bias : nullptr);

        const T* middle = s.middle ? static_cast<const T*>(s.middle) + at * padded_in
                          : direct ? static_cast<const T*>(s.x) + at * s.channels
                                   : inputs;
        if (!s.middle && !direct)
          by_smoothness(s, [&](auto smooth) {
            for (int64_t vector = 0; vector < s.in_vectors(); vector++) {
              Input<T> input(s, vector);
              for (int64_t row = 0; row < count; row++)
                store(inputs + row * padded_in + vector * LANES, input.template at<smooth>(at + row));
            }
          });
        const float* middle_units = gather_middle<T>(middle, count, s.in_vectors(), units_of_middle);
        Ahead ahead;
        const int64_t next = at + STRIP, soon = std::min(STRIP, rows - strip - STRIP);
        if (s.relu_out || s.grad_sums)
          ahead.add(static_cast<const T*>(s.y) + next * s.out_channels, soon * s.out_channels * sizeof(T));
        if (s.grad_y)
          ahead.add(static_cast<const T*>(s.grad_y) + next * s.out_channels, soon * s.out_channels * sizeof(T));
        if (s.middle)
          ahead.add(static_cast<const T*>(s.middle) + next * padded_in, soon * padded_in * sizeof(T));
        else
          ahead.add(static_cast<const T*>(s.x) + next * s.channels, soon * s.channels * sizeof(T));
        ahead.spread(blocks_of(tiled, padded_in, padded_out) + blocks_of(tiled, count, s.channels));
        add_outer_product<T>(tiled, by_pointwise, middle_units, padded_in, units_of_slopes, padded_out, strip_units,
                             [&] { ahead.step(); });

        Left left{reinterpret_cast<const char*>(rows_of_slopes), int64_t(padded_out * sizeof(T)), 4};
        if (direct && !s.grad_x) continue;
        product<T>(tiled, left, count, weights, units, s.channels,
                   [&](int64_t row, int64_t vector, auto& sums, int rows_here = sizeof(sums) / sizeof(sums[0])) {
          constexpr int ROWS = sizeof(sums) / sizeof(sums[0]);
          constexpr int VECTORS = sizeof(sums[0]) / sizeof(Vector);
          ahead.step();
#pragma GCC unroll 16
          for (int r = 0; r < ROWS; r++) {
            if (r >= rows_here) break;
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++)
              if (direct) {
                T* to = static_cast<T*>(s.grad_x) + (at + row + r) * s.channels + (vector + v) * LANES;
                if (v % 2 == 0 && v + 1 < VECTORS)
                  store_both(to, sums[r][v], sums[r][v + 1 < VECTORS ? v + 1 : v], streamed);
                else if (v % 2 == 0)
                  store(to, sums[r][v]);
              } else if (deep)
                store(slopes + (vector + v) * slope_vector + places[strip + row + r], sums[r][v]);
              else
                store(slopes + (row + r) * padded_in + (vector + v) * LANES, sums[r][v]);
          }
        });
        if (deep || direct) continue;
        by_smoothness(s, [&](auto smooth) {
          for (int64_t vector = 0; vector < s.in_vectors(); vector++) {
            InputGradient<T> finish(s, vector);
            for (int64_t row = 0; row < count; row++) {
              Vector gate = smooth ? zero() : finish.input.template at<false>(at + row);
              finish.template take<smooth>(at + row, load(slopes + row * padded_in + vector * LANES), gate);
            }
            finish.add_to(by_coefficients, padded_in);
          }
        });
      }
      if (!deep) continue;
      for (int64_t vector = 0; vector < s.in_vectors(); vector++) {
        InputGradient<T> finish(s, vector);
        std::fill(tile_taps, tile_taps + taps * LANES, 0.0f);
        for (int64_t image = first; image < last; image++) {
          const float* slope = slopes + vector * slope_vector + (image - first) * slope_floats;
          by_smoothness(s, [&](auto smooth) { fill_block<T, smooth>(s, image, vector, block, nullptr); });
          add_taps(block, s.block_columns(), slope + margin * LANES, s.slope_columns(), s.window, s.out_height,
                   s.out_width, tile_taps);
          if (!s.grad_x && !s.grad_residual && !s.grad_coefficients) continue;
          Window plain = s.window;
          plain.stride_rows = plain.stride_columns = 1;
          by_smoothness(s, [&](auto smooth) {
            auto done = [&](int64_t row, int64_t column, int64_t count, Vector(&values)[SPAN]) {
              const float* gate =
                  block + ((row + s.pad_rows) * s.block_columns() + column + s.pad_columns) * LANES;
              int64_t position = image * s.in_positions() + row * s.width + column;
#pragma GCC unroll 8
              for (int i = 0; i < SPAN; i++)
                if (i < count) finish.template take<smooth>(position + i, values[i], load(gate + i * LANES));
            };
            correlate(slope, s.slope_columns(), reversed + vector * taps * LANES, plain, s.height, s.width, done);
          });
        }
        for (int64_t i = 0; i < taps * LANES; i++) by_depthwise[vector * taps * LANES + i] += tile_taps[i];
        finish.add_to(by_coefficients, padded_in);
      }
    }
    stream_end();
  });

  add_parts(by_weights, s.parts(), per_part);
  const float* by_depthwise = by_weights + padded_in * padded_out;
  const float* by_bias = by_depthwise + taps * padded_in;
  const int64_t paired = s.out_channels / 32 * 32;
  if (s.grad_pointwise)
    for (int64_t out = 0; out < s.out_channels; out++)
      for (int64_t channel = 0; channel < s.channels; channel++)
        s.grad_pointwise[out * s.channels + channel] =
            by_weights[place_of<T>(channel, padded_in) * padded_out + place_of<T>(out, paired)];
  if (s.grad_depthwise)
    for (int64_t channel = 0; channel < s.channels; channel++)
      for (int64_t tap = 0; tap < taps; tap++)
        s.grad_depthwise[channel * taps + tap] =
            by_depthwise[(channel / LANES * taps + tap) * LANES + channel % LANES];
  if (s.grad_bias) std::copy(by_bias, by_bias + s.out_channels, s.grad_bias);
  if (s.grad_coefficients) add_coefficients(s, totals, s.parts());
}

}  // namespace sepnet
