// Scratch memory of a fixed size: threads lease it block by block, so that memory is bounded and touched pages stay warm.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

namespace octavo {

// Hands out pieces of one allocation. Without memory it only adds up what would be needed.
class Arena {
 public:
  Arena() = default;
  explicit Arena(std::size_t bytes) : memory_(static_cast<std::byte*>(::operator new(bytes, kAlignment))) {}

  template <class T>
  T* take(std::size_t count) {
    T* piece = memory_ ? reinterpret_cast<T*>(memory_.get() + used_) : nullptr;
    constexpr auto align = static_cast<std::size_t>(kAlignment);
    used_ += (count * sizeof(T) + align - 1) / align * align;
    return piece;
  }
  void clear() { used_ = 0; }
  std::size_t used() const { return used_; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(std::byte* memory) const { ::operator delete(memory, kAlignment); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  std::size_t used_ = 0;
};

// A few arenas of one size; whoever finds none free waits.
class ArenaPool {
 public:
  ArenaPool(std::size_t count, std::size_t bytes) {
    for (std::size_t i = 0; i < count; ++i) free_.push_back(std::make_unique<Arena>(bytes));
  }

  class Lease {
   public:
    explicit Lease(ArenaPool& pool) : pool_(pool) {
      std::unique_lock lock(pool_.mutex_);
      pool_.returned_.wait(lock, [&] { return !pool_.free_.empty(); });
      arena_ = std::move(pool_.free_.back());
      pool_.free_.pop_back();
    }
    ~Lease() {
      const std::lock_guard lock(pool_.mutex_);
      pool_.free_.push_back(std::move(arena_));
      pool_.returned_.notify_one();
    }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    Arena& operator*() { return *arena_; }

   private:
    ArenaPool& pool_;
    std::unique_ptr<Arena> arena_;
  };

 private:
  std::mutex mutex_;
  std::condition_variable returned_;
  std::vector<std::unique_ptr<Arena>> free_;
};

}  // namespace octavo
