// Depthwise convolution of LANES channels at a time, in float, on zero-bordered blocks [row][column][LANES].
#pragma once

#include "vector.h"

namespace sepnet {

struct Window {
  int64_t rows, columns;                  // of the kernel
  int64_t stride_rows, stride_columns;
  int64_t dilation_rows, dilation_columns;
  bool plain() const { return stride_rows == 1 && stride_columns == 1 && dilation_rows == 1 && dilation_columns == 1; }
};

constexpr int SPAN = 8;  // neighbouring positions computed at once

// sums[i] = Σ block[row + y, column + i + x] · weights[y, x]; `block` points at the first tap.
template <int K>
[[gnu::always_inline]] inline void correlate_square(const float* block, int64_t row_stride, const float* weights,
                                                    Vector (&sums)[SPAN]) {
  Vector local[SPAN] = {};
  for (int y = 0; y < K; y++) {
    Vector w[K];
#pragma GCC unroll 9
    for (int x = 0; x < K; x++) w[x] = load(weights + (y * K + x) * LANES);
#pragma GCC unroll 16
    for (int c = 0; c < SPAN + K - 1; c++) {
      Vector value = load(block + c * LANES);
#pragma GCC unroll 9
      for (int x = 0; x < K; x++)
        if (c - x >= 0 && c - x < SPAN) local[c - x] += value * w[x];
    }
    block += row_stride;
  }
#pragma GCC unroll 8
  for (int i = 0; i < SPAN; i++) sums[i] = local[i];
}

inline void correlate_any(const float* block, int64_t row_stride, const float* weights, const Window& window,
                          Vector (&sums)[SPAN]) {
  Vector local[SPAN] = {};
  for (int64_t y = 0; y < window.rows; y++)
    for (int64_t x = 0; x < window.columns; x++) {
      Vector w = load(weights + (y * window.columns + x) * LANES);
      const float* from = block + y * window.dilation_rows * row_stride + x * window.dilation_columns * LANES;
#pragma GCC unroll 8
      for (int i = 0; i < SPAN; i++) local[i] += load(from + i * window.stride_columns * LANES) * w;
    }
#pragma GCC unroll 8
  for (int i = 0; i < SPAN; i++) sums[i] = local[i];
}

inline int square_of(const Window& window) {
  return window.plain() && window.rows == window.columns ? static_cast<int>(window.rows) : 0;
}

// done(row, column, count, sums) for every run of up to SPAN outputs. Reads up to SPAN positions past a row's end.
template <int K, class Done>
[[gnu::noinline]] void correlate_rows(const float* block, int64_t block_columns, const float* weights, const Window& window,
                           int64_t rows, int64_t columns, Done& done) {
  int64_t row_stride = block_columns * LANES;
  for (int64_t row = 0; row < rows; row++)
    for (int64_t column = 0; column < columns; column += SPAN) {
      const float* from = block + row * window.stride_rows * row_stride + column * window.stride_columns * LANES;
      Vector sums[SPAN];
      if constexpr (K > 0)
        correlate_square<K>(from, row_stride, weights, sums);
      else
        correlate_any(from, row_stride, weights, window, sums);
      int64_t count = columns - column < SPAN ? columns - column : SPAN;
      done(row, column, count, sums);
    }
}

template <class Done>
inline void correlate(const float* block, int64_t block_columns, const float* weights, const Window& window,
                      int64_t rows, int64_t columns, Done&& done) {
  switch (square_of(window)) {
    case 3: return correlate_rows<3>(block, block_columns, weights, window, rows, columns, done);
    case 5: return correlate_rows<5>(block, block_columns, weights, window, rows, columns, done);
    case 7: return correlate_rows<7>(block, block_columns, weights, window, rows, columns, done);
    case 9: return correlate_rows<9>(block, block_columns, weights, window, rows, columns, done);
    default: return correlate_rows<0>(block, block_columns, weights, window, rows, columns, done);
  }
}

// totals[y, x] += Σ block[row + y, column + x] · slopes[row, column], for K×K taps, ROWS kernel rows at once.
template <int K, int ROWS>
[[gnu::noinline]] void add_tap_sums(const float* block, int64_t row_stride, const float* slopes, int64_t slope_stride,
                         int64_t rows, int64_t columns, float* totals) {
  Vector sums[ROWS][K];
#pragma GCC unroll 9
  for (int y = 0; y < ROWS; y++)
#pragma GCC unroll 9
    for (int x = 0; x < K; x++) sums[y][x] = load(totals + (y * K + x) * LANES);
  for (int64_t row = 0; row < rows; row++)
    for (int64_t column = 0; column < columns; column += SPAN) {
      const float* s = slopes + row * slope_stride + column * LANES;
      Vector slope[SPAN];
      if (columns - column >= SPAN) {
#pragma GCC unroll 8
        for (int i = 0; i < SPAN; i++) slope[i] = load(s + i * LANES);
      } else {
#pragma GCC unroll 8
        for (int i = 0; i < SPAN; i++) slope[i] = i < columns - column ? load(s + i * LANES) : zero();
      }
      const float* from = block + row * row_stride + column * LANES;
#pragma GCC unroll 9
      for (int y = 0; y < ROWS; y++) {
#pragma GCC unroll 16
        for (int c = 0; c < SPAN + K - 1; c++) {
          Vector value = load(from + y * row_stride + c * LANES);
#pragma GCC unroll 9
          for (int x = 0; x < K; x++)
            if (c - x >= 0 && c - x < SPAN) sums[y][x] += value * slope[c - x];
        }
      }
    }
#pragma GCC unroll 9
  for (int y = 0; y < ROWS; y++)
#pragma GCC unroll 9
    for (int x = 0; x < K; x++) store(totals + (y * K + x) * LANES, sums[y][x]);
}

template <int K>
inline void add_tap_sums_square(const float* block, int64_t row_stride, const float* slopes, int64_t slope_stride,
                                int64_t rows, int64_t columns, float* totals) {
  if constexpr (K == 3) {
    add_tap_sums<3, 3>(block, row_stride, slopes, slope_stride, rows, columns, totals);
  } else {
    for (int y = 0; y < K; y++)
      add_tap_sums<K, 1>(block + y * row_stride, row_stride, slopes, slope_stride, rows, columns,
                         totals + y * K * LANES);
  }
}

// As above for any window; `slopes` lies with the window's stride between its rows and columns.
inline void add_tap_sums_any(const float* block, int64_t row_stride, const float* slopes, int64_t slope_stride,
                             const Window& window, int64_t rows, int64_t columns, float* totals) {
  for (int64_t y = 0; y < window.rows; y++)
    for (int64_t x = 0; x < window.columns; x++) {
      Vector sums[4] = {};
      for (int64_t row = 0; row < rows; row++) {
        const float* from = block + (row * window.stride_rows + y * window.dilation_rows) * row_stride +
                            x * window.dilation_columns * LANES;
        const float* s = slopes + row * window.stride_rows * slope_stride;
        int64_t step = window.stride_columns * LANES, column = 0;
        for (; column + 4 <= columns; column += 4)
#pragma GCC unroll 4
          for (int i = 0; i < 4; i++) sums[i] += load(from + (column + i) * step) * load(s + (column + i) * step);
        for (; column < columns; column++) sums[0] += load(from + column * step) * load(s + column * step);
      }
      float* to = totals + (y * window.columns + x) * LANES;
      store(to, load(to) + ((sums[0] + sums[1]) + (sums[2] + sums[3])));
    }
}

inline void add_taps(const float* block, int64_t block_columns, const float* slopes, int64_t slope_columns,
                     const Window& window, int64_t rows, int64_t columns, float* totals) {
  int64_t block_stride = block_columns * LANES, slope_stride = slope_columns * LANES;
  switch (square_of(window)) {
    case 3: return add_tap_sums_square<3>(block, block_stride, slopes, slope_stride, rows, columns, totals);
    case 5: return add_tap_sums_square<5>(block, block_stride, slopes, slope_stride, rows, columns, totals);
    case 7: return add_tap_sums_square<7>(block, block_stride, slopes, slope_stride, rows, columns, totals);
    case 9: return add_tap_sums_square<9>(block, block_stride, slopes, slope_stride, rows, columns, totals);
    default: return add_tap_sums_any(block, block_stride, slopes, slope_stride, window, rows, columns, totals);
  }
}

}  // namespace sepnet
