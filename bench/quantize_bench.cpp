// How fast are weights quantized, as a share of reading them? Times quantize() of a cold BF16 matrix beside a plain read
// loop over the same buffer, interleaved, and prints a table; with a file's name, writes the figures there as JSON.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

#include "core/format.h"
#include "octavo/octavo.h"

namespace octavo {
namespace {

constexpr std::int64_t kRows = 16384;
constexpr std::int64_t kCols = 8192;  // 256 MiB of BF16: several times the last-level cache
constexpr int kRepeats = 15;

double seconds_of(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

struct Timing {
  double median;
  double spread;  // (largest - least) / median of the middle half
};

Timing timing_of(std::vector<double> seconds) {
  std::sort(seconds.begin(), seconds.end());
  const std::size_t n = seconds.size();
  const double median = seconds[n / 2];
  return {median, (seconds[n - 1 - n / 4] - seconds[n / 4]) / median};
}

std::uint64_t read_sum(const std::uint64_t* words, std::int64_t begin, std::int64_t end) {
  std::uint64_t sum[8] = {};
  for (std::int64_t i = begin; i + 8 <= end; i += 8) {
    for (int j = 0; j < 8; ++j) sum[j] += words[i + j];
  }
  return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

struct Row {
  const char* scheme;
  Clip clip;
  int threads;
  Timing quantize;
  Timing read;
};

Row measure(const char* scheme, Clip clip, int threads, const std::vector<std::uint16_t>& weights) {
  const WeightFormat format = parse_scheme(scheme)->weight;
  const bool packed = format.num_bits <= 4;
  const std::int64_t groups = format.groups(kCols);
  const std::int64_t scale_rows = format.group_size == kPerTensor ? 1 : kRows;
  const DType storage = storage_dtype(format, packed);
  std::vector<std::uint8_t> q(static_cast<std::size_t>(kRows * row_bytes(storage, kCols)));
  std::vector<float> scale(static_cast<std::size_t>(kRows * groups));
  std::vector<std::uint8_t> zero_point(scale.size());
  MutableQuantizedWeight out = {
      format, {q.data(), storage, kRows, kCols}, {scale.data(), DType::kFloat32, scale_rows, groups}, {}};
  if (!format.symmetric) out.zero_point = {zero_point.data(), DType::kUInt8, scale_rows, groups};
  QuantizeOptions options;
  options.clip = clip;
  const MatrixView w(weights.data(), DType::kBFloat16, kRows, kCols);
  const auto pool = make_thread_pool(threads);

  std::vector<double> quantize_seconds;
  std::vector<double> read_seconds;
  const int repeats = clip == Clip::kAbsmax ? kRepeats : 1;
  for (int repeat = -1; repeat < repeats; ++repeat) {
    volatile std::uint64_t sink = 0;
    const double read = seconds_of([&] {
      const auto* words = reinterpret_cast<const std::uint64_t*>(weights.data());
      pool->run(0, kRows * kCols / 4, 1 << 16, [&](std::int64_t b, std::int64_t e) { sink = read_sum(words, b, e); });
    });
    const double time = seconds_of([&] {
      if (!quantize(w, options, out, *pool).ok()) std::abort();
    });
    if (repeat < 0) continue;  // touches the pages
    quantize_seconds.push_back(time);
    read_seconds.push_back(read);
  }
  return {scheme, clip, threads, timing_of(quantize_seconds), timing_of(read_seconds)};
}

}  // namespace
}  // namespace octavo

int main(int argc, char** argv) {
  using namespace octavo;
  std::vector<std::uint16_t> weights(static_cast<std::size_t>(kRows * kCols));
  std::mt19937 random(1);
  for (auto& w : weights) w = static_cast<std::uint16_t>((random() & 0x807f) | 0x3c00 | (random() & 0x0380));  // ±[0.008, 1)
  const double gigabytes = static_cast<double>(weights.size()) * 2e-9;

  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  print_text("{:<16} {:<7} {:>8} {:>10} {:>8} {:>10} {:>8}\n", "scheme", "clip", "threads", "GB/s", "spread", "read GB/s",
             "share");
  for (const int threads : {1, 2}) {
    for (const auto& [scheme, clip] : {std::pair{"w8a16", Clip::kAbsmax},
                                       {"w8a16-tensor", Clip::kAbsmax},
                                       {"w4a16-g128", Clip::kAbsmax},
                                       {"w4a16-g32-asym", Clip::kAbsmax},
                                       {"w4a16-g128", Clip::kMse}}) {
      const Row r = measure(scheme, clip, threads, weights);
      const char* clip_name = clip == Clip::kAbsmax ? "absmax" : "mse";
      const double rate = gigabytes / r.quantize.median;
      const double share = r.read.median / r.quantize.median;
      print_text("{:<16} {:<7} {:>8} {:>10.2f} {:>7.0f}% {:>10.2f} {:>7.0f}%\n", scheme, clip_name, threads, rate,
                 100 * r.quantize.spread, gigabytes / r.read.median, 100 * share);
      rows.push_back({{"scheme", scheme},
                      {"clip", clip_name},
                      {"N", kRows},
                      {"K", kCols},
                      {"threads", threads},
                      {"us", r.quantize.median * 1e6},
                      {"spread", r.quantize.spread},
                      {"gbps", rate},
                      {"roof_fraction", share},
                      {"peers", {{"read_loop", r.read.median * 1e6}}}});
    }
  }
  if (argc == 2) {
    // The machine's name, commit and date are the caller's: bench/quantize.py adds them.
    std::ofstream(argv[1]) << nlohmann::ordered_json{{"rows", rows}}.dump(1) << '\n';
  }
  return 0;
}
