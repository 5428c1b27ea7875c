#include "core/machine.h"

#include <gtest/gtest.h>

#include <fstream>

namespace octavo {
namespace {

namespace fs = std::filesystem;

class Machine : public testing::Test {
 protected:
  void SetUp() override {
    fs::remove_all(root_);
    fs::create_directories(root_);
  }
  void TearDown() override { fs::remove_all(root_); }

  void write(const fs::path& name, const std::string& text) {
    fs::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name) << text << "\n";
  }
  void write_cache(int cpu, int index, const std::string& level, const std::string& type, const std::string& size,
                   const std::string& shared) {
    const fs::path folder = fs::path("cpu" + std::to_string(cpu)) / "cache" / ("index" + std::to_string(index));
    write(folder / "level", level);
    write(folder / "type", type);
    write(folder / "size", size);
    write(folder / "shared_cpu_list", shared);
  }

  fs::path root_ = fs::path(testing::TempDir()) / ("octavo_machine_" + std::to_string(::getpid()));
};

TEST_F(Machine, CountsCachesThatTheCpusReach) {
  for (const int cpu : {0, 1, 2}) {
    write_cache(cpu, 0, "1", "Data", "48K", std::to_string(cpu));
    write_cache(cpu, 1, "1", "Instruction", "32K", std::to_string(cpu));
    write_cache(cpu, 2, "3", "Unified", "32M", cpu < 2 ? "0-1" : "2-3");
  }
  const auto of_two = cache_levels(root_, {0, 1});
  ASSERT_EQ(of_two.size(), 2u);
  EXPECT_EQ(of_two[0].level, 1);
  EXPECT_EQ(of_two[0].bytes, 48 << 10);
  EXPECT_EQ(of_two[0].count, 2);
  EXPECT_EQ(of_two[1].level, 3);
  EXPECT_EQ(of_two[1].bytes, 32 << 20);
  EXPECT_EQ(of_two[1].count, 1);
  EXPECT_EQ(cache_levels(root_, {0, 1, 2})[1].count, 2);
}

TEST_F(Machine, LeavesOutWhatIsNotSaid) {
  EXPECT_TRUE(cache_levels(root_, {0}).empty());
  write_cache(0, 0, "1", "Data", "lots", "0");
  EXPECT_TRUE(cache_levels(root_, {0}).empty());
  EXPECT_GT(last_level_bytes(), 0);
}

TEST_F(Machine, ReadsTheHugePageSetting) {
  EXPECT_EQ(huge_page_setting(root_ / "enabled"), "unknown");
  write("enabled", "always [madvise] never");
  EXPECT_EQ(huge_page_setting(root_ / "enabled"), "madvise");
  write("enabled", "nothing");
  EXPECT_EQ(huge_page_setting(root_ / "enabled"), "unknown");
}

TEST_F(Machine, ReadsTheDriversRelease) {
  EXPECT_EQ(nvidia_driver(root_ / "driver"), "");
  write("driver", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue Sep 23 10:11:16 UTC 2025");
  EXPECT_EQ(nvidia_driver(root_ / "driver"), "580.95.05");
  write("driver", "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (a@b)");
  EXPECT_EQ(nvidia_driver(root_ / "driver"), "570.86.15");
}

}  // namespace
}  // namespace octavo
