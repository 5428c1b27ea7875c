// The compressed-tensors format: which tensors a quantized weight becomes, how its integers are packed, and the
// quantization_config that readers find them by.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/json.h"
#include "checkpoint/safetensors.h"
#include "octavo/checkpoint.h"
#include "octavo/scheme.h"

namespace octavo {

// How one weight [N, K] is stored.
//
// pack-quantized, weight-only:
//   weight_packed      I32 [N, ceil(K b / 32)]  q + 2^(b-1), or q where asymmetric; bits fill words from the least
//   significant
//                                               up, values along K in order, a value may continue in the next word
//   weight_scale       [N, G]                   one scale per tensor is repeated for each row
//   weight_zero_point  I32 [ceil(N b / 32), G]  asymmetric: packed like q, but along N
//   weight_shape       I64 [2]                  N, K
// int-quantized, with 8-bit activations:
//   weight             I8 [N, K]
//   weight_scale       [N, 1], or [1] per tensor
struct StoredWeight {
  Scheme scheme;
  DType scale_dtype = DType::kFloat32;
  std::int64_t N = 0;
  std::int64_t K = 0;

  bool packed() const { return scheme.activation != Activation::kInt8PerToken; }
  int bits() const { return scheme.weight.num_bits; }
  std::int64_t groups() const { return scheme.weight.groups(K); }
  bool one_scale() const { return !packed() && scheme.weight.group_size == kPerTensor; }
  // Bytes of a row of integers as stored.
  std::int64_t row_bytes() const { return packed() ? (K * bits() + 31) / 32 * 4 : K; }
  std::int64_t scale_row_bytes() const { return octavo::row_bytes(scale_dtype, groups()); }

  std::string_view integers_suffix() const { return packed() ? ".weight_packed" : ".weight"; }
  // The tensors of module `name`.
  std::vector<TensorSpec> tensors(std::string_view name) const;
  std::uint64_t bytes() const;
};

// Whether the format can say a scheme, and stock readers run it as what it is.
Status validate_for_compressed_tensors(const Scheme& scheme);

// values [rows, cols], one a byte and unsigned, into 32-bit words along each row. `out` holds rows of `stride` bytes.
void pack_rows(const std::uint8_t* values, std::int64_t rows, std::int64_t cols, int bits, std::byte* out,
               std::int64_t stride);
// values [rows, cols] into words [ceil(rows bits / 32), cols], along each column.
void pack_columns(const std::uint8_t* values, std::int64_t rows, std::int64_t cols, int bits, std::uint32_t* out);

// The quantization_config of config.json; at least one layer has a scheme. Layers without one go to its ignore list.
Json quantization_config(const std::vector<LayerPlan>& layers);

}  // namespace octavo
