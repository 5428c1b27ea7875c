// The scheme language: what "w4a16-g128-asym" means.
//
//   scheme := "llm.int8" | "w" BITS "a" ACT { "-" OPTION }
//   BITS   := 2 … 8                       bits of a weight
//   ACT    := "16"                        activations stay floating point (weight-only)
//           | "8"                         activations are quantized to int8
//   OPTION := "tensor" | "gN"             one scale per tensor or per group of N along K; without: per output channel
//           | "asym"                      weights have zero points
//           | "static"                    the activation scale is calibrated, not taken per token
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "octavo/status.h"

namespace octavo {

inline constexpr std::int64_t kPerTensor = 0;
inline constexpr std::int64_t kPerChannel = -1;

// How a weight's integers relate to its values: w ≈ (q - zero_point) * scale.
struct WeightFormat {
  int num_bits = 8;                       // 2 … 8
  bool symmetric = true;                  // without zero points
  std::int64_t group_size = kPerChannel;  // kPerTensor, kPerChannel, or how many neighbours along K share a scale

  // Scales along K for a weight of K columns; the last group may be short.
  std::int64_t groups(std::int64_t K) const { return group_size > 0 ? K / group_size + (K % group_size != 0) : 1; }
  // The least and greatest q.
  int qmin() const { return symmetric ? -(1 << (num_bits - 1)) : 0; }
  int qmax() const { return symmetric ? (1 << (num_bits - 1)) - 1 : (1 << num_bits) - 1; }

  bool operator==(const WeightFormat&) const = default;
};

enum class Activation : std::uint8_t {
  kFloat,         // fp32, fp16 or bf16 as they come
  kInt8PerToken,  // one scale a row (with grouped weights: a row and group), taken when the product is computed
  kInt8Static,    // one calibrated scale
  kInt8Outliers,  // LLM.int8(): per token, values at or above a threshold stay floating point (Dettmers et al., 2022)
};

struct Scheme {
  WeightFormat weight;
  Activation activation = Activation::kFloat;

  bool operator==(const Scheme&) const = default;
};

// Parses and validates. The error says which part is wrong and what is accepted.
Result<Scheme> parse_scheme(std::string_view text);

// The canonical spelling: parse_scheme(to_string(s)) == s for every valid s.
std::string to_string(const Scheme& scheme);

// Whether some operation of the library computes this scheme.
Status validate(const Scheme& scheme);

}  // namespace octavo
