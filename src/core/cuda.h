// This machine's GPUs, and the errors of the CUDA runtime as Status. No CUDA header is needed to include this; in a build
// without CUDA there are no GPUs, and usable() says why.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "octavo/status.h"
#include "octavo/tensor.h"

namespace octavo::cuda {

struct Gpu {
  std::string name;
  int major = 0;  // of the compute capability
  int minor = 0;
  int num_sms = 0;
  std::int64_t memory = 0;             // bytes
  std::int64_t max_shared_memory = 0;  // bytes a thread block may ask for
  std::int64_t l2_bytes = 0;
  bool has_code = false;  // whether this build has machine code for it
};

// The GPUs by device index, asked for once: the first call starts the driver, so nothing that serves the CPU alone makes it.
// Empty where there are none, or usable() is an error.
std::span<const Gpu> gpus();

// Whether the runtime that this build holds works here: without a driver, or with one too old, the error says which is
// needed.
Status usable();

// The GPU of a device, or why there is none of that index.
Result<const Gpu*> gpu(const Device& device);

// Which compute capabilities a kernel runs on: this one and all above it, or it alone, as code for 9.0a does.
struct Capability {
  int major = 0;
  int minor = 0;
  bool exactly = false;
};

// Why a kernel does not run on a device; empty when it does. Every kernel needs machine code in this build.
std::string refusal(const Device& device, const Capability& needed = {});
// The same as an error, for functions that are no rows of the kernel table.
Status ready(const Device& device);

// Whether a kernel runs on some GPU of this machine.
Status some_gpu(const Capability& needed = {});

// The compute capabilities that this build has code for, as "8.0, 9.0a"; "" in a build without CUDA.
std::string architectures();

// What the driver and the runtime of this build support, as 13000 for CUDA 13.0; 0 where there is none.
int driver_version();
int runtime_version();

// The current device's index; 0 where there is none.
int current_device();

// Makes a device current for a scope. Kernels are launched on the current device, whichever their stream is.
class DeviceGuard {
 public:
  explicit DeviceGuard(const Device& device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int previous_ = -1;  // -1: nothing to go back to
};

// Launchers return nothing: what goes wrong is noted, for this thread, and the function that called the launcher asks.
// `error` is a cudaError_t; only the first one that is not cudaSuccess is kept.
void note_error(int error);
// The error noted since the last call.
Status take_error();

// Raises a kernel's limit of dynamic shared memory on the current device, once; up to 48 KiB need nothing. Returns a
// cudaError_t.
int allow_shared_memory(const void* kernel, std::size_t bytes);

// Calls launch() on a device, and returns what went wrong.
template <class Launch>
Status on_device(const Device& device, const Launch& launch) {
  if (Status status = ready(device); !status.ok()) return status;
  const DeviceGuard guard(device);
  launch();
  return take_error();
}

}  // namespace octavo::cuda
