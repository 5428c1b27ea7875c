// What is known of this machine beside its instruction sets. Nothing is chosen by it: it is for reports, and for benchmarks
// that must step out of the caches.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace octavo {

// As the system names it; "unknown" where it does not.
std::string cpu_name();

// The CPUs that this process may run on, ascending.
std::vector<int> allowed_cpus();

// The data and unified caches of one level that some CPUs reach.
struct CacheLevel {
  int level;
  std::int64_t bytes;  // of one
  int count;           // how many different ones
};

// Ascending by level; empty where the system does not say. `root` is /sys/devices/system/cpu.
std::vector<CacheLevel> cache_levels(const std::filesystem::path& root, const std::vector<int>& cpus);

// Bytes of all last-level caches that this process' CPUs reach; 32 MiB where the system does not say.
std::int64_t last_level_bytes();

// When memory gets huge pages: "always", "madvise" (where a program asks), "never"; "unknown" where the system does not say.
// `file` is /sys/kernel/mm/transparent_hugepage/enabled.
std::string huge_page_setting(const std::filesystem::path& file);

// The release of NVIDIA's kernel driver, as "580.95.05"; "" where there is none. `file` is /proc/driver/nvidia/version.
std::string nvidia_driver(const std::filesystem::path& file);

inline constexpr const char* kCpuRoot = "/sys/devices/system/cpu";
inline constexpr const char* kNvidiaFile = "/proc/driver/nvidia/version";
inline constexpr const char* kHugePageFile = "/sys/kernel/mm/transparent_hugepage/enabled";

}  // namespace octavo
