#include "core/cuda.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/macros.h"

#if OCTAVO_HAVE_CUDA
#include <cuda_runtime_api.h>
#endif

namespace octavo::cuda {

#if OCTAVO_HAVE_CUDA
namespace {

struct Code {
  int major;
  int minor;
  bool exactly;  // for this capability alone, not for the later ones of its major version
};

// From OCTAVO_CUDA_ARCHITECTURES, as "80,90a".
std::vector<Code> all_code() {
  std::vector<Code> all;
  for (std::string_view rest = OCTAVO_CUDA_ARCHITECTURES; !rest.empty();) {
    const std::size_t end = std::min(rest.find(','), rest.size());
    int number = 0;
    std::from_chars(rest.data(), rest.data() + end, number);
    all.push_back({number / 10, number % 10, rest[end - 1] == 'a'});
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return all;
}

std::string version_text(int version) { return format_text("{}.{}", version / 1000, version % 1000 / 10); }

// The oldest Linux driver of a CUDA major version that this library was built with.
int oldest_driver(int major) { return major >= 13 ? 580 : 525; }

bool has_code_for(int major, int minor) {
  return std::ranges::any_of(all_code(), [&](const Code& code) {
    return code.major == major && (code.exactly ? code.minor == minor : code.minor <= minor);
  });
}

struct Machine {
  Status usable;
  std::vector<Gpu> gpus;
};

Status why_not(cudaError_t error) {
  const int driver = driver_version();
  const int needed = oldest_driver(CUDART_VERSION / 1000);
  if (error == cudaErrorNoDevice) return unsupported("this machine has no CUDA device that this process may use");
  if (error != cudaErrorInsufficientDriver) {
    return unsupported("the CUDA runtime does not start: {} ({})", cudaGetErrorString(error), cudaGetErrorName(error));
  }
  if (driver == 0) return unsupported("this machine has no NVIDIA driver");
  return unsupported(
      "the NVIDIA driver is too old: it supports CUDA {}, and this build of octavo needs {} (driver {} or newer)",
      version_text(driver), version_text(CUDART_VERSION), needed);
}

Machine find_machine() {
  Machine machine;
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) {
    cudaGetLastError();  // it is told here, not to whoever asks next
    machine.usable = why_not(error);
    return machine;
  }
  for (int index = 0; index < count; ++index) {
    cudaDeviceProp properties;
    if (const cudaError_t error = cudaGetDeviceProperties(&properties, index); error != cudaSuccess) {
      cudaGetLastError();
      machine.usable = why_not(error);
      machine.gpus.clear();
      return machine;
    }
    machine.gpus.push_back({properties.name, properties.major, properties.minor, properties.multiProcessorCount,
                            static_cast<std::int64_t>(properties.totalGlobalMem),
                            static_cast<std::int64_t>(properties.sharedMemPerBlockOptin), properties.l2CacheSize,
                            has_code_for(properties.major, properties.minor)});
  }
  return machine;
}

const Machine& machine() {
  static const Machine found = find_machine();
  return found;
}

thread_local cudaError_t noted = cudaSuccess;

}  // namespace

std::span<const Gpu> gpus() { return machine().gpus; }

Status usable() { return machine().usable; }

std::string architectures() {
  std::string text;
  for (const Code& code : all_code()) {
    text += format_text("{}{}.{}{}", text.empty() ? "" : ", ", code.major, code.minor, code.exactly ? "a" : "");
  }
  return text;
}

int driver_version() {
  int version = 0;
  if (cudaDriverGetVersion(&version) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return version;
}

int runtime_version() { return CUDART_VERSION; }

int current_device() {
  int index = 0;
  note_error(cudaGetDevice(&index));
  return index;
}

DeviceGuard::DeviceGuard(const Device& device) {
  int current = -1;
  note_error(cudaGetDevice(&current));
  if (current == device.index) return;
  previous_ = current;
  note_error(cudaSetDevice(device.index));
}

DeviceGuard::~DeviceGuard() {
  if (previous_ >= 0) note_error(cudaSetDevice(previous_));
}

void note_error(int error) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // it is told by take_error(), not to whoever asks the runtime next
  if (noted == cudaSuccess) noted = static_cast<cudaError_t>(error);
}

Status take_error() {
  if (noted == cudaSuccess) return {};
  const cudaError_t error = std::exchange(noted, cudaSuccess);
  return unsupported("CUDA: {} ({})", cudaGetErrorString(error), cudaGetErrorName(error));
}

int allow_shared_memory(const void* kernel, std::size_t bytes) {
  constexpr std::size_t kUsual = 48 << 10;
  if (bytes <= kUsual) return cudaSuccess;
  static std::mutex mutex;
  static std::map<std::pair<const void*, int>, std::size_t> allowed;
  int device = 0;
  if (const cudaError_t error = cudaGetDevice(&device); error != cudaSuccess) return error;
  const std::lock_guard lock(mutex);
  std::size_t& limit = allowed[{kernel, device}];
  if (bytes <= limit) return cudaSuccess;
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (error == cudaSuccess) limit = bytes;
  return error;
}

#else

std::span<const Gpu> gpus() { return {}; }
Status usable() { return unsupported("this build of octavo has no CUDA kernels: there was no nvcc, or OCTAVO_CUDA=OFF"); }
std::string architectures() { return {}; }
int driver_version() { return 0; }
int runtime_version() { return 0; }
int current_device() { return 0; }
DeviceGuard::DeviceGuard(const Device& /*device*/) {}
DeviceGuard::~DeviceGuard() = default;
void note_error(int /*error*/) {}
Status take_error() { return {}; }
int allow_shared_memory(const void* /*kernel*/, std::size_t /*bytes*/) { return 0; }

#endif

Result<const Gpu*> gpu(const Device& device) {
  OCTAVO_RETURN_IF_ERROR(usable());
  const std::span<const Gpu> all = gpus();
  if (device.index >= 0 && static_cast<std::size_t>(device.index) < all.size()) {
    return &all[static_cast<std::size_t>(device.index)];
  }
  return invalid("there is no cuda:{}; this machine has {} CUDA devices", device.index, all.size());
}

std::string refusal(const Device& device, const Capability& needed) {
  const Result<const Gpu*> found = gpu(device);
  if (!found.ok()) return found.status().message();
  const Gpu& g = **found;
  if (!g.has_code) {
    return format_text("{} has compute capability {}.{}; this build has code for {}", g.name, g.major, g.minor,
                       architectures());
  }
  const bool same = g.major == needed.major && g.minor == needed.minor;
  if (same || (!needed.exactly && (g.major > needed.major || (g.major == needed.major && g.minor > needed.minor))))
    return {};
  return format_text("{} has compute capability {}.{}, not {}.{}{}", g.name, g.major, g.minor, needed.major, needed.minor,
                     needed.exactly ? "" : " or more");
}

Status ready(const Device& device) {
  if (std::string reason = refusal(device); !reason.empty()) return unsupported("{}", reason);
  return {};
}

Status some_gpu(const Capability& needed) {
  OCTAVO_RETURN_IF_ERROR(usable());
  std::string reason;
  for (std::size_t i = 0; i < gpus().size(); ++i) {
    reason = refusal({DeviceType::kCuda, static_cast<int>(i)}, needed);
    if (reason.empty()) return {};
  }
  return unsupported("{}", reason);
}

}  // namespace octavo::cuda
