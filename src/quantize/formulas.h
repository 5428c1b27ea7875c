// What the fused quantizations compute before they quantize (docs/numerics.md), for the CPU and the GPU alike.
#pragma once

#include "core/exact.h"

namespace octavo::formulas {

// exp(-g), at most 1.2 units in the last place off, for |g| <= kExpLimit; anything beyond.
//
// -g = (n + f) ln 2 with a whole n and |f| <= 1/2; 2^f = 1 + f · p(f), whose p has the least largest error (2^-28.9,
// relative to 2^f) of all polynomials of its degree; n is added to the exponent.
inline constexpr float kExpLimit = 87;
OCTAVO_HOST_DEVICE float exp_of_negative(float g) {
  constexpr float kLog2E = 0x1.715476p+0f, kLog2ERest = 0x1.4ae0cp-26f;  // log2(e), in two parts
  constexpr float kWhole = 0x1.8p23f;                                    // whose last bit is worth 1
  const float shifted = exact::fma(g, -kLog2E, kWhole);
  const float n = exact::add(shifted, -kWhole);
  const float f = exact::fma(g, -kLog2ERest, exact::fma(g, -kLog2E, -n));
  float power = 0x1.41fb2cp-13f;
  power = exact::fma(power, f, 0x1.5f3f3p-10f);
  power = exact::fma(power, f, 0x1.3b2d5p-7f);
  power = exact::fma(power, f, 0x1.c6aee6p-5f);
  power = exact::fma(power, f, 0x1.ebfbdcp-3f);
  power = exact::fma(power, f, 0x1.62e43p-1f);
  power = exact::fma(power, f, 1.0f);
  return exact::from_bits(exact::bits(power) + (exact::bits(shifted) << 23));
}

// SiLU, g · 1 / (1 + exp(-g)). Below -kExpLimit, where it is less than 1.5e-36 from 0, it is -0. NaN, and the infinities,
// give no finite value.
OCTAVO_HOST_DEVICE float silu(float g) {
  const float sigmoid = exact::reciprocal(exact::add(1.0f, exp_of_negative(exact::min(g, kExpLimit))));
  return exact::mul(g, g < -kExpLimit ? 0.0f : sigmoid);
}

// The sum of a row's squares has one order, which takes no account of who adds: x is cut into pieces of kPiece neighbours,
// the last filled up with zeros, and halves are added to halves, first in every piece,
//
//   ((x0² + x4²) + (x2² + x6²)) + ((x1² + x5²) + (x3² + x7²))
//
// then among pieces: with a power of two n that is at least their number, piece j + n/2 is added to piece j, then j + n/4
// to j, and so on. Which n it is does not matter, because a sum of squares plus 0 is itself. So a number of threads that
// is a power of two, each with pieces as far apart, finds all pieces of the first halvings among its own.
inline constexpr int kPiece = 8;
OCTAVO_HOST_DEVICE float sum_of_squares(const float (&x)[kPiece]) {
  float s[kPiece];
  for (int i = 0; i < kPiece; ++i) s[i] = exact::mul(x[i], x[i]);
  for (int i = 0; i < 4; ++i) s[i] = exact::add(s[i], s[i + 4]);
  return exact::add(exact::add(s[0], s[2]), exact::add(s[1], s[3]));
}

// 1 / sqrt(mean of squares + eps), the mean by way of 1 / K.
OCTAVO_HOST_DEVICE float rms_factor(float squares, float reciprocal_of_K, float eps) {
  return exact::div(1.0f, exact::sqrt(exact::add(exact::mul(squares, reciprocal_of_K), eps)));
}

OCTAVO_HOST_DEVICE float normalized(float x, float factor, float weight) {
  return exact::mul(exact::mul(x, factor), weight);
}

// y to int8 with the reciprocal of its scale, as bits whose lowest byte it is. The product is not rounded before.
OCTAVO_HOST_DEVICE std::uint32_t quantized(float y, float reciprocal_of_scale) {
  return exact::bits(exact::fma(y, reciprocal_of_scale, 0x1.8p23f));
}

}  // namespace octavo::formulas
