#include "bench/cuda/meter.h"

#include <algorithm>
#include <cmath>

#include "bench/timing.h"
#include "core/error.h"
#include "core/macros.h"

namespace octavo::bench {
namespace {

using cuda::note_error;
using cuda::take_error;

constexpr std::size_t kMinRepeats = 5;
constexpr std::size_t kMaxRepeats = 5000;
constexpr std::size_t kRoofRepeats = 15;
constexpr std::int64_t kLargeBytes = std::int64_t{1} << 30;
constexpr int kLargeReads = 4;
constexpr double kReplaySeconds = 2e-3;     // of a product; the roofs' take less, so that it is what the GPU is busy with
constexpr double kMaxReplaySeconds = 2e-2;  // of calls that are slow
constexpr double kRoofSeconds = 5e-4;       // long beside the few microseconds that starting a graph takes
constexpr double kMoveSeconds = 5e-7;       // of a kernel that moves next to nothing, about
constexpr int kNothings = 500;

Status ok(FunctionRef<void()> launches) {
  launches();
  return take_error();
}

}  // namespace

Result<std::unique_ptr<Meter>> Meter::make(const Device& device) {
  OCTAVO_ASSIGN_OR_RETURN(const cuda::Gpu* gpu, cuda::gpu(device));
  std::unique_ptr<Meter> meter(new Meter(device, *gpu));
  OCTAVO_RETURN_IF_ERROR(meter->prepare());
  return meter;
}

Status Meter::prepare() {
  large_bytes_ = std::min(std::max(kLargeBytes, 4 * gpu_.l2_bytes), gpu_.memory / 4);
  OCTAVO_ASSIGN_OR_RETURN(large_, DeviceBuffer::make(large_bytes_));
  OCTAVO_ASSIGN_OR_RETURN(small_, DeviceBuffer::make(64));
  fill_random(large_.data(), large_bytes_, RandomIntegers({}, DType::kInt8), stream());
  stream_.wait();
  const std::int64_t part = large_bytes_ / kLargeReads / 4096 * 4096;
  const auto read = [&] {  // each its own part: they overlap, and would find one another's bytes in the cache
    for (int i = 0; i < kLargeReads; ++i) read_all(large_.data() + i * part, part, num_sms(), sink(), stream());
  };
  const auto nothing = [&] {
    for (int i = 0; i < kNothings; ++i) launch_nothing(num_sms(), stream());
  };
  OCTAVO_ASSIGN_OR_RETURN(read_, Graph::record(stream(), [&] { return ok(read); }));
  OCTAVO_ASSIGN_OR_RETURN(nothing_, Graph::record(stream(), [&] { return ok(nothing); }));
  return take_error();
}

double Meter::seconds_of(const Graph& graph) {
  return stream_.seconds(
      [&] { read_all(large_.data(), std::min(large_bytes_, 4 * gpu_.l2_bytes), num_sms(), sink(), stream()); },
      [&] { graph.replay(stream()); });
}

int Meter::copies(std::int64_t bytes) const {
  return static_cast<int>(std::min<std::int64_t>(4 * gpu_.l2_bytes / bytes + 2, kMaxCalls));
}

const CudaUnit& Meter::best_unit(std::string_view operands) const {
  for (const CudaUnit& unit : cuda_units()) {
    if (unit.operands == operands && cuda::refusal(device_, unit.needed).empty()) return unit;
  }
  return best_unit("fp32");
}

Result<Graph> Meter::record(FunctionRef<Status(int copy)> call, int copies, double seconds_a_call, double seconds,
                            int& calls) {
  const auto that_last = [&](double s) { return static_cast<int>(std::min(1e6, std::ceil(s / seconds_a_call))); };
  // Every copy, if that is no long wait; and as many calls as make a replay long enough.
  calls = std::max(that_last(seconds), std::min(copies, that_last(kMaxReplaySeconds)));
  calls = std::clamp(calls, 2, kMaxCalls);
  return Graph::record(stream(), [&]() -> Status {
    for (int i = 0; i < calls; ++i) OCTAVO_RETURN_IF_ERROR(call(i % copies));
    return take_error();
  });
}

Result<const Graph*> Meter::graph_of(const CudaUnit& unit) {
  auto found = units_.find(&unit);
  if (found == units_.end()) {
    const auto multiply = [&] { unit.launch(num_sms(), small_.as<Clock>(), stream()); };
    OCTAVO_ASSIGN_OR_RETURN(Graph graph, Graph::record(stream(), [&] { return ok(multiply); }));
    found = units_.emplace(&unit, std::move(graph)).first;
  }
  return &found->second;
}

Result<Clock> Meter::run(const Graph& unit) {
  Clock clock = {};
  unit.replay(stream());
  stream_.wait();
  note_error(cudaMemcpy(&clock, small_.data(), sizeof(clock), cudaMemcpyDeviceToHost));
  OCTAVO_RETURN_IF_ERROR(take_error());
  if (clock.nanoseconds == 0) return unsupported("the GPU's clock does not advance");
  return clock;
}

Status Meter::time_in_turns(const Work& work, double budget, Row& row) {
  // Once before, which loads the kernels; then a guess of what a call takes.
  OCTAVO_RETURN_IF_ERROR(work.call(0));
  work.move(0);
  stream_.wait();
  Status status;
  const double guess = stream_.seconds([] {}, [&] { status = work.call(1 % work.copies); });
  OCTAVO_RETURN_IF_ERROR(status);
  OCTAVO_RETURN_IF_ERROR(take_error());

  const double move_guess = row.weight_bytes * seconds_of(read_) / static_cast<double>(large_bytes_) + kMoveSeconds;
  int calls = 0;
  int moves = 0;
  OCTAVO_ASSIGN_OR_RETURN(const Graph product, record(work.call, work.copies, guess, kReplaySeconds, calls));
  const auto move = [&](int copy) { return ok([&] { work.move(copy); }); };
  OCTAVO_ASSIGN_OR_RETURN(const Graph moving, record(move, work.copies, move_guess, kRoofSeconds, moves));
  const Graph* unit = nullptr;
  if (work.unit != nullptr) {
    OCTAVO_ASSIGN_OR_RETURN(unit, graph_of(*work.unit));
  }
  const double nothings = static_cast<double>(product.kernels()) / calls / kNothings;

  std::vector<double> times, reads, launches, bandwidths, rates, clocks;
  const auto begin = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(); };
  while (times.size() < kMaxRepeats && (times.size() < kMinRepeats || elapsed() < budget)) {
    times.push_back(seconds_of(product) / calls);
    if (unit != nullptr) {  // right behind it, at its clock
      OCTAVO_ASSIGN_OR_RETURN(const Clock clock, run(*unit));
      const auto nanoseconds = static_cast<double>(clock.nanoseconds);
      rates.push_back(nanoseconds * 1e-9 / static_cast<double>(work.unit->operations * num_sms()));
      clocks.push_back(nanoseconds * 1e-9 / static_cast<double>(clock.cycles));
    }
    reads.push_back(seconds_of(moving) / moves);
    launches.push_back(seconds_of(nothing_) * nothings);
    bandwidths.push_back(seconds_of(read_) / static_cast<double>(large_bytes_));
  }
  OCTAVO_RETURN_IF_ERROR(take_error());
  row.time = timing_of(times);
  row.repeats = times.size();
  row.read_seconds = timing_of(reads).median;
  row.launch_seconds = timing_of(launches).median;
  row.bytes_a_second = 1 / timing_of(bandwidths).median;
  if (unit == nullptr) return {};
  row.unit = work.unit->name;
  row.operations_a_second = 1 / timing_of(rates).median;
  row.cycles_a_second = 1 / timing_of(clocks).median;
  return {};
}

