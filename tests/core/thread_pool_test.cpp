#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "octavo/parallel.h"

namespace octavo {
namespace {

TEST(ThreadPool, CoversEveryItemOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    const auto pool = make_thread_pool(threads);
    EXPECT_EQ(pool->num_threads(), threads);
    for (const std::int64_t count : {0, 1, 2, 7, 64, 1000}) {
      for (const std::int64_t grain : {1, 3, 5000}) {
        std::vector<std::atomic<int>> hits(static_cast<std::size_t>(count) + 10);
        pool->run(10, 10 + count, grain, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t i = begin; i < end; ++i) ++hits[static_cast<std::size_t>(i)];
        });
        for (std::int64_t i = 0; i < count + 10; ++i) ASSERT_EQ(hits[static_cast<std::size_t>(i)], i >= 10);
      }
    }
  }
}

TEST(ThreadPool, NestedAndConcurrentRunsFinish) {
  const auto pool = make_thread_pool(3);
  std::atomic<std::int64_t> sum = 0;
  const auto job = [&] {
    for (int repeat = 0; repeat < 200; ++repeat) {
      pool->run(0, 16, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          pool->run(0, 4, 1, [&](std::int64_t b, std::int64_t e) { sum += e - b; });
        }
      });
    }
  };
  std::thread other(job);
  job();
  other.join();
  EXPECT_EQ(sum, 2 * 200 * 16 * 4);
}

TEST(ThreadPool, SleepsWhenIdle) {
  const auto pool = make_thread_pool(4);
  pool->run(0, 64, 1, [](std::int64_t, std::int64_t) {});
  const auto used = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
  };
  const double before = used();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_LT(used() - before, 0.05);
}

}  // namespace
}  // namespace octavo
