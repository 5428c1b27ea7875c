// The measured roofs behind a C interface, so that a benchmark in Python can take them in turns with what it times.
#include "bench/roofs.h"

#include <map>
#include <memory>
#include <mutex>

#include "bench/timing.h"
#include "core/machine.h"

namespace {

octavo::Parallel& pool(int threads) {
  static std::mutex mutex;
  static std::map<int, std::unique_ptr<octavo::Parallel>> pools;
  const std::lock_guard lock(mutex);
  std::unique_ptr<octavo::Parallel>& found = pools[threads];
  if (found == nullptr) found = octavo::make_thread_pool(threads);
  return *found;
}

}  // namespace

#define OCTAVO_EXPORT extern "C" __attribute__((visibility("default")))

// Seconds of a plain read loop over `bytes` at an address that 64 divides.
OCTAVO_EXPORT double octavo_read_seconds(const void* data, long long bytes, int threads) {
  volatile std::uint64_t sink = 0;
  octavo::Parallel& parallel = pool(threads);
  return octavo::bench::seconds_of([&] {
    sink = octavo::bench::read_all({static_cast<const std::byte*>(data), static_cast<std::size_t>(bytes)}, parallel);
  });
}

// Operations a second of the best multiply instruction for "int8", "bf16" or "fp32", and its name.
OCTAVO_EXPORT double octavo_multiply_rate(const char* operands, int threads) {
  return octavo::bench::multiply_rate(octavo::bench::best_unit(operands), pool(threads));
}
OCTAVO_EXPORT const char* octavo_multiply_name(const char* operands) {
  return octavo::bench::best_unit(operands).name.data();  // of a literal, so it ends with a zero
}

OCTAVO_EXPORT long long octavo_last_level_bytes() { return octavo::last_level_bytes(); }
