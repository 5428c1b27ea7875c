
#include <algorithm>
#include <cstring>
#include <limits>

#include "core/fp_env.h"
#include "core/macros.h"
#include "octavo/quantize.h"
#include "quantize/check.h"
#include "quantize/rows.h"
#include "quantize/slices.h"

namespace octavo {

Status quantize_per_token(const MatrixView& x, std::int64_t group_size, const MutableMatrixView& q,
                          const MutableMatrixView& scale, Parallel& parallel) {
  OCTAVO_RETURN_IF_ERROR(check_on_cpu(x, "x"));
  OCTAVO_RETURN_IF_ERROR(check_per_token(x, group_size, q, scale));
  const WeightFormat format = {8, true, group_size};
  const std::int64_t length = slice_length(format, x.cols);
  const SliceKernels& kernels = slice_kernels();
  parallel.run(0, x.rows, row_grain(x.cols), [&](std::int64_t first, std::int64_t last) {
    const ExactFloatScope exact;
    for (std::int64_t m = first; m < last; ++m) {
      for (std::int64_t g = 0, begin = 0; g < scale.cols; ++g, begin += length) {
        const std::int64_t count = std::min(length, x.cols - begin);
        const void* slice = x.row<char>(m) + row_bytes(x.dtype, begin);
        std::int8_t* out = q.row<std::int8_t>(m) + begin;
        const Extremes extremes = kernels.extremes(slice, x.dtype, count);
        if (extremes.finite) {
          const float absmax = absmax_of(extremes.range);
          const float s = activation_scale(absmax);
          scale.row<float>(m)[g] = s;
          kernels.quantize(slice, x.dtype, count, absmax, {s, 0}, format, out);
        } else {
          scale.row<float>(m)[g] = std::numeric_limits<float>::quiet_NaN();
          std::memset(out, 0, static_cast<std::size_t>(count));
        }
      }
    }
  });
  return {};
}

}  // namespace octavo
