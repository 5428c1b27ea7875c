#include "bench/product.h"

#include "core/half.h"

namespace octavo::bench {
namespace {

constexpr float kThreshold = 6;  // of LLM.int8(), as published
constexpr std::int64_t kColumnsPerOutlier = 1024;
constexpr float kOutlier = 20;

void fill(const MutableMatrixView& x) {
  std::uint64_t state = 1;
  for (std::int64_t m = 0; m < x.rows; ++m) {
    for (std::int64_t k = 0; k < x.cols; ++k) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      float value = -2;  // and four uniform numbers
      for (int i = 0; i < 4; ++i) value += static_cast<float>(state >> (16 * i) & 0xffff) * 0x1p-16f;
      if (k % kColumnsPerOutlier == kColumnsPerOutlier / 2) value = kOutlier;
      visit_float(x.dtype, [&](auto type) { x.row<decltype(type)>(m)[k] = from_float<decltype(type)>(value); });
    }
  }
}

}  // namespace

Product::Product(const Case& c, const Shape& shape)
    : op_(op_of(c.scheme)),
      x_data_(shape.M * row_bytes(c.activation, shape.K)),
      y_data_(shape.M * row_bytes(c.activation, shape.N)),
      x_(x_data_.data(), c.activation, shape.M, shape.K),
      y_(y_data_.data(), c.activation, shape.M, shape.N) {
  fill(x_);
}

template <class Weight>
Status Product::run_with(const Weight& w, Parallel& parallel) const {
  const MatrixView x = as_const(x_);
  switch (op_) {
    case Op::kLinear:
      return linear(x, w, {}, y_, parallel);
    case Op::kScaledMm:
    case Op::kLinearW8A8:
      return linear_w8a8(x, w, {}, y_, parallel);
    case Op::kLinearW4A8:
      return linear_w4a8(x, w, {}, y_, parallel);
    case Op::kLinearLlmInt8:
      return linear_llm_int8(x, w, kThreshold, OutlierRule::kToken, {}, y_, parallel);
  }
  return {};
}

Status Product::run(const ColdWeights::Copy& w, Parallel& parallel) const {
  return w.packed.data.empty() ? run_with(w.row_major, parallel) : run_with(w.packed, parallel);
}

}  // namespace octavo::bench
