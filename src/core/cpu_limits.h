// How many CPUs this process may use.
#pragma once

#include <filesystem>
#include <optional>
#include <string_view>

namespace octavo {

// The CPU quota of a process in whole CPUs, rounded up: the tightest of its cgroup and the groups above, in version 2
// (cpu.max) and version 1 (cpu.cfs_quota_us). `root` is where cgroups are mounted (/sys/fs/cgroup); `membership` is the text
// of /proc/self/cgroup. Nothing when there is no limit.
std::optional<int> cgroup_cpu_limit(const std::filesystem::path& root, std::string_view membership);

// The number that the text of OCTAVO_NUM_THREADS says; nothing unless it is a whole number from 1 to 4096.
std::optional<int> parse_num_threads(std::string_view text);

}  // namespace octavo
