// Memory of a GPU, work on it recorded into graphs, and the time that a graph's replay takes.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "octavo/parallel.h"
#include "octavo/status.h"
#include "octavo/tensor.h"

namespace octavo::bench {

// Device memory, on the current device.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  static Result<DeviceBuffer> make(std::int64_t bytes);
  std::byte* data() const { return data_.get(); }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_.get());
  }

 private:
  struct Free {
    void operator()(std::byte* data) const { cudaFree(data); }
  };
  std::unique_ptr<std::byte, Free> data_;
};

// Work that has been put on a stream once and can be replayed, with next to no gaps between its kernels.
class Graph {
 public:
  Graph() = default;
  static Result<Graph> record(Stream stream, FunctionRef<Status()> work);
  int kernels() const { return kernels_; }
  void replay(Stream stream) const;  // an error is noted, see cuda::take_error()

 private:
  struct Destroy {
    void operator()(cudaGraphExec_t graph) const { cudaGraphExecDestroy(graph); }
  };
  std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, Destroy> graph_;
  int kernels_ = 0;
};

// A stream, and the time between two places on it.
class TimedStream {
 public:
  TimedStream();
  ~TimedStream();
  TimedStream(const TimedStream&) = delete;
  TimedStream& operator=(const TimedStream&) = delete;

  Stream get() const { return {stream_}; }
  // Waits for `work`, which puts kernels on the stream; how many seconds they took. `before` runs in front of them: while it
  // does, the host is ahead of the device.
  double seconds(FunctionRef<void()> before, FunctionRef<void()> work);
  void wait();

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

}  // namespace octavo::bench
