// LLM.int8() (Dettmers et al., 2022): splitting activations into outliers and a regular part.
#pragma once

#include <cstdint>
#include <vector>

#include "gemm/arguments.h"

namespace octavo {

// The regular part as int8 with its scales, and where the outliers of each row are.
struct OutlierSplit {
  std::vector<std::int8_t> q;                      // [M, K]; 0 at outliers
  std::vector<float> scale;                        // [M]
  std::vector<std::vector<std::int64_t>> columns;  // per row, ascending; one shared list under OutlierRule::kBatch
  OutlierRule rule = OutlierRule::kToken;

  const std::vector<std::int64_t>& outliers(std::int64_t m) const {
    return columns[rule == OutlierRule::kBatch ? 0 : static_cast<std::size_t>(m)];
  }
};

OutlierSplit split_outliers(const MatrixView& x, float threshold, OutlierRule rule, Parallel& parallel);

// Scales the integer sum of (m, n), adds the outliers' products in float32, ascending k, then the bias, and stores.
void store_llm_int8(const Arguments& a, const OutlierSplit& split, std::int64_t m, std::int64_t n, std::int32_t acc);

}  // namespace octavo
