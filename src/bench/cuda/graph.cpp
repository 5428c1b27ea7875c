#include "bench/cuda/graph.h"

#include <algorithm>
#include <vector>

#include "core/cuda.h"
#include "core/error.h"
#include "core/macros.h"

namespace octavo::bench {

using cuda::note_error;
using cuda::take_error;

Result<DeviceBuffer> DeviceBuffer::make(std::int64_t bytes) {
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, static_cast<std::size_t>(std::max<std::int64_t>(bytes, 1)));
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return unsupported("the GPU has no {} MiB left", bytes >> 20);
  }
  note_error(error);
  OCTAVO_RETURN_IF_ERROR(take_error());
  DeviceBuffer buffer;
  buffer.data_.reset(static_cast<std::byte*>(data));
  return buffer;
}

Result<Graph> Graph::record(Stream stream, FunctionRef<Status()> work) {
  const auto on = static_cast<cudaStream_t>(stream.handle);
  note_error(cudaStreamBeginCapture(on, cudaStreamCaptureModeThreadLocal));
  const Status status = work();
  cudaGraph_t recorded = nullptr;
  note_error(cudaStreamEndCapture(on, &recorded));
  Graph graph;
  if (recorded != nullptr) {
    std::size_t nodes = 0;
    note_error(cudaGraphGetNodes(recorded, nullptr, &nodes));
    graph.kernels_ = static_cast<int>(nodes);
    cudaGraphExec_t exec = nullptr;
    note_error(cudaGraphInstantiate(&exec, recorded, 0));
    graph.graph_.reset(exec);
    if (exec != nullptr) note_error(cudaGraphUpload(exec, on));
    note_error(cudaGraphDestroy(recorded));
  }
  const Status noted = take_error();
  OCTAVO_RETURN_IF_ERROR(status);
  OCTAVO_RETURN_IF_ERROR(noted);
  return graph;
}

void Graph::replay(Stream stream) const {
  note_error(cudaGraphLaunch(graph_.get(), static_cast<cudaStream_t>(stream.handle)));
}

TimedStream::TimedStream() {
  note_error(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  note_error(cudaEventCreate(&begin_));
  note_error(cudaEventCreate(&end_));
}

TimedStream::~TimedStream() {
  cudaEventDestroy(end_);
  cudaEventDestroy(begin_);
  cudaStreamDestroy(stream_);
}

double TimedStream::seconds(FunctionRef<void()> before, FunctionRef<void()> work) {
  before();
  note_error(cudaEventRecord(begin_, stream_));
  work();
  note_error(cudaEventRecord(end_, stream_));
  note_error(cudaEventSynchronize(end_));
  float milliseconds = 0;
  note_error(cudaEventElapsedTime(&milliseconds, begin_, end_));
  return milliseconds * 1e-3;
}

void TimedStream::wait() { note_error(cudaStreamSynchronize(stream_)); }

}  // namespace octavo::bench
