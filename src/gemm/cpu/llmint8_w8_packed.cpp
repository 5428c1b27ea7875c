#include "gemm/cpu/llmint8_w8_packed.h"

#include "core/aligned_buffer.h"
#include "core/fp_env.h"
#include "core/simd.h"
#include "gemm/cpu/store_avx2.h"
#include "gemm/cpu/work.h"
#include "gemm/kernels.h"
#include "gemm/layout.h"
#include "gemm/llm_int8.h"

#if defined(__x86_64__)

namespace octavo {
namespace {

// Scaling and storing an output takes about as long as so many multiplications.
constexpr std::int64_t kMultiplicationsPerOutput = 16;

// sums [M, N] = q · Wᵀ
void multiply(const Arguments& a, const OutlierSplit& split, const MutableMatrixView& sums, Parallel& parallel) {
  Arguments product = a;
  product.x = MatrixView(split.q.data(), DType::kInt8, a.x.rows, a.x.cols);
  product.bias = {};
  product.y = sums;
  const Problem problem = {Op::kScaledMm, DType::kInt8, DType::kInt8, a.w.format,     a.x.rows,
                           a.y.cols,      a.x.cols,     {},           a.packed.layout};
  first_kernel(problem).run(product, parallel);
}

// The outliers of one row of x with the weights of one block.
class OutlierBlock {
 public:
  OutlierBlock(const PackedWeight& w, const Block64& shape, std::int64_t b)
      : dwords_(reinterpret_cast<const std::uint32_t*>(w.data.data() + shape.integers(b, 0))),
        scale_(reinterpret_cast<const float*>(w.data.data() + shape.scales(b, 0))) {}

  const float* scale() const { return scale_; }

  // totals[c] += x · (q[c, k] · scale[c]), each step rounded to float32
  OCTAVO_AVX2 void add(std::int64_t k, float x, float* totals) const {
    const __m128i shift = _mm_cvtsi32_si128(static_cast<int>(k % 4 * 8));
    const std::uint32_t* step = dwords_ + k / 4 * kBlockChannels;
    for (int c = 0; c < kBlockChannels; c += 8) {
      const __m256i dwords = _mm256_load_si256(reinterpret_cast<const __m256i*>(step + c));
      const __m256i bytes = _mm256_and_si256(_mm256_srl_epi32(dwords, shift), _mm256_set1_epi32(0xff));
      const __m256 q = _mm256_cvtepi32_ps(_mm256_sub_epi32(bytes, _mm256_set1_epi32(128)));
      const __m256 product = _mm256_mul_ps(_mm256_set1_ps(x), _mm256_mul_ps(q, _mm256_load_ps(scale_ + c)));
      _mm256_store_ps(totals + c, _mm256_add_ps(_mm256_load_ps(totals + c), product));
    }
  }

 private:
  const std::uint32_t* dwords_;
  const float* scale_;
};

OCTAVO_AVX2 void store_row(const Arguments& a, const OutlierBlock& block, const OutlierSplit& split, const MatrixView& sums,
                           std::int64_t m, std::int64_t b, const Block64& shape) {
  alignas(32) float outliers[kBlockChannels] = {};
  for (const std::int64_t k : split.outliers(m)) {
    block.add(k, visit_float(a.x.dtype, [&](auto type) { return to_float(a.x.row<decltype(type)>(m)[k]); }), outliers);
  }
  const std::int64_t first = b * kBlockChannels;
  const float x_scale = split.scale[static_cast<std::size_t>(m)];
  for (std::int64_t c = 0; c < shape.channels(b); ++c) {
    outliers[c] = scale_sum(sums.row<std::int32_t>(m)[first + c], block.scale()[c], x_scale) + outliers[c];
  }
  store_totals_avx2(outliers, a, m, first, shape.channels(b));
}

}  // namespace

void cpu_llmint8_w8_packed(const Arguments& a, Parallel& parallel) {
  const Block64 shape(a.packed.format, a.packed.N, a.packed.K);
  const OutlierSplit split = split_outliers(a.x, a.threshold, a.rule, parallel);
  const AlignedBuffer<std::int32_t> sums(a.y.rows * a.y.cols);
  const MutableMatrixView sums_view(sums.data(), DType::kInt32, a.y.rows, a.y.cols);
  multiply(a, split, sums_view, parallel);
  const std::int64_t grain = grain_of(kBlockChannels * kMultiplicationsPerOutput * a.x.rows);
  parallel.run(0, shape.blocks(), grain, [&](std::int64_t begin, std::int64_t end) {
    const ExactFloatScope exact;
    for (std::int64_t b = begin; b < end; ++b) {
      const OutlierBlock block(a.packed, shape, b);
      for (std::int64_t m = 0; m < a.y.rows; ++m) store_row(a, block, split, as_const(sums_view), m, b, shape);
    }
  });
}

}  // namespace octavo

#endif  // __x86_64__
