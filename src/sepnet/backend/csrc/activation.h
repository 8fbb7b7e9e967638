// Activations and their slopes, many floats at a time.
#pragma once

#include "vector.h"

namespace sepnet {

// As in stage.py. The loops are compiled twice, for the last two and for the others.
enum Activation : int64_t { NONE, RELU, SILU, HARDSWISH };

// 1 / (1 + exp(-x)): exp by 2^whole · 2^rest, the rest within ±½ by a polynomial. (Cody and Waite 1980, chapter 6; its
// coefficients are Taylor's, ln(2)^k / k!, whose next term is below 2·10⁻⁹.) What is not a number stays so.
inline Vector sigmoid(Vector x) {
  Vector power = x * -1.44269504f;
  power = power > 126 ? splat(126) : power < -126 ? splat(-126) : power;
#if defined(__AVX512F__)
  Vector whole = _mm512_roundscale_ps(power, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  typedef int32_t Integers __attribute__((vector_size(4 * LANES)));
  Integers integers = __builtin_convertvector(power + (power < 0 ? splat(-0.5f) : splat(0.5f)), Integers);
  Vector whole = __builtin_convertvector(integers, Vector);
#endif
  Vector rest = power - whole;
  Vector value = splat(1.54035304e-4f);
  value = value * rest + 1.33335581e-3f;
  value = value * rest + 9.61812911e-3f;
  value = value * rest + 5.55041087e-2f;
  value = value * rest + 2.40226507e-1f;
  value = value * rest + 6.93147181e-1f;
  value = value * rest + 1.0f;
#if defined(__AVX512F__)
  value = _mm512_scalef_ps(value, whole);
#else
  value *= reinterpret_cast<Vector>((integers + 127) << 23);
#endif
  return 1.0f / (1.0f + value);
}

inline Vector smooth(Activation kind, Vector x) {
  if (kind == SILU) return x * sigmoid(x);
  Vector gate = x + 3;  // x · min(max(x + 3, 0), 6) / 6
  gate = gate < 0 ? Vector{} : gate > 6 ? splat(6) : gate;
  return x * gate * (1.0f / 6);
}

// The derivative at x; of HARDSWISH, as PyTorch has it where it bends.
inline Vector smooth_slope(Activation kind, Vector x) {
  if (kind == SILU) {
    Vector gate = sigmoid(x);
    return gate * (1 + x * (1 - gate));
  }
  return x <= -3 ? Vector{} : x >= 3 ? splat(1) : x * (1.0f / 3) + 0.5f;
}

}  // namespace sepnet
