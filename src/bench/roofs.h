// The two roofs of a product, measured: how fast memory is read, and how fast the multiply units multiply.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "octavo/parallel.h"

namespace octavo::bench {

// Reads the bytes once, in order, with the widest vectors there are and nothing else. Returns something made of all of them,
// so that no read can be left out.
std::uint64_t read_all(std::span<const std::byte> bytes, Parallel& parallel);

// A multiply unit: an instruction that multiplies and adds.
struct Unit {
  std::string_view name;      // the instruction, e.g. "vpdpbusd zmm"
  std::string_view operands;  // "int8", "bf16" or "fp32"
  bool (*usable)();           // whether this machine has it
  double operations;          // multiplications and additions of one call of loop()
  void (*loop)();             // a fraction of a millisecond of independent sums in registers
};

// Every unit of this architecture, for each kind of operands the widest first.
std::span<const Unit> units();

// The unit that products with these operands could at best run on here. bf16 falls back to fp32.
const Unit& best_unit(std::string_view operands);

// Operations a second with every thread busy.
double multiply_rate(const Unit& unit, Parallel& parallel);

// One figure of this machine.
struct Roof {
  std::string_view name;
  double value;
  std::string_view unit;  // "GB/s", "TOPS", or on CUDA "us"
  double spread;
};

// Reading memory, in huge pages where the system allows and in small ones, and every multiply unit that is usable here.
std::vector<Roof> measure_roofs(int threads);

}  // namespace octavo::bench
