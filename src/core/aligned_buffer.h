// Uninitialized memory for a kernel's operands, aligned to a cache line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>

namespace octavo {

template <class T>
class AlignedBuffer {
 public:
  static constexpr std::align_val_t kAlignment{64};

  explicit AlignedBuffer(std::int64_t count)
      : count_(static_cast<std::size_t>(count)), data_(static_cast<T*>(::operator new(count_ * sizeof(T), kAlignment))) {}

  T* data() const { return data_.get(); }
  std::span<T> span() const { return {data_.get(), count_}; }

 private:
  struct Free {
    void operator()(T* data) const { ::operator delete(data, kAlignment); }
  };

  std::size_t count_;
  std::unique_ptr<T, Free> data_;
};

}  // namespace octavo
