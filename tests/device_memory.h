// Memory of a CUDA device, for tests.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "core/cuda.h"
#include "octavo/tensor.h"

namespace octavo::test {

inline void require_success(cudaError_t error) {
  if (error == cudaSuccess) return;
  ADD_FAILURE() << cudaGetErrorName(error) << ": " << cudaGetErrorString(error);
  std::abort();  // a device that failed once answers nothing after it
}

// A device's memory, in bytes; copies wait.
class DeviceMemory {
 public:
  explicit DeviceMemory(std::size_t size, Device device = {DeviceType::kCuda, 0}) : size_(size), device_(device) {
    const cuda::DeviceGuard guard(device);
    require_success(cudaMalloc(&data_, size == 0 ? 1 : size));
  }
  explicit DeviceMemory(const std::vector<std::byte>& bytes, Device device = {DeviceType::kCuda, 0})
      : DeviceMemory(bytes.size(), device) {
    upload(bytes.data(), bytes.size());
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  ~DeviceMemory() { cudaFree(data_); }

  std::byte* at(std::size_t offset = 0) const { return static_cast<std::byte*>(data_) + offset; }
  std::size_t size() const { return size_; }
  Device device() const { return device_; }

  void upload(const void* from, std::size_t bytes, std::size_t offset = 0) {
    const cuda::DeviceGuard guard(device_);
    require_success(cudaMemcpy(at(offset), from, bytes, cudaMemcpyHostToDevice));
    require_success(cudaDeviceSynchronize());  // streams of their own do not wait for the default one
  }
  void fill(int byte, std::size_t bytes) {
    const cuda::DeviceGuard guard(device_);
    require_success(cudaMemset(data_, byte, bytes));
    require_success(cudaDeviceSynchronize());
  }
  std::vector<std::byte> download(std::size_t bytes) const {
    const cuda::DeviceGuard guard(device_);
    std::vector<std::byte> out(bytes);
    require_success(cudaMemcpy(out.data(), data_, bytes, cudaMemcpyDeviceToHost));
    return out;
  }

 private:
  void* data_ = nullptr;
  std::size_t size_;
  Device device_;
};

// A matrix on the device: a host matrix's copy, `offset` bytes behind an aligned address, its rows `gap` elements apart.
// Around and between the rows lie bytes of kGuard.
class DeviceMatrix {
 public:
  static constexpr int kGuard = 0xa5;

  DeviceMatrix(DType dtype, std::int64_t rows, std::int64_t cols, std::int64_t gap = 0, std::int64_t offset = 0,
               Device device = {DeviceType::kCuda, 0})
      : memory_(bytes_of(dtype, rows, cols, gap, offset), device) {
    const std::int64_t stride = row_bytes(dtype, cols) + row_bytes(dtype, gap);
    view_ = {memory_.at(kMargin + static_cast<std::size_t>(offset)), dtype, rows, cols, stride, device};
    memory_.fill(kGuard, memory_.size());
  }
  explicit DeviceMatrix(const MatrixView& host, std::int64_t gap = 0, std::int64_t offset = 0,
                        Device device = {DeviceType::kCuda, 0})
      : DeviceMatrix(host.dtype, host.rows, host.cols, gap, offset, device) {
    const auto width = static_cast<std::size_t>(row_bytes(host.dtype, host.cols));
    if (host.empty()) return;
    const cuda::DeviceGuard guard(device);
    require_success(cudaMemcpy2D(view_.data, static_cast<std::size_t>(view_.stride), host.data,
                                 static_cast<std::size_t>(host.stride), width, static_cast<std::size_t>(host.rows),
                                 cudaMemcpyHostToDevice));
    require_success(cudaDeviceSynchronize());
  }

  MutableMatrixView mut() { return view_; }
  MatrixView view() const { return as_const(view_); }

  // Copies the rows to `host`, and says whether all bytes outside them are as they were.
  bool download(const MutableMatrixView& host) const {
    std::vector<std::byte> bytes = memory_.download(memory_.size());
    const auto start = static_cast<std::size_t>(static_cast<const std::byte*>(view_.data) - memory_.at());
    const auto width = static_cast<std::size_t>(row_bytes(view_.dtype, view_.cols));
    for (std::int64_t r = 0; r < view_.rows && width > 0; ++r) {
      std::byte* row = bytes.data() + start + static_cast<std::size_t>(r * view_.stride);
      std::memcpy(host.row<std::byte>(r), row, width);
      std::memset(row, kGuard, width);
    }
    for (const std::byte byte : bytes) {
      if (byte != std::byte{kGuard}) return false;
    }
    return true;
  }

 private:
  static constexpr std::size_t kMargin = 256;

  static std::size_t bytes_of(DType dtype, std::int64_t rows, std::int64_t cols, std::int64_t gap, std::int64_t offset) {
    return 2 * kMargin + static_cast<std::size_t>(offset + rows * (row_bytes(dtype, cols) + row_bytes(dtype, gap)));
  }

  DeviceMemory memory_;
  MutableMatrixView view_;
};

}  // namespace octavo::test
