// Matrix products whose right side is cut into panels of up to four vectors of columns.
#pragma once

#include <algorithm>

#include "vector.h"

namespace sepnet {

#if defined(__AVX512F__)
constexpr int WIDEST = 4;  // vectors in a panel; rows × vectors sums, the vectors and one number fill 32 registers
constexpr int rows_for(int vectors) { return vectors == 4 ? 6 : vectors == 3 ? 8 : 12; }
#else
constexpr int WIDEST = 2;  // of 16 registers
constexpr int rows_for(int vectors) { return vectors == 2 ? 6 : 10; }
#endif

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A's number for (row, unit) lies at a + row * row_stride + unit * unit_stride, in bytes.
struct Left {
  const char* data;
  int64_t row_stride, unit_stride;
};

// sums[r][v] += A[r, :] · B[:, LANES v …] over `units`; a row of B's panel is b_stride floats.
template <class T, int ROWS, int VECTORS>
[[gnu::always_inline]] inline void multiply(Left a, const float* b, int64_t b_stride, int64_t units,
                                            Vector (&sums)[ROWS][VECTORS]) {
  // A base for every three rows, so that each address is base + {0, 1, 2} strides.
  constexpr int BASES = (ROWS + 2) / 3;
  const char* bases[BASES];
#pragma GCC unroll 8
  for (int i = 0; i < BASES; i++) bases[i] = a.data + 3 * i * a.row_stride;
  Vector local[ROWS][VECTORS];
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) local[r][v] = sums[r][v];
  for (int64_t unit = 0; unit < units; unit++) {
    Vector right[VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) right[v] = load(b + v * LANES);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
      float number;
      std::memcpy(&number, bases[r / 3] + (r % 3) * a.row_stride, 4);
#if defined(__AVX512F__)
      Vector left = _mm512_set1_ps(number);
#else
      Vector left = splat(number);
#endif
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) local[r][v] = dot<T>(local[r][v], left, right[v]);
    }
    b += b_stride;
#pragma GCC unroll 8
    for (int i = 0; i < BASES; i++) bases[i] += a.unit_stride;
  }
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) sums[r][v] = local[r][v];
}

// How columns are cut into panels: of the widest kind, and the last ones so that none is one vector only.
struct Panels {
  int64_t vectors, count;
  explicit Panels(int64_t columns) : vectors(ceil_div(columns, LANES)), count(ceil_div(vectors, WIDEST)) {}
  int64_t first(int64_t panel) const {
    const bool lonely = WIDEST > 2 && vectors % WIDEST == 1 && count > 1;
    if (panel == count) return vectors;
    return panel * WIDEST - (lonely && panel == count - 1);
  }
  int64_t width(int64_t panel) const { return first(panel + 1) - first(panel); }
};

template <class T, int VECTORS, int ROWS, class Done>
inline void rows_left(Left a, const float* b, int64_t b_stride, int64_t units, int64_t row, int64_t left, int64_t vector,
                      Done& done) {
  if constexpr (ROWS > 0) {
    if (left == ROWS) {
      Vector sums[ROWS][VECTORS] = {};
      multiply<T, ROWS, VECTORS>(a, b, b_stride, units, sums);
      done(row, vector, sums);
    } else {
      rows_left<T, VECTORS, ROWS - 1>(a, b, b_stride, units, row, left, vector, done);
    }
  }
}

template <class T, int VECTORS, class Done>
[[gnu::noinline]] void panel_product(Left a, int64_t rows, const float* b, int64_t b_stride, int64_t units, int64_t vector,
                          Done& done) {
  constexpr int ROWS = rows_for(VECTORS);
  int64_t row = 0;
  for (; row + ROWS <= rows; row += ROWS) {
    Vector sums[ROWS][VECTORS] = {};
    multiply<T, ROWS, VECTORS>({a.data + row * a.row_stride, a.row_stride, a.unit_stride}, b, b_stride, units, sums);
    done(row, vector, sums);
  }
  rows_left<T, VECTORS, ROWS - 1>({a.data + row * a.row_stride, a.row_stride, a.unit_stride}, b, b_stride, units, row,
                                  rows - row, vector, done);
}

