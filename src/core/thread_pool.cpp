// A pool whose workers sleep between jobs. A job is a range cut into chunks that threads take from a shared counter, so a
// thread that is slowed down by other work on its core takes fewer.
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "octavo/parallel.h"

namespace octavo {
namespace {

constexpr int kChunksPerThread = 4;

class Serial final : public Parallel {
 public:
  int num_threads() const override { return 1; }
  void run(std::int64_t begin, std::int64_t end, std::int64_t /*grain*/, Body body) override {
    if (begin < end) body(begin, end);
  }
};

struct Job {
  std::int64_t end;
  std::int64_t chunk;
  Parallel::Body body;
  std::atomic<std::int64_t> next;

  void work() {
    for (;;) {
      const std::int64_t begin = next.fetch_add(chunk, std::memory_order_relaxed);
      if (begin >= end) return;
      body(begin, std::min(begin + chunk, end));
    }
  }
};

class ThreadPool final : public Parallel {
 public:
  explicit ThreadPool(int num_threads) {
    workers_.reserve(static_cast<std::size_t>(num_threads - 1));
    for (int i = 1; i < num_threads; ++i) workers_.emplace_back([this] { worker(); });
  }

  ~ThreadPool() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : workers_) thread.join();
  }

  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const override { return static_cast<int>(workers_.size()) + 1; }

  void run(std::int64_t begin, std::int64_t end, std::int64_t grain, Body body) override {
    if (begin >= end) return;
    const std::int64_t count = end - begin;
    const std::int64_t share = count / (std::int64_t{num_threads()} * kChunksPerThread) + 1;
    Job job{end, std::max({share, grain, std::int64_t{1}}), body, begin};
    // One job at a time: a run inside a run, or beside another thread's, stays on its own thread.
    std::unique_lock busy(busy_, std::defer_lock);
    if (workers_.empty() || job.chunk >= count || inside_ || !busy.try_lock()) {
      body(begin, end);
      return;
    }
    {
      const std::lock_guard lock(mutex_);
      job_ = &job;
      ++generation_;
    }
    wake_.notify_all();
    inside_ = true;
    job.work();
    inside_ = false;
    std::unique_lock lock(mutex_);
    job_ = nullptr;  // a worker that wakes up only now finds nothing to do
    idle_.wait(lock, [this] { return active_ == 0; });
  }

 private:
  void worker() {
    inside_ = true;
    std::uint64_t seen = 0;
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return stopping_ || generation_ != seen; });
      if (stopping_) return;
      seen = generation_;
      Job* job = job_;
      if (job == nullptr) continue;
      ++active_;
      lock.unlock();
      job->work();
      lock.lock();
      if (--active_ == 0) idle_.notify_one();
    }
  }

  static thread_local bool inside_;  // this thread is working on a job of some pool

  std::vector<std::thread> workers_;
  std::mutex busy_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::condition_variable idle_;
  Job* job_ = nullptr;
  std::uint64_t generation_ = 0;
  int active_ = 0;
  bool stopping_ = false;
};

thread_local bool ThreadPool::inside_ = false;

}  // namespace

Parallel& serial() {
  static Serial instance;
  return instance;
}

std::unique_ptr<Parallel> make_thread_pool(int num_threads) {
  return std::make_unique<ThreadPool>(std::max(1, num_threads));
}

}  // namespace octavo
