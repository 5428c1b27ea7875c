#include "bench/report.h"

#include "core/format.h"

namespace octavo::bench {
namespace {

double gbps(const Row& row) { return row.weight_bytes / row.time.median * 1e-9; }
double tops(const Row& row) { return row.operations() / row.time.median * 1e-12; }
std::string_view roof(const Row& row) { return row.bandwidth_limits() ? "read" : row.unit; }

// scaled_mm is timed with the quantization of x before it.
std::string_view op_name(const Row& row) {
  const Op op = op_of(row.what.scheme);
  return op == Op::kScaledMm ? "linear_w8a8" : to_string(op);
}

}  // namespace

std::string table_head() {
  return format_text("{:<14} {:<8} {:>4} {:>6} {:>6} {:>7} {:>11} {:>7} {:>7} {:>7} {:>8}  {:<13} {}\n", "scheme", "x", "M",
                     "N", "K", "threads", "us", "spread", "GB/s", "TOPS", "of roof", "roof", "kernel");
}

std::string table_line(const Row& row) {
  const std::string what = format_text("{:<14} {:<8} {:>4} {:>6} {:>6} {:>7} ", to_string(row.what.scheme),
                                       to_string(row.what.activation), row.shape.M, row.shape.N, row.shape.K, row.threads);
  if (!row.skipped.empty()) return what + format_text("{:>11}  {}\n", "not timed:", row.skipped);
  return what + format_text("{:>11.1f} {:>6.0f}% {:>7.2f} {:>7.3f} {:>7.0f}%  {:<13} {}\n", row.time.median * 1e6,
                            100 * row.time.spread, gbps(row), tops(row), 100 * row.roof_fraction(), roof(row), row.kernel);
}

Json to_json(const Row& row) {
  return {{"kernel", row.kernel},
          {"scheme", to_string(row.what.scheme)},
          {"op", op_name(row)},
          {"activation", to_string(row.what.activation)},
          {"M", row.shape.M},
          {"N", row.shape.N},
          {"K", row.shape.K},
          {"threads", row.threads},
          {"layout", to_string(row.layout)},
          {"us", row.time.median * 1e6},
          {"spread", row.time.spread},
          {"repeats", row.repeats},
          {"gbps", gbps(row)},
          {"tops", tops(row)},
          {"roof", roof(row)},
          {"roof_fraction", row.roof_fraction()},
          {"read_gbps", row.weight_bytes / row.read_seconds * 1e-9},
          {"multiply", row.unit},
          {"multiply_tops", row.operations_a_second * 1e-12}};
}

}  // namespace octavo::bench
