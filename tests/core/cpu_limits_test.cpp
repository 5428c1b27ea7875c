#include "core/cpu_limits.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <cstdlib>
#include <fstream>

#include "octavo/parallel.h"

namespace octavo {
namespace {

class CgroupTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ = std::filesystem::path(testing::TempDir()) / "octavo_cgroup";
    std::filesystem::remove_all(root_);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void write(const char* path, const char* text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  std::filesystem::path root_;
};

TEST_F(CgroupTest, Version2TakesTheTightestOfTheGroupsAbove) {
  write("a/cpu.max", "350000 100000\n");
  write("a/b/cpu.max", "max 100000\n");
  EXPECT_EQ(cgroup_cpu_limit(root_, "0::/a/b\n"), 4);
  write("a/b/cpu.max", "150000 100000\n");
  EXPECT_EQ(cgroup_cpu_limit(root_, "0::/a/b\n"), 2);
}

TEST_F(CgroupTest, Version1) {
  write("cpu/job/cpu.cfs_quota_us", "50000\n");
  write("cpu/job/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(cgroup_cpu_limit(root_, "4:memory:/job\n"), std::nullopt);
  write("cpu,cpuacct/job/cpu.cfs_quota_us", "-1\n");
  write("cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(cgroup_cpu_limit(root_, "3:cpu,cpuacct:/job\n"), std::nullopt);
  EXPECT_EQ(cgroup_cpu_limit(root_, "3:cpu:/job\n"), 1);
}

TEST_F(CgroupTest, NoGroupsNoLimit) {
  EXPECT_EQ(cgroup_cpu_limit(root_, "0::/\n"), std::nullopt);
  EXPECT_EQ(cgroup_cpu_limit(root_, "nonsense"), std::nullopt);
}

TEST(NumThreads, TakesOnlyWholeNumbers) {
  EXPECT_EQ(parse_num_threads("3"), 3);
  for (const char* bad : {"", "0", "-1", "2x", " 2", "5000", "two"}) EXPECT_EQ(parse_num_threads(bad), std::nullopt) << bad;
}

TEST(NumThreads, FollowsTheVariableThenTheAffinity) {
  setenv("OCTAVO_NUM_THREADS", "7", 1);
  EXPECT_EQ(default_num_threads(), 7);
  unsetenv("OCTAVO_NUM_THREADS");
  cpu_set_t all;
  ASSERT_EQ(sched_getaffinity(0, sizeof all, &all), 0);
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &all)) {
      CPU_SET(cpu, &one);
      break;
    }
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_EQ(default_num_threads(), 1);
  ASSERT_EQ(sched_setaffinity(0, sizeof all, &all), 0);
}

}  // namespace
}  // namespace octavo
