// Times products on cold weights, each beside the roofs that limit it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "bench/cases.h"
#include "bench/timing.h"

namespace octavo::bench {

struct Options {
  std::vector<Case> cases;
  std::vector<Shape> shapes;
  std::vector<int> threads;     // on the CPU
  std::string kernel;           // a row of the kernel table; "all" for each that can; empty for the one that is chosen
  double seconds_a_row = 0.25;  // more where kMinRepeats take longer
};

enum class Limit { kBandwidth, kCompute, kLaunch };
std::string_view to_string(Limit limit);

// One product on one kernel, or why it was not timed.
struct Row {
  Case what;
  std::string_view op;  // "linear", "scaled_mm", "linear_w8a8" …; on CUDA "quantize_per_token" alone, too, whose N is 0
  Shape shape;
  DeviceType device;
  int threads;  // 0 on CUDA
  std::string kernel;
  std::string skipped;  // the reason; empty where it was timed, and only then does the rest count

  Layout layout;        // of the weight
  double weight_bytes;  // integers, scales and zero points; of quantize_per_token x, q and the scales
  Timing time;
  std::size_t repeats;
  double read_seconds;         // of a plain read loop over as many bytes, in turns with the product
  std::string_view unit;       // the best multiply instruction for these operands here; "" where nothing is multiplied
  double operations_a_second;  // and what it does

  // On CUDA alone.
  double launch_seconds = 0;   // of kernels that do nothing, as many as the product has
  double bytes_a_second = 0;   // of reading far more than a weight
  double cycles_a_second = 0;  // of the SMs while they multiplied

  double operations() const;  // multiplications and additions
  Limit limit() const;
  double roof_seconds() const;  // no product is faster
  double roof_fraction() const { return roof_seconds() / time.median; }

 private:
  double multiply_seconds() const { return unit.empty() ? 0 : operations() / operations_a_second; }
};

// Calls `done` after every row.
void measure(const Options& options, FunctionRef<void(const Row&)> done);

}  // namespace octavo::bench
