// Times calls in turns with what limits them.
#pragma once

#include <map>

#include "bench/cuda/graph.h"
#include "bench/cuda/loops.h"
#include "bench/measure.h"
#include "bench/roofs.h"
#include "core/cuda.h"

namespace octavo::bench {

class Meter {
 public:
  // For a device that is current, and ready (cuda::ready()).
  static Result<std::unique_ptr<Meter>> make(const Device& device);

  // Something that is done again and again, each time with the next copy of its operands.
  struct Work {
    FunctionRef<Status(int copy)> call;
    FunctionRef<void(int copy)> move;  // moves the bytes of call(copy) and does nothing else
    int copies;
    const CudaUnit* unit;  // that call() multiplies on at best; nullptr: it does not multiply
  };
  // Fills in the times of a row whose weight_bytes are set.
  Status time_in_turns(const Work& work, double budget, Row& row);

  // Copies of so many bytes that each has left the second-level cache when it is its turn again. The cache is emptied before
  // each replay of a graph, too, so there need not be more than kMaxCalls.
  int copies(std::int64_t bytes) const;

  // The unit that products of these operands could at best run on.
  const CudaUnit& best_unit(std::string_view operands) const;

  Result<std::vector<Roof>> roofs();

  Stream stream() const { return stream_.get(); }
  TimedStream& timed() { return stream_; }
  int num_sms() const { return gpu_.num_sms; }
  std::uint32_t* sink() const { return small_.as<std::uint32_t>() + 8; }

 private:
  static constexpr int kMaxCalls = 512;

  Meter(const Device& device, const cuda::Gpu& gpu) : device_(device), gpu_(gpu) {}

  Status prepare();
  // Of a replay, on a cold cache.
  double seconds_of(const Graph& graph);
  // So many calls, which it tells, that their replay takes about `seconds`.
  Result<Graph> record(FunctionRef<Status(int copy)> call, int copies, double seconds_a_call, double seconds, int& calls);
  Result<const Graph*> graph_of(const CudaUnit& unit);
  Result<Clock> run(const Graph& unit);

  Device device_;
  const cuda::Gpu& gpu_;
  TimedStream stream_;
  DeviceBuffer large_, small_;
  std::int64_t large_bytes_ = 0;
  Graph read_, nothing_;
  std::map<const CudaUnit*, Graph> units_;
};

}  // namespace octavo::bench
