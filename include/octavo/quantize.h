// Quantizing weights to 2 … 8 bits, dequantizing them, and measuring what was lost. docs/numerics.md is the specification;
// results are the same bits for any instruction set and number of threads.
#pragma once

#include <cstdint>
#include <optional>

#include "octavo/parallel.h"
#include "octavo/scheme.h"
#include "octavo/status.h"
#include "octavo/tensor.h"

namespace octavo {

// A quantized matrix of N rows (output channels) and K columns, in its canonical layout. Views only.
//   q           [N, K]  int8 (symmetric) or uint8 (asymmetric); or int4 / uint4, packed two a byte, for up to 4 bits
//   scale       [N, G]  float32, G = format.groups(K); [1, 1] per tensor. On CUDA, dequantize() takes float16 and bfloat16
//                       too, as checkpoints have them, and linear() most: see takes_scales() in gemm.h
//   zero_point  like scale, uint8 from 0 to format.qmax(); empty when symmetric
template <class Matrix>
struct BasicQuantizedWeight {
  WeightFormat format;
  Matrix q;
  Matrix scale;
  Matrix zero_point;
};
using QuantizedWeight = BasicQuantizedWeight<MatrixView>;
using MutableQuantizedWeight = BasicQuantizedWeight<MutableMatrixView>;

inline QuantizedWeight as_const(const MutableQuantizedWeight& w) {
  return {w.format, as_const(w.q), as_const(w.scale), as_const(w.zero_point)};
}

// The element type in which q of a format is stored, one a byte or packed.
constexpr DType storage_dtype(const WeightFormat& format, bool packed) {
  if (packed) return format.symmetric ? DType::kInt4 : DType::kUInt4;
  return format.symmetric ? DType::kInt8 : DType::kUInt8;
}

// How the range that a scale covers is chosen.
enum class Clip : std::uint8_t {
  kAbsmax,      // all of it
  kMse,         // the share of it, among 1.00, 0.99 … 0.50, with the least squared error
  kPercentile,  // the given percentile of |w|
};

// A tensor's extremes, for scales per tensor of a matrix that is quantized in blocks of rows.
struct Range {
  float lo = 0;
  float hi = 0;
};

struct QuantizeOptions {
  Clip clip = Clip::kAbsmax;
  double percentile = 99.9;             // of |w|, for Clip::kPercentile; in (0, 100]
  DType scale_dtype = DType::kFloat32;  // what the scale will be stored as: q is computed with the rounded scale
  std::optional<Range> tensor_range;    // per tensor only: the range of the whole tensor, when w is a part of it
};

// Quantizes w [N, K] (float32, float16 or bfloat16) into out, whose format says how. Fails on NaN or Inf in w (naming
// row and column), on shapes or dtypes of out that do not fit, and when a scale overflows options.scale_dtype.
Status quantize(const MatrixView& w, const QuantizeOptions& options, const MutableQuantizedWeight& out,
                Parallel& parallel = serial());

// The same on the CUDA device that w and out are on; see gemm.h for what a Stream means. Clip::kAbsmax without tensor_range,
// q one a byte, and not asymmetric per tensor. Nothing waits for the device, so NaN or Inf in w is no error here: its slice
// gets scale NaN and q = 0, and one whose scale overflows gets scale Inf. Whoever cannot rule that out looks at the scales.
Status quantize(const MatrixView& w, const QuantizeOptions& options, const MutableQuantizedWeight& out, Stream stream);

// Least and greatest value of w, both including 0. Fails on NaN or Inf, naming row and column.
Result<Range> range_of(const MatrixView& w, Parallel& parallel = serial());

// out[n, k] = (q - zero_point) * scale in float32, rounded once to out's type (float32, float16 or bfloat16).
Status dequantize(const QuantizedWeight& w, const MutableMatrixView& out, Parallel& parallel = serial());

// The same on the CUDA device that w and out are on.
Status dequantize(const QuantizedWeight& w, const MutableMatrixView& out, Stream stream);

// Sums from which the error metrics follow; sums of blocks of rows add up in ascending order of rows.
struct ErrorSums {
  double squared_signal = 0;  // Σ w²
  double squared_error = 0;   // Σ (w - ŵ)²
  double absolute_error = 0;  // Σ |w - ŵ|
  double max_absolute_error = 0;
  std::int64_t count = 0;

  void add(const ErrorSums& other);
};

struct ErrorMetrics {
  double max_abs_error = 0;
  double mean_abs_error = 0;
  double relative_error_pct = 0;  // the largest relative error, in percent, where |w| > 10 % of the tensor's absmax
  double snr_db = 0;              // 10 log10(Σ w² / Σ (w - ŵ)²); +inf when exact
};

// Compares original (float32, float16 or bfloat16) [N, K] with the dequantized float32 values of w.
Result<ErrorSums> error_sums(const MatrixView& original, const QuantizedWeight& w, Parallel& parallel = serial());
Result<ErrorMetrics> error_metrics(const MatrixView& original, const QuantizedWeight& w, Parallel& parallel = serial());
// 10 log10(squared_signal / squared_error).
double snr_db(const ErrorSums& sums);

// Packs q stored one a byte (int8 or uint8, 2 … 4 bits) two a byte into int4 or uint4, and back. Exact inverses.
// Packing fails on what does not fit in 4 bits, with `packed` written all the same.
Status pack_int4(const MatrixView& q, const MutableMatrixView& packed, Parallel& parallel = serial());
Status unpack_int4(const MatrixView& packed, const MutableMatrixView& q, Parallel& parallel = serial());

// Quantizes activations x [M, K] (float32, float16 or bfloat16) to int8 q [M, K], symmetric, with scale [M, G] float32:
// one a row, or one a row and group of group_size. A slice with NaN or Inf gets scale NaN and q = 0.
Status quantize_per_token(const MatrixView& x, std::int64_t group_size, const MutableMatrixView& q,
                          const MutableMatrixView& scale, Parallel& parallel = serial());
// The same on the CUDA device that x, q and scale are on; see gemm.h for what a Stream means.
Status quantize_per_token(const MatrixView& x, std::int64_t group_size, const MutableMatrixView& q,
                          const MutableMatrixView& scale, Stream stream);

// Quantizes activations x [M, K] (float32, float16 or bfloat16) to int8 q [M, K] with one given scale [1, 1] float32, finite
// and greater than 0: q = clamp(rint(x / scale)). A NaN gives 0, infinities and all that is too large the ends of the range.
Status quantize_static(const MatrixView& x, const MatrixView& scale, const MutableMatrixView& q,
                       Parallel& parallel = serial());
// The same on the CUDA device that x, scale and q are on, where nobody looks at the scale before it is used.
Status quantize_static(const MatrixView& x, const MatrixView& scale, const MutableMatrixView& q, Stream stream);

}  // namespace octavo
