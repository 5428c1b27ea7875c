// What is timed beside CUDA products: kernels that only read, only copy, only multiply, or do nothing. All are launched on
// the current device; errors are noted (core/cuda.h).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "bench/row_major.h"
#include "core/cuda.h"

namespace octavo::bench {

// Fills `bytes` bytes from an address that 4 divides with random integers.
void fill_random(std::byte* data, std::int64_t bytes, RandomIntegers integers, Stream stream);
// `count` words, all the same.
void fill_words(std::byte* data, std::int64_t count, std::uint32_t value, Stream stream);

// Reads `bytes` / 16 times 16 bytes and nothing else. They count as constant, like weights: the reading starts before the
// kernel in front has ended. `sink` is written if the values say so, which is one way to say never.
void read_all(const std::byte* data, std::int64_t bytes, int num_sms, std::uint32_t* sink, Stream stream);

// Copies of each `every` (2 or 4) times 16 bytes the first, after the kernel in front has ended: what a kernel does that
// reads so much more than it writes.
void read_and_write(const std::byte* from, std::int64_t bytes, int every, std::byte* to, Stream stream);

// A kernel on every SM that does nothing.
void launch_nothing(int num_sms, Stream stream);

// How long a loop ran on an SM.
struct Clock {
  std::uint64_t cycles;
  std::uint64_t nanoseconds;
};

// A multiply unit: an instruction on registers and shared memory, which are full of random numbers, as in a product.
struct CudaUnit {
  std::string_view name;      // the instruction, e.g. "wgmma s8"
  std::string_view operands;  // "int8", "fp16", "bf16" or "fp32"
  cuda::Capability needed;
  std::int64_t operations;  // multiplications and additions of launch() on one SM
  void (*launch)(int num_sms, Clock* clock, Stream stream);
};

// For each kind of operands the widest first.
std::span<const CudaUnit> cuda_units();

namespace wgmma {  // loops_sm90.cu
extern const CudaUnit kS8, kF16, kBf16;
}

}  // namespace octavo::bench