Result<std::vector<Roof>> Meter::roofs() {
  const auto roof = [](std::string_view name, double amount, std::string_view unit, const std::vector<double>& seconds) {
    const Timing time = timing_of(seconds);
    return Roof{name, unit == "us" ? time.median * amount : amount / time.median, unit, time.spread};
  };
  std::vector<double> reads, launches;
  for (std::size_t i = 0; i < kRoofRepeats; ++i) {
    reads.push_back(seconds_of(read_));
    launches.push_back(seconds_of(nothing_));
  }
  std::vector<Roof> roofs = {
      roof("read", static_cast<double>(large_bytes_) * 1e-9, "GB/s", reads),
      roof("launch", 1e6 / kNothings, "us", launches),
  };
  for (const CudaUnit& unit : cuda_units()) {
    if (!cuda::refusal(device_, unit.needed).empty()) continue;
    OCTAVO_ASSIGN_OR_RETURN(const Graph* graph, graph_of(unit));
    std::vector<double> seconds;
    for (std::size_t i = 0; i < kRoofRepeats; ++i) {
      OCTAVO_ASSIGN_OR_RETURN(const Clock clock, run(*graph));
      seconds.push_back(static_cast<double>(clock.nanoseconds) * 1e-9);
    }
    roofs.push_back(roof(unit.name, static_cast<double>(unit.operations * num_sms()) * 1e-12, "TOPS", seconds));
  }
  OCTAVO_RETURN_IF_ERROR(take_error());
  return roofs;
}

}  // namespace octavo::bench
