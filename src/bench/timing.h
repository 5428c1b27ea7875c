// Medians and spreads of times.
#pragma once

#include <algorithm>
#include <chrono>
#include <vector>

#include "octavo/parallel.h"

namespace octavo::bench {

inline double seconds_of(FunctionRef<void()> work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

struct Timing {
  double median = 0;  // seconds
  double spread = 0;  // (largest - least) / median of the middle half
};

// Of at least one time.
inline Timing timing_of(std::vector<double> seconds) {
  std::sort(seconds.begin(), seconds.end());
  const std::size_t n = seconds.size();
  const double median = seconds[n / 2];
  return {median, (seconds[n - 1 - n / 4] - seconds[n / 4]) / median};
}

}  // namespace octavo::bench
