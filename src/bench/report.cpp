#include "bench/report.h"

#include "core/format.h"

namespace octavo::bench {
namespace {

double gbps(const Row& row) { return row.weight_bytes / row.time.median * 1e-9; }
double tops(const Row& row) { return row.operations() / row.time.median * 1e-12; }

// What the roof was measured with.
std::string_view roof(const Row& row) {
  switch (row.limit()) {
    case Limit::kBandwidth:
      return row.unit.empty() ? "move" : "read";
    case Limit::kCompute:
      return row.unit;
    case Limit::kLaunch:
      return "launch";
  }
  return "";
}

// On the CPU an operation follows from the scheme, on CUDA there are no threads to count.
std::string where(const Row& row) {
  return row.device == DeviceType::kCpu ? format_text("{:>7}", row.threads) : format_text("{:<18}", row.op);
}

}  // namespace

std::string table_head(DeviceType device) {
  const std::string_view where = device == DeviceType::kCpu ? "threads" : "operation         ";
  return format_text("{:<14} {:<8} {:>4} {:>6} {:>6} {} {:>11} {:>7} {:>7} {:>8} {:>9} {:>8}  {:<13} {}\n", "scheme", "x",
                     "M", "N", "K", where, "us", "spread", "GB/s", "TOPS", "roof us", "of roof", "roof", "kernel");
}

std::string table_line(const Row& row) {
  const std::string what = format_text("{:<14} {:<8} {:>4} {:>6} {:>6} {} ", to_string(row.what.scheme),
                                       to_string(row.what.activation), row.shape.M, row.shape.N, row.shape.K, where(row));
  if (!row.skipped.empty()) return what + format_text("{:>11}  {}\n", "not timed:", row.skipped);
  const int digits = row.device == DeviceType::kCpu ? 1 : 2;
  return what + format_text("{:>11.{}f} {:>6.0f}% {:>7.2f} {:>8.3f} {:>9.{}f} {:>7.0f}%  {:<13} {}\n", row.time.median * 1e6,
                            digits, 100 * row.time.spread, gbps(row), tops(row), row.roof_seconds() * 1e6, digits,
                            100 * row.roof_fraction(), roof(row), row.kernel);
}

Json to_json(const Row& row) {
  const bool cuda = row.device == DeviceType::kCuda;
  Json json = {{"kernel", row.kernel},
               {"scheme", to_string(row.what.scheme)},
               {"op", row.op},
               {"activation", to_string(row.what.activation)},
               {"M", row.shape.M},
               {"N", row.shape.N},
               {"K", row.shape.K},
               {"threads", cuda ? Json(nullptr) : Json(row.threads)},
               {"layout", to_string(row.layout)},
               {"us", row.time.median * 1e6},
               {"spread", row.time.spread},
               {"repeats", row.repeats},
               {"gbps", gbps(row)},
               {"tops", tops(row)},
               {"limit", to_string(row.limit())},
               {"roof", roof(row)},
               {"roof_us", row.roof_seconds() * 1e6},
               {"roof_fraction", row.roof_fraction()},
               {"read_gbps", row.weight_bytes / row.read_seconds * 1e-9},
               {"multiply", row.unit.empty() ? Json(nullptr) : Json(row.unit)},
               {"multiply_tops", row.operations_a_second * 1e-12}};
  if (cuda) {
    json["launch_us"] = row.launch_seconds * 1e6;
    json["bandwidth_gbps"] = row.bytes_a_second * 1e-9;
    json["sm_ghz"] = row.cycles_a_second * 1e-9;
  }
  return json;
}

}  // namespace octavo::bench
