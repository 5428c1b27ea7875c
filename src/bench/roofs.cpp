#include "bench/roofs.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstring>

#include "bench/timing.h"
#include "core/aligned_buffer.h"
#include "core/machine.h"

namespace octavo::bench {
namespace {

constexpr int kRepeats = 15;

// Memory of one page size, or as near as the system lets it come.
class Memory {
 public:
  Memory(std::int64_t bytes, bool huge_pages) : buffer_(bytes + kHugePage) {
    const auto address = reinterpret_cast<std::uintptr_t>(buffer_.data());
    std::byte* const data = buffer_.data() + ((address + kHugePage - 1) / kHugePage * kHugePage - address);
    bytes_ = {data, static_cast<std::size_t>(bytes)};
#if defined(__linux__)
    madvise(data, bytes_.size(), huge_pages ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
#else
    (void)huge_pages;
#endif
    std::memset(data, 1, bytes_.size());
  }

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  static constexpr std::int64_t kHugePage = std::int64_t{2} << 20;
  AlignedBuffer<std::byte> buffer_;
  std::span<std::byte> bytes_;
};

Roof roof_of(std::string_view name, double amount, std::string_view unit, const std::vector<double>& seconds) {
  const Timing time = timing_of(seconds);
  return {name, amount / time.median, unit, time.spread};
}

}  // namespace

std::vector<Roof> measure_roofs(int threads) {
  const auto pool = make_thread_pool(threads);
  const std::int64_t bytes = 4 * last_level_bytes();
  const Memory huge(bytes, true);
  const Memory small(bytes, false);
  volatile std::uint64_t sink = 0;
  std::vector<double> huge_seconds;
  std::vector<double> small_seconds;
  for (int i = 0; i < kRepeats; ++i) {
    huge_seconds.push_back(seconds_of([&] { sink = read_all(huge.bytes(), *pool); }));
    small_seconds.push_back(seconds_of([&] { sink = read_all(small.bytes(), *pool); }));
  }
  const double gigabytes = static_cast<double>(bytes) * 1e-9;
  std::vector<Roof> roofs = {roof_of("read, huge pages", gigabytes, "GB/s", huge_seconds),
                             roof_of("read, 4 KiB", gigabytes, "GB/s", small_seconds)};
  for (const Unit& unit : units()) {
    if (!unit.usable()) continue;
    std::vector<double> seconds;
    seconds.reserve(kRepeats);
    for (int i = 0; i < kRepeats; ++i) seconds.push_back(1e12 / multiply_rate(unit, *pool));
    roofs.push_back(roof_of(unit.name, 1, "TOPS", seconds));
  }
  return roofs;
}

}  // namespace octavo::bench
