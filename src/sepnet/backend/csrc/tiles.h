// Matrix products of bf16 in the processor's tile registers (AMX), where it has them: sixteen rows by sixteen columns by
// thirty-two of depth at once. Operands lie as in product.h.
#pragma once

#include <type_traits>

#include "product.h"

#if defined(__AVX512BF16__) && defined(__has_include)
#if __has_include(<amxbf16intrin.h>)
#define SEPNET_TILES 1
#endif
#endif

#if defined(SEPNET_TILES)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace sepnet {

constexpr int64_t TILE = 16;  // rows of a tile, and 32-bit units of each
constexpr int PART = 4;       // rows of sums that done() takes at once: more would make much code

#if defined(SEPNET_TILES)

inline bool tiles_in_use = false;

// Linux lends a process the tiles when it asks for them.
inline bool use_tiles(bool wanted) {
  constexpr long REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return tiles_in_use = wanted && syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

// Registers 0 to 3: sums of `rows` rows; 4: as many rows of the left side, `units` wide; 5 to 7: `units` of the right.
[[gnu::target("amx-tile")]] inline void set_tiles(int64_t rows, int64_t units) {
  struct alignas(64) {
    uint8_t palette = 1, start = 0, unused[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  } shapes;
  for (int i = 0; i < 8; i++) {
    shapes.row_bytes[i] = static_cast<uint16_t>(i == 4 ? 4 * units : 64);
    shapes.rows[i] = static_cast<uint8_t>(i > 4 ? units : rows);
  }
  _tile_loadconfig(&shapes);
}

// Registers 0 to VECTORS - 1 += the left side's tile · VECTORS tiles of the right side.
template <int VECTORS>
[[gnu::target("amx-tile,amx-bf16"), gnu::always_inline]] inline void multiply_tiles(const char* left,
                                                                                    int64_t left_stride,
                                                                                    const float* right,
                                                                                    int64_t right_stride) {
  _tile_loadd(4, left, left_stride);
  _tile_loadd(5, right, right_stride);
  _tile_dpbf16ps(0, 4, 5);
  if constexpr (VECTORS > 1) {
    _tile_loadd(6, right + LANES, right_stride);
    _tile_dpbf16ps(1, 4, 6);
  }
  if constexpr (VECTORS > 2) {
    _tile_loadd(7, right + 2 * LANES, right_stride);
    _tile_dpbf16ps(2, 4, 7);
  }
  if constexpr (VECTORS > 3) {
    _tile_loadd(5, right + 3 * LANES, right_stride);
    _tile_dpbf16ps(3, 4, 5);
  }
}

template <int VECTORS>
[[gnu::target("amx-tile"), gnu::always_inline]] inline void clear_sums() {
  _tile_zero(0);
  if constexpr (VECTORS > 1) _tile_zero(1);
  if constexpr (VECTORS > 2) _tile_zero(2);
  if constexpr (VECTORS > 3) _tile_zero(3);
}

template <int VECTORS>
[[gnu::target("amx-tile"), gnu::always_inline]] inline void load_sums(const float* from, int64_t stride) {
  _tile_loadd(0, from, stride);
  if constexpr (VECTORS > 1) _tile_loadd(1, from + LANES, stride);
  if constexpr (VECTORS > 2) _tile_loadd(2, from + 2 * LANES, stride);
  if constexpr (VECTORS > 3) _tile_loadd(3, from + 3 * LANES, stride);
}

template <int VECTORS>
[[gnu::target("amx-tile"), gnu::always_inline]] inline void store_sums(float* to, int64_t stride) {
  _tile_stored(0, to, stride);
  if constexpr (VECTORS > 1) _tile_stored(1, to + LANES, stride);
  if constexpr (VECTORS > 2) _tile_stored(2, to + 2 * LANES, stride);
  if constexpr (VECTORS > 3) _tile_stored(3, to + 3 * LANES, stride);
}

// Into how many equal steps of at most TILE units a product's depth is cut; 0, if they would be too small to pay.
inline int64_t tile_steps(int64_t units) {
  for (int64_t steps = ceil_div(units, TILE); steps * 4 <= units; steps++)
    if (units % steps == 0) return steps;
  return 0;
}

template <int VECTORS, class Done>
[[gnu::target("amx-tile,amx-bf16"), gnu::noinline]] void tiled_panel(Left a, int64_t rows, const float* b,
                                                                     int64_t b_stride, int64_t units, int64_t vector,
                                                                     Done& done) {
  const int64_t step = units / tile_steps(units);
  alignas(64) Vector sums[TILE][VECTORS];
  set_tiles(TILE, step);
  for (int64_t row = 0; row < rows; row += TILE) {
    const int64_t count = std::min(TILE, rows - row);
    if (count < TILE) set_tiles(count, step);
    clear_sums<VECTORS>();
    for (int64_t unit = 0; unit < units; unit += step)
      multiply_tiles<VECTORS>(a.data + row * a.row_stride + unit * 4, a.row_stride, b + unit * b_stride, b_stride * 4);
    store_sums<VECTORS>(reinterpret_cast<float*>(sums), sizeof(sums[0]));
    for (int64_t r = 0; r < count; r += PART) {
      Vector(&part)[PART][VECTORS] = reinterpret_cast<Vector(&)[PART][VECTORS]>(sums[r]);
      done(row + r, vector, part, static_cast<int>(std::min<int64_t>(PART, count - r)));
    }
  }
  _tile_release();
}

// As product(), of bf16: the left side's units lie one after the other.
template <class Done>
inline void tiled_product(Left a, int64_t rows, const float* packed, int64_t units, int64_t columns, Done&& done) {
  Panels panels(columns);
  for (int64_t p = 0; p < panels.count; p++) {
    const int64_t width = panels.width(p), first = panels.first(p);
    const float* b = packed + first * LANES * units;
    if (width == 1) tiled_panel<1>(a, rows, b, LANES, units, first, done);
    if (width == 2) tiled_panel<2>(a, rows, b, 2 * LANES, units, first, done);
    if (width == 3) tiled_panel<3>(a, rows, b, 3 * LANES, units, first, done);
    if (width == 4) tiled_panel<4>(a, rows, b, 4 * LANES, units, first, done);
  }
}

// Sixteen rows of sixteen units, turned: to[column][row] = from[row][column].
inline void turn(const float* from, int64_t stride, float* to, int64_t to_stride) {
  __m512i rows[16], pairs[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) rows[i] = _mm512_loadu_si512(from + i * stride);
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    rows[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
    rows[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
    rows[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
    rows[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
  }
  // rows[4 * q + c] has columns c, c + 4, c + 8 and c + 12 of rows 4 * q to 4 * q + 3.
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) {
    __m512i low = _mm512_shuffle_i32x4(rows[c], rows[4 + c], 0x88), high = _mm512_shuffle_i32x4(rows[8 + c], rows[12 + c], 0x88);
    _mm512_storeu_si512(to + c * to_stride, _mm512_shuffle_i32x4(low, high, 0x88));
    _mm512_storeu_si512(to + (c + 8) * to_stride, _mm512_shuffle_i32x4(low, high, 0xdd));
    low = _mm512_shuffle_i32x4(rows[c], rows[4 + c], 0xdd), high = _mm512_shuffle_i32x4(rows[8 + c], rows[12 + c], 0xdd);
    _mm512_storeu_si512(to + (c + 4) * to_stride, _mm512_shuffle_i32x4(low, high, 0x88));
    _mm512_storeu_si512(to + (c + 12) * to_stride, _mm512_shuffle_i32x4(low, high, 0xdd));
  }
}

template <int VECTORS>
[[gnu::target("amx-tile,amx-bf16"), gnu::noinline]] void add_tiled_panel(float* c, const float* turned,
                                                                         int64_t turned_stride, const float* b,
                                                                         int64_t b_columns, int64_t units,
                                                                         int64_t step) {
  load_sums<VECTORS>(c, b_columns * 4);
  for (int64_t unit = 0; unit < units; unit += step)
    multiply_tiles<VECTORS>(reinterpret_cast<const char*>(turned + unit), turned_stride * 4, b + unit * b_columns,
                            b_columns * 4);
  store_sums<VECTORS>(c, b_columns * 4);
}

// As add_outer_product(), of bf16; A may be read up to the next multiple of TILE units.
template <class Step>
[[gnu::target("amx-tile,amx-bf16")]] inline void add_tiled_outer_product(float* c, const float* a, int64_t a_columns,
                                                                         const float* b, int64_t b_columns,
                                                                         int64_t all_units, Step&& next) {
  constexpr int64_t MOST = 64;
  alignas(64) float turned[TILE * MOST];
  Panels panels(b_columns);
  for (int64_t start = 0; start < all_units;) {
    // Whole tiles first, then what is left, in a tile of its own height.
    const int64_t left = all_units - start, units = left < TILE ? left : std::min(left / TILE * TILE, MOST);
    const int64_t step = std::min(units, TILE);
    set_tiles(TILE, step);
    for (int64_t row = 0; row < a_columns; row += TILE) {
      for (int64_t unit = 0; unit < units; unit += TILE)
        turn(a + (start + unit) * a_columns + row, a_columns, turned + unit, MOST);
      for (int64_t p = 0; p < panels.count; p++) {
        for (int64_t r = 0; r < TILE; r += PART) next();
        const int64_t width = panels.width(p), first = panels.first(p) * LANES;
        float* to = c + row * b_columns + first;
        const float* right = b + start * b_columns + first;
        if (width == 1) add_tiled_panel<1>(to, turned, MOST, right, b_columns, units, step);
        if (width == 2) add_tiled_panel<2>(to, turned, MOST, right, b_columns, units, step);
        if (width == 3) add_tiled_panel<3>(to, turned, MOST, right, b_columns, units, step);
        if (width == 4) add_tiled_panel<4>(to, turned, MOST, right, b_columns, units, step);
      }
    }
    start += units;
  }
  _tile_release();
}

#else

inline bool use_tiles(bool) { return false; }

#endif

// Whether a product of this depth is made in tiles.
template <class T>
inline bool in_tiles(int64_t units) {
#if defined(SEPNET_TILES)
  return std::is_same<T, bf16>::value && tiles_in_use && tile_steps(units);
#else
  return false;
#endif
}

// product() and add_outer_product(), in tiles if `tiled`.
template <class T, class Done>
inline void product(bool tiled, Left a, int64_t rows, const float* packed, int64_t units, int64_t columns, Done&& done) {
#if defined(SEPNET_TILES)
  if constexpr (std::is_same<T, bf16>::value)
    if (tiled) return tiled_product(a, rows, packed, units, columns, done);
#endif
  product<T>(a, rows, packed, units, columns, done);
}
template <class T, class Step>
inline void add_outer_product(bool tiled, float* c, const float* a, int64_t a_columns, const float* b,
                              int64_t b_columns, int64_t units, Step&& next) {
#if defined(SEPNET_TILES)
  if constexpr (std::is_same<T, bf16>::value)
    if (tiled) return add_tiled_outer_product(c, a, a_columns, b, b_columns, units, next);
#endif
  add_outer_product<T>(c, a, a_columns, b, b_columns, units, next);
}

// How many blocks of sums a product has.
inline int64_t blocks_of(bool tiled, int64_t rows, int64_t columns) {
  Panels panels(columns);
  int64_t blocks = 0;
  for (int64_t p = 0; p < panels.count; p++)
    blocks += ceil_div(rows, tiled ? PART : rows_for(static_cast<int>(panels.width(p))));
  return blocks;
}

}  // namespace sepnet
