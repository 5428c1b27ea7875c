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
  std::vector<int> threads;
  std::string kernel;           // a row of the kernel table; "all" for each that can; empty for the one that is chosen
  double seconds_a_row = 0.25;  // more where kMinRepeats take longer
};

// One product on one kernel, or why it was not timed.
struct Row {
  Case what;
  Shape shape;
  int threads;
  std::string kernel;
  std::string skipped;  // the reason; empty where it was timed, and only then does the rest count

  Layout layout;        // of the weight
  double weight_bytes;  // integers, scales and zero points
  Timing time;
  std::size_t repeats;
  double read_seconds;         // of a plain read loop over as many bytes, in turns with the product
  std::string_view unit;       // the best multiply instruction for these operands here,
  double operations_a_second;  // and what it does

  double operations() const;  // multiplications and additions
  double roof_seconds() const;
  bool bandwidth_limits() const;
  double roof_fraction() const { return roof_seconds() / time.median; }
};

// Calls `done` after every row.
void measure(const Options& options, FunctionRef<void(const Row&)> done);

}  // namespace octavo::bench
