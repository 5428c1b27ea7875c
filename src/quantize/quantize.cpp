#include "octavo/quantize.h"

#include <cmath>
#include <utility>
#include <vector>

#include "core/fp_env.h"
#include "core/macros.h"
#include "quantize/check.h"
#include "quantize/clip.h"
#include "quantize/rows.h"
#include "quantize/slices.h"

namespace octavo {
namespace {

// Results above this size leave the caches before anybody reads them, so they are written past them: a store that first
// reads the line it replaces would be a third of all traffic.
constexpr std::int64_t kStreamingBytes = 4 << 20;

// Quantizes rows of one matrix; one object a thread, for its buffers.
class RowQuantizer {
 public:
  RowQuantizer(const MatrixView& w, const QuantizeOptions& options, const MutableQuantizedWeight& out)
      : w_(w), options_(options), out_(out), kernels_(slice_kernels()) {
    if (options.clip != Clip::kAbsmax) wide_.resize(static_cast<std::size_t>(w.cols));
    if (bits_of(out.q.dtype) == 4) packed_.resize(static_cast<std::size_t>(row_bytes(out.q.dtype, w.cols)));
    streams_ = out.q.rows * row_bytes(out.q.dtype, w.cols) > kStreamingBytes;
    if (streams_ || !packed_.empty()) integers_.resize(static_cast<std::size_t>(w.cols));
  }
  RowQuantizer(const RowQuantizer&) = delete;
  RowQuantizer& operator=(const RowQuantizer&) = delete;
  ~RowQuantizer() {
    if (streams_) kernels_.finish_streaming();
  }

  // Scales of the row's own. False where an element or a scale is not finite. Where the next call is for row n + 1, its
  // range is taken on the way.
  bool run(std::int64_t n) {
    const WeightFormat& format = out_.format;
    const bool one_slice = out_.scale.cols == 1;
    const Extremes known = std::exchange(next_, {});
    const std::int64_t length = slice_length(format, w_.cols);
    if (!wide_.empty()) widen_row(w_, n, wide_.data());
    std::uint8_t* q = row_of_integers(n);
    for (std::int64_t g = 0, begin = 0; g < out_.scale.cols; ++g, begin += length) {
      const std::int64_t count = std::min(length, w_.cols - begin);
      const void* slice = element(n, begin);
      const bool is_known = one_slice && next_row_ == n;
      const Extremes extremes = is_known ? known : kernels_.extremes(slice, w_.dtype, count);
      if (!extremes.finite) return false;
      const Range range = wide_.empty()
                              ? extremes.range
                              : clip_slice(wide_.data() + begin, count, extremes.range, options_, format, kernels_);
      const ScaleZero s = scale_of(range, format, options_.scale_dtype);
      if (std::isinf(s.scale)) return false;
      out_.scale.row<float>(n)[g] = s.scale;
      if (!format.symmetric) out_.zero_point.row<std::uint8_t>(n)[g] = static_cast<std::uint8_t>(s.zero_point);
      quantize_slice(n, begin, count, absmax_of(extremes.range), s, q + begin, one_slice);
    }
    next_row_ = n + 1;
    store(n);
    return true;
  }

  // The scale of the whole tensor.
  void run(std::int64_t n, float absmax, ScaleZero s) {
    quantize_slice(n, 0, w_.cols, absmax, s, row_of_integers(n), false);
    store(n);
  }

 private:
  const char* element(std::int64_t n, std::int64_t k) const { return w_.row<char>(n) + row_bytes(w_.dtype, k); }

  // Elements [begin, begin + count) of row n. Meanwhile the same part of the next row is read, a little ahead of its range:
  // otherwise memory would rest while this computes, and this while the next row's range is read.
  void quantize_slice(std::int64_t n, std::int64_t begin, std::int64_t count, float absmax, ScaleZero s, std::uint8_t* q,
                      bool range_of_next) {
    constexpr std::int64_t kPiece = 1024;
    constexpr std::int64_t kBytesAhead = 4096;
    for (std::int64_t k = 0; k < count; k += kPiece) {
      const std::int64_t piece = std::min(kPiece, count - k);
      const bool has_next = n + 1 < w_.rows;
      if (has_next) {
        const char* ahead = element(n + 1, begin + k) + kBytesAhead;
        for (std::int64_t byte = 0; byte < row_bytes(w_.dtype, piece); byte += 64) __builtin_prefetch(ahead + byte, 0, 2);
      }
      kernels_.quantize(element(n, begin + k), w_.dtype, piece, absmax, s, out_.format, q + k);
      if (has_next && range_of_next) {
        const Extremes part = kernels_.extremes(element(n + 1, begin + k), w_.dtype, piece);
        next_.finite &= part.finite;
        next_.range = {std::min(next_.range.lo, part.range.lo), std::max(next_.range.hi, part.range.hi)};
      }
    }
  }
  std::uint8_t* row_of_integers(std::int64_t n) {
    return integers_.empty() ? out_.q.row<std::uint8_t>(n) : integers_.data();
  }
  void store(std::int64_t n) {
    if (integers_.empty()) return;
    std::uint8_t* row = out_.q.row<std::uint8_t>(n);
    const std::int64_t bytes = row_bytes(out_.q.dtype, w_.cols);
    if (!packed_.empty()) {
      pack_row_int4(integers_.data(), w_.cols, out_.format.symmetric ? 8 : 0, streams_ ? packed_.data() : row);
    }
    if (streams_) kernels_.stream_bytes(packed_.empty() ? integers_.data() : packed_.data(), bytes, row);
  }