template <class T, class Done>
inline void panel_product(int64_t width, Left a, int64_t rows, const float* b, int64_t b_stride, int64_t units,
                          int64_t vector, Done& done) {
  if (width == 1) panel_product<T, 1>(a, rows, b, b_stride, units, vector, done);
  if (width == 2) panel_product<T, 2>(a, rows, b, b_stride, units, vector, done);
  if constexpr (WIDEST >= 4) {
    if (width == 3) panel_product<T, 3>(a, rows, b, b_stride, units, vector, done);
    if (width == 4) panel_product<T, 4>(a, rows, b, b_stride, units, vector, done);
  }
}

// A · B for a packed B, panel after panel; done(row, vector, sums) takes each finished block.
template <class T, class Done>
inline void product(Left a, int64_t rows, const float* packed, int64_t units, int64_t columns, Done&& done) {
  Panels panels(columns);
  for (int64_t p = 0; p < panels.count; p++) {
    int64_t width = panels.width(p), first = panels.first(p);
    panel_product<T>(width, a, rows, packed + first * LANES * units, width * LANES, units, first, done);
  }
}

template <class T>
inline int64_t units_of(int64_t depth) {
  return ceil_div(depth, PER_UNIT<T>);
}

inline float unit_of(const float* numbers, float*) { return numbers[0]; }
inline float unit_of(const float* numbers, bf16*) {
  bf16 both[2];
  from_float(numbers[0], &both[0]);
  from_float(numbers[1], &both[1]);
  float unit;
  std::memcpy(&unit, both, 4);
  return unit;
}

// Write the matrix with at(depth, column) = from[depth * depth_stride + column * column_stride] in panels of `units`,
// of which those beyond its depth are 0.
template <class T>
inline void pack(float* to, const float* from, int64_t depth, int64_t units, int64_t columns, int64_t depth_stride,
                 int64_t column_stride) {
  Panels panels(columns);
  for (int64_t p = 0; p < panels.count; p++) {
    int64_t first = panels.first(p) * LANES, wide = panels.width(p) * LANES;
    for (int64_t unit = 0; unit < units; unit++)
      for (int64_t c = 0; c < wide; c++) {
        float numbers[2] = {};
        for (int64_t i = 0; i < PER_UNIT<T>; i++) {
          int64_t k = unit * PER_UNIT<T> + i;
          if (k < depth && first + c < columns) numbers[i] = from[k * depth_stride + (first + c) * column_stride];
        }
        *to++ = unit_of(numbers, static_cast<T*>(nullptr));
      }
  }
}

// C += Aᵀ · B over `units` positions, both laid out [unit][column]; C is [rows][vectors * LANES] in float.
template <class T, class Step>
inline void add_outer_product(float* c, const float* a, int64_t a_columns, const float* b, int64_t b_columns,
                              int64_t units, Step&& step) {
  Panels panels(b_columns);
  for (int64_t p = 0; p < panels.count; p++) {
    auto add = [&](int64_t row, int64_t vector, auto& sums) {
      step();
      constexpr int ROWS = sizeof(sums) / sizeof(sums[0]);
      constexpr int VECTORS = sizeof(sums[0]) / sizeof(Vector);
#pragma GCC unroll 16
      for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
          float* to = c + (row + r) * b_columns + (vector + v) * LANES;
          store(to, load(to) + sums[r][v]);
        }
    };
    int64_t first = panels.first(p);
    Left left{reinterpret_cast<const char*>(a), 4, a_columns * 4};
    panel_product<T>(panels.width(p), left, a_columns, b + first * LANES, b_columns, units, first, add);
  }
}

}  // namespace sepnet
