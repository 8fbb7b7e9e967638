// Pooling of windows that tile the image, then dropout; the input is made as in a stage. A window of 1×1 leaves
// a stage's input itself.
#pragma once

#include <new>

#include "stage.h"

namespace sepnet {

struct Pool {
  Stage stage;  // threads, images, shapes, x, coefficients, residual, activation, y; in the gradient grad_y, grad_x …
  int64_t window_rows, window_columns, average;
  const uint64_t* seed;  // of the dropout, drawn anew for every pass; may be null without one
  int64_t kept;  // in 2³² shares: an element stays where its random number is below; 2³² for no dropout
};

typedef uint32_t RandomVector __attribute__((vector_size(4 * LANES)));

// A permutation of 32-bit numbers without visible order. (Wellons 2018, "lowbias32".)
inline RandomVector mix(RandomVector x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x ^ (x >> 16);
}

inline RandomVector random_numbers(uint64_t seed, int64_t index) {
  RandomVector numbers;
  for (int i = 0; i < LANES; i++) numbers[i] = i;
  numbers += static_cast<uint32_t>(index) + static_cast<uint32_t>(seed);
  return mix(mix(numbers) ^ static_cast<uint32_t>(seed >> 32));
}

// 0 for a dropped element, else 1 / (share kept).
inline Vector dropout_factors(const Pool& pool, int64_t index) {
  if (pool.kept >> 32) return splat(1);
  RandomVector limit = RandomVector{} + static_cast<uint32_t>(pool.kept);
  float factor = static_cast<float>(4294967296.0 / static_cast<double>(pool.kept ? pool.kept : 1));
  return random_numbers(*pool.seed, index) < limit ? splat(factor) : zero();
}

// A window of ROWS × COLUMNS, or of any size where these are 0.
template <int ROWS, int COLUMNS>
struct Extent {
  int64_t rows_, columns_;
  explicit Extent(const Pool& pool) : rows_(pool.window_rows), columns_(pool.window_columns) {}
  int64_t rows() const { return ROWS ? ROWS : rows_; }
  int64_t columns() const { return COLUMNS ? COLUMNS : columns_; }
};

// One worker for every LANES channels, in the thread's own memory.
template <class Worker>
Worker* one_per_vector(const Stage& s) {
  Arena& own = own_arena();
  own.reserve(Arena::room<Worker>(s.in_vectors()));
  Worker* workers = own.take<Worker>(s.in_vectors());
  for (int64_t vector = 0; vector < s.in_vectors(); vector++) new (workers + vector) Worker(s, vector);
  return workers;
}

template <class T, bool SMOOTH, int ROWS, int COLUMNS>
void pool_forward_of(const Pool& pool) {
  const Stage& s = pool.stage;
  const Extent<ROWS, COLUMNS> window(pool);
  const float share = 1.0f / static_cast<float>(window.rows() * window.columns());
  const bool average = pool.average, dropped = !(pool.kept >> 32);
  share_out(s.images, s.threads, [&](int64_t, int64_t first, int64_t last) {
    Input<T>* inputs = one_per_vector<Input<T>>(s);
    for (int64_t image = first; image < last; image++) {
      int64_t index = image * s.out_positions() * s.channels;
      for (int64_t row = 0; row < s.out_height; row++) {
        int64_t corner = (image * s.height + row * window.rows()) * s.width;
        for (int64_t column = 0; column < s.out_width; column++, corner += window.columns(), index += s.channels)
          for (int64_t vector = 0; vector < s.in_vectors(); vector++) {
            const Input<T>& input = inputs[vector];
            Vector value = input.template at<SMOOTH>(corner);
            for (int64_t y = 0; y < window.rows(); y++)
              for (int64_t x = y ? 0 : 1; x < window.columns(); x++) {
                Vector other = input.template at<SMOOTH>(corner + y * s.width + x);
                value = average ? value + other : larger(value, other);
              }
            if (average) value *= share;
            if (dropped) value *= dropout_factors(pool, index + vector * LANES);
            store_lanes(static_cast<T*>(s.y) + index + vector * LANES, value, input.lanes);
          }
      }
    }
  });
}

// The gradient by the inputs of one window whose first `rows` × `columns` positions lie in the image.
template <class T, bool SMOOTH, int ROWS, int COLUMNS>
[[gnu::always_inline]] inline void spread_slope(InputGradient<T>& finish, int64_t corner, int64_t width, int64_t rows,
                                                int64_t columns, Vector slope, bool average) {
  Vector highest = finish.input.template at<SMOOTH>(corner);
  if (!average)
    for (int64_t y = 0; y < rows; y++)
      for (int64_t x = y ? 0 : 1; x < columns; x++)
        highest = larger(highest, finish.input.template at<SMOOTH>(corner + y * width + x));
  for (int64_t y = 0; y < rows; y++)
    for (int64_t x = 0; x < columns; x++) {
      int64_t position = corner + y * width + x;
      Vector value = finish.input.template at<SMOOTH>(position);
      if (average || (ROWS == 1 && COLUMNS == 1)) {
        finish.template take<SMOOTH>(position, slope, value);
      } else {  // the first of equal ones takes it all, as in PyTorch
        finish.template take<SMOOTH>(position, where_equal(value, highest, slope), value);
        slope = where_equal(value, highest, zero(), slope);
      }
    }
}

template <class T, bool SMOOTH, int ROWS, int COLUMNS>
void pool_backward_of(const Pool& pool) {
  const Stage& s = pool.stage;
  const Extent<ROWS, COLUMNS> window(pool);
  const int64_t padded = s.padded_in(), parts = parts_of(s.images);
  const float share = 1.0f / static_cast<float>(window.rows() * window.columns());
  const bool average = pool.average, dropped = !(pool.kept >> 32);
  Arena& shared = shared_arena();
  shared.reserve(Arena::room<double>(parts * 2 * padded));
  double* totals = shared.take<double>(parts * 2 * padded);
  std::fill(totals, totals + parts * 2 * padded, 0.0);
  share_out(s.images, s.threads, [&](int64_t part, int64_t first, int64_t last) {
    InputGradient<T>* finishers = one_per_vector<InputGradient<T>>(s);
    for (int64_t image = first; image < last; image++) {
      int64_t index = image * s.out_positions() * s.channels;
      // Positions beyond the last whole window get no slope from the pool, but are part of the input.
      for (int64_t top = 0; top < s.height; top += window.rows()) {
        const int64_t rows = std::min(window.rows(), s.height - top);
        for (int64_t side = 0; side < s.width; side += window.columns()) {
          const int64_t columns = std::min(window.columns(), s.width - side);
          const int64_t corner = (image * s.height + top) * s.width + side;
          const bool whole = rows == window.rows() && columns == window.columns();
          for (int64_t vector = 0; vector < s.in_vectors(); vector++) {
            InputGradient<T>& finish = finishers[vector];
            if (!whole) {
              spread_slope<T, SMOOTH, 0, 0>(finish, corner, s.width, rows, columns, zero(), average);
              continue;
            }
            const int64_t at = index + vector * LANES;
            Vector slope = load_lanes(static_cast<const T*>(s.grad_y) + at, finish.input.lanes);
            if (dropped) slope *= dropout_factors(pool, at);
            if (average) slope *= share;
            spread_slope<T, SMOOTH, ROWS, COLUMNS>(finish, corner, s.width, window.rows(), window.columns(), slope,
                                                   average);
          }
          if (whole) index += s.channels;
        }
      }
    }
    for (int64_t vector = 0; vector < s.in_vectors(); vector++)
      finishers[vector].add_to(totals + part * 2 * padded, padded);
  });
  if (s.grad_coefficients) add_coefficients(s, totals, parts);
}

inline bool is_window(const Pool& pool, int64_t extent) {
  return pool.window_rows == extent && pool.window_columns == extent;
}

template <class T>
void pool_forward(const Pool& pool) {
  by_smoothness(pool.stage, [&](auto smooth) {
    if (is_window(pool, 1))
      pool_forward_of<T, smooth, 1, 1>(pool);
    else if (is_window(pool, 2))
      pool_forward_of<T, smooth, 2, 2>(pool);
    else
      pool_forward_of<T, smooth, 0, 0>(pool);
  });
}

template <class T>
void pool_backward(const Pool& pool) {
  by_smoothness(pool.stage, [&](auto smooth) {
    if (is_window(pool, 1))
      pool_backward_of<T, smooth, 1, 1>(pool);
    else if (is_window(pool, 2))
      pool_backward_of<T, smooth, 2, 2>(pool);
    else
      pool_backward_of<T, smooth, 0, 0>(pool);
  });
}

}  // namespace sepnet
