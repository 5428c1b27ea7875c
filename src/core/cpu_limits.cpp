#include "core/cpu_limits.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "octavo/parallel.h"

namespace octavo {
namespace {

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::optional<int> cpus_of(double quota, double period) {
  if (!(quota > 0) || !(period > 0)) return std::nullopt;  // "max" and -1 mean no limit
  return std::max(1, static_cast<int>(std::ceil(quota / period)));
}

// The limit that one group's own files state.
std::optional<int> limit_of(const std::filesystem::path& group) {
  double quota = 0;
  double period = 0;
  if (std::istringstream v2(read_text(group / "cpu.max")); v2 >> quota >> period) return cpus_of(quota, period);
  std::istringstream v1_quota(read_text(group / "cpu.cfs_quota_us"));
  std::istringstream v1_period(read_text(group / "cpu.cfs_period_us"));
  if (v1_quota >> quota && v1_period >> period) return cpus_of(quota, period);
  return std::nullopt;
}

bool lists_cpu(std::string_view controllers) {
  std::istringstream names{std::string(controllers)};
  for (std::string name; std::getline(names, name, ',');) {
    if (name == "cpu") return true;
  }
  return false;
}

}  // namespace

std::optional<int> cgroup_cpu_limit(const std::filesystem::path& root, std::string_view membership) {
  std::optional<int> tightest;
  std::istringstream lines{std::string(membership)};
  for (std::string line; std::getline(lines, line);) {  // hierarchy:controllers:/path
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (!controllers.empty() && !lists_cpu(controllers)) continue;
    const auto mount = controllers.empty() ? root : root / controllers;
    auto path = std::filesystem::path(line.substr(second + 1)).relative_path();
    for (;; path = path.parent_path()) {
      if (const auto limit = limit_of(mount / path)) tightest = std::min(*limit, tightest.value_or(*limit));
      if (path.empty()) break;
    }
  }
  return tightest;
}

std::optional<int> parse_num_threads(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 1 || value > 4096) return std::nullopt;
  return value;
}

int default_num_threads() {
  if (const char* text = std::getenv("OCTAVO_NUM_THREADS")) {
    if (const auto threads = parse_num_threads(text)) return *threads;
  }
  cpu_set_t affinity;
  int threads = 1;
  if (sched_getaffinity(0, sizeof affinity, &affinity) == 0) threads = std::max(1, CPU_COUNT(&affinity));
  const auto quota = cgroup_cpu_limit("/sys/fs/cgroup", read_text("/proc/self/cgroup"));
  return std::min(threads, quota.value_or(threads));
}

}  // namespace octavo