  const MatrixView& w_;
  const QuantizeOptions& options_;
  const MutableQuantizedWeight& out_;
  const SliceKernels& kernels_;
  std::vector<float> wide_;             // the row as float32, for searching a clip
  std::vector<std::uint8_t> integers_;  // the row's q, where it is packed or streamed from
  std::vector<std::uint8_t> packed_;    // the row's packed q, where it is streamed from
  bool streams_ = false;
  Extremes next_;               // of the row after the last
  std::int64_t next_row_ = -1;  // which that is
};

// What went wrong in row n, found again one step at a time.
Status explain(const MatrixView& w, const QuantizeOptions& options, const MutableQuantizedWeight& out, std::int64_t n) {
  OCTAVO_RETURN_IF_ERROR(not_finite(w, n));
  const SliceKernels& kernels = slice_kernels();
  std::vector<float> wide(static_cast<std::size_t>(w.cols));
  widen_row(w, n, wide.data());
  const std::int64_t length = slice_length(out.format, w.cols);
  for (std::int64_t begin = 0; begin < w.cols; begin += length) {
    const std::int64_t count = std::min(length, w.cols - begin);
    const Range full = kernels.extremes(wide.data() + begin, DType::kFloat32, count).range;
    const Range range = clip_slice(wide.data() + begin, count, full, options, out.format, kernels);
    if (std::isinf(scale_of(range, out.format, options.scale_dtype).scale)) {
      return scale_overflow(options.scale_dtype, n, range);
    }
  }
  return {};
}

Status quantize_tensor(const MatrixView& w, const QuantizeOptions& options, const MutableQuantizedWeight& out,
                       Parallel& parallel) {
  OCTAVO_ASSIGN_OR_RETURN(const Range full, range_of(w, parallel));
  const Range range =
      options.tensor_range ? *options.tensor_range : clip_tensor(w, full, options, out.format, slice_kernels(), parallel);
  const ScaleZero s = scale_of(range, out.format, options.scale_dtype);
  if (std::isinf(s.scale)) return scale_overflow(options.scale_dtype, 0, range);
  out.scale.row<float>(0)[0] = s.scale;
  if (!out.format.symmetric) out.zero_point.row<std::uint8_t>(0)[0] = static_cast<std::uint8_t>(s.zero_point);
  parallel.run(0, w.rows, row_grain(w.cols), [&](std::int64_t begin, std::int64_t end) {
    const ExactFloatScope exact;
    RowQuantizer row(w, options, out);
    for (std::int64_t n = begin; n < end; ++n) row.run(n, absmax_of(full), s);
  });
  return {};
}

}  // namespace

Status quantize(const MatrixView& w, const QuantizeOptions& options, const MutableQuantizedWeight& out, Parallel& parallel) {
  OCTAVO_RETURN_IF_ERROR(check_on_cpu(w, "weight"));
  OCTAVO_RETURN_IF_ERROR(check_quantize(w, options, out));
  const ExactFloatScope exact;
  if (out.format.group_size == kPerTensor) return quantize_tensor(w, options, out, parallel);
  FirstRow bad;
  parallel.run(0, w.rows, row_grain(w.cols), [&](std::int64_t begin, std::int64_t end) {
    const ExactFloatScope exact_here;
    RowQuantizer row(w, options, out);
    for (std::int64_t n = begin; n < end; ++n) {
      if (!row.run(n)) return bad.report(n);
    }
  });
  return bad.get() == kNoRow ? Status() : explain(w, options, out, bad.get());
}

Result<Range> range_of(const MatrixView& w, Parallel& parallel) {
  OCTAVO_RETURN_IF_ERROR(check_float(w, "weight"));
  std::vector<Range> rows(static_cast<std::size_t>(w.rows));
  FirstRow bad;
  parallel.run(0, w.rows, row_grain(w.cols), [&](std::int64_t begin, std::int64_t end) {
    const ExactFloatScope exact;
    for (std::int64_t n = begin; n < end; ++n) {
      const Extremes extremes = slice_kernels().extremes(w.row<void>(n), w.dtype, w.cols);
      if (!extremes.finite) return bad.report(n);
      rows[static_cast<std::size_t>(n)] = extremes.range;
    }
  });
  if (bad.get() != kNoRow) return not_finite(w, bad.get());
  Range all;
  for (const Range& row : rows) all = {std::min(all.lo, row.lo), std::max(all.hi, row.hi)};
  return all;
}

Status dequantize(const QuantizedWeight& w, const MutableMatrixView& out, Parallel& parallel) {
  OCTAVO_RETURN_IF_ERROR(check_on_cpu(w.q, "q"));
  OCTAVO_RETURN_IF_ERROR(check_dequantize(w, out));
  const std::int64_t length = slice_length(w.format, out.cols);
  parallel.run(0, out.rows, row_grain(out.cols), [&](std::int64_t begin, std::int64_t end) {
    const ExactFloatScope exact;
    RowReader read(w);
    for (std::int64_t n = begin; n < end; ++n) {
      const std::uint8_t* q = read(n);
      for (std::int64_t g = 0, k = 0; k < out.cols; ++g, k += length) {
        slice_kernels().dequantize(q + k, w.format.symmetric, std::min(length, out.cols - k), scale_zero(w, n, g),
                                   out.row<char>(n) + row_bytes(out.dtype, k), out.dtype);
      }
    }
  });
  return {};
}

}  // namespace octavo
