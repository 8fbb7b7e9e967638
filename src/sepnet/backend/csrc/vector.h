// As many floats at a time as a register holds, and the two types that tensors are stored in: float and bf16.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace sepnet {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef float UnalignedVector __attribute__((vector_size(4 * LANES), aligned(4)));

struct bf16 {
  uint16_t bits;
};

inline Vector zero() { return Vector{}; }
inline Vector splat(float value) { return value - Vector{}; }
inline Vector load(const float* from) { return *reinterpret_cast<const UnalignedVector*>(from); }
inline void store(float* to, Vector value) { *reinterpret_cast<UnalignedVector*>(to) = value; }

// What is not a number stays so, here and in larger(): training must notice it.
inline Vector positive(Vector value) {
#if defined(__AVX512F__)
  return _mm512_max_ps(_mm512_setzero_ps(), value);
#else
  return value <= 0 ? Vector{} : value;
#endif
}

// `value` where `gate` is above 0, else 0.
inline Vector where_positive(Vector gate, Vector value) {
#if defined(__AVX512F__)
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(gate, _mm512_setzero_ps(), _CMP_GT_OQ), value);
#else
  return gate > 0 ? value : Vector{};
#endif
}

inline Vector larger(Vector a, Vector b) {
#if defined(__AVX512F__)
  return _mm512_mask_mov_ps(_mm512_max_ps(b, a), _mm512_cmp_ps_mask(b, b, _CMP_UNORD_Q), b);
#else
  return b <= a ? a : b != b ? b : a != a ? a : b;
#endif
}

// `yes` where a and b are equal, else `no`.
inline Vector where_equal(Vector a, Vector b, Vector yes, Vector no = Vector{}) {
#if defined(__AVX512F__)
  return _mm512_mask_mov_ps(no, _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ), yes);
#else
  return a == b ? yes : no;
#endif
}

// To the nearest, ties to even, as PyTorch and the processor's own instruction do.
inline void from_float(float value, float* to) { *to = value; }
inline void from_float(float value, bf16* to) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffff) > 0x7f800000) {
    to->bits = 0x7fc0;
    return;
  }
  to->bits = static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

#if defined(__AVX512BF16__)
inline Vector load(const bf16* from) {
  __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return reinterpret_cast<Vector>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
inline void store(bf16* to, Vector value) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value)));
}
#endif

// The first `count` of sixteen; the others are 0, or are left alone.
#if defined(__AVX512F__)
inline __mmask16 mask_of(int count) { return static_cast<__mmask16>((1u << count) - 1); }
inline Vector load_part(const float* from, int count) { return _mm512_maskz_loadu_ps(mask_of(count), from); }
inline void store_part(float* to, Vector value, int count) { _mm512_mask_storeu_ps(to, mask_of(count), value); }
#else
inline Vector load_part(const float* from, int count) {
  float all[LANES] = {};
  std::memcpy(all, from, count * sizeof(float));
  return load(all);
}
inline void store_part(float* to, Vector value, int count) {
  float all[LANES];
  store(all, value);
  std::memcpy(to, all, count * sizeof(float));
}
#endif
#if defined(__AVX512BF16__)
inline Vector load_part(const bf16* from, int count) {
  __m256i half = _mm256_maskz_loadu_epi16(mask_of(count), from);
  return reinterpret_cast<Vector>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
inline void store_part(bf16* to, Vector value, int count) {
  _mm256_mask_storeu_epi16(to, mask_of(count), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value)));
}
#endif

template <class T>
inline Vector load_lanes(const T* from, int count) {
  return count == LANES ? load(from) : load_part(from, count);
}
template <class T>
inline void store_lanes(T* to, Vector value, int count) {
  count == LANES ? store(to, value) : store_part(to, value, count);
}

// A unit is 32 bits along the axis that a product sums over: one float, or two neighbouring bf16.
template <class T>
constexpr int PER_UNIT = 4 / sizeof(T);

template <class T>
inline Vector dot(Vector sum, Vector a, Vector b);
template <>
inline Vector dot<float>(Vector sum, Vector a, Vector b) {
  return sum + a * b;
}
#if defined(__AVX512BF16__)
template <>
inline Vector dot<bf16>(Vector sum, Vector a, Vector b) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

// Two rows of sixteen channels, as sixteen units: (first, second) channel by channel.
inline Vector pair(Vector first, Vector second) {
  __m512i low = reinterpret_cast<__m512i>(_mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(first))));
  __m512i high =
      reinterpret_cast<__m512i>(_mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(second))));
  return reinterpret_cast<Vector>(_mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
}
inline Vector pair(const bf16* first, const bf16* second) {
  __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(first)));
  __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(second)));
  return reinterpret_cast<Vector>(_mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
}
#endif

// Thirty-two neighbouring channels of one position. `streamed` goes past the caches: only to where 64 divides.
inline void store_both(float* to, Vector first, Vector second, bool) {
  store(to, first);
  store(to + LANES, second);
}
inline void stream_end() {
#if defined(__AVX512F__)
  _mm_sfence();
#endif
}
#if defined(__AVX512BF16__)
inline __m512i narrow(Vector first, Vector second) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second, first));
}
inline void store_both(bf16* to, Vector first, Vector second, bool streamed) {
  __m512i both = narrow(first, second);
  if (streamed)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), both);
  else
    _mm512_storeu_si512(to, both);
}
// Thirty-two channels of two positions as units; their order is that of place_of().
inline void store_pairs(float* to, __m512i first, __m512i second) {
  _mm512_storeu_si512(to, _mm512_unpacklo_epi16(first, second));
  _mm512_storeu_si512(to + LANES, _mm512_unpackhi_epi16(first, second));
}
#endif

// Where a channel's unit lies, if store_pairs() wrote the first `paired` channels: its instructions work on quarters
// of a vector.
template <class T>
inline int64_t place_of(int64_t channel, int64_t paired) {
  int64_t base = channel / 32 * 32, within = channel % 32;
  if (PER_UNIT<T> == 1 || base + 32 > paired) return channel;
  return base + within % 8 / 4 * LANES + within / 8 * 4 + within % 4;
}

}  // namespace sepnet
