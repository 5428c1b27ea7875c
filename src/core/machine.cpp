#include "core/machine.h"

#if defined(__linux__)
#include <sched.h>
#endif

#include <charconv>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

namespace octavo {
namespace {

constexpr std::int64_t kUsualLastLevel = std::int64_t{32} << 20;

std::string first_line(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// "32K", "1024K", "32M"; 0 for anything else.
std::int64_t parse_size(const std::string& text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || value <= 0) return 0;
  const std::string unit(end, text.data() + text.size());
  if (unit.empty()) return value;
  if (unit == "K") return value << 10;
  return unit == "M" ? value << 20 : 0;
}

}  // namespace

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

std::vector<int> allowed_cpus() {
  std::vector<int> cpus;
#if defined(__linux__)
  cpu_set_t affinity;
  if (sched_getaffinity(0, sizeof affinity, &affinity) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &affinity)) cpus.push_back(cpu);
    }
  }
#endif
  return cpus;
}

std::vector<CacheLevel> cache_levels(const std::filesystem::path& root, const std::vector<int>& cpus) {
  std::map<int, std::int64_t> bytes;
  std::map<int, std::set<std::string>> different;  // by the CPUs that share it
  for (const int cpu : cpus) {
    for (int index = 0; index < 16; ++index) {
      const auto folder = root / ("cpu" + std::to_string(cpu)) / "cache" / ("index" + std::to_string(index));
      const std::string type = first_line(folder / "type");
      if (type.empty()) break;
      const std::int64_t size = parse_size(first_line(folder / "size"));
      const auto level = static_cast<int>(parse_size(first_line(folder / "level")));
      if (type == "Instruction" || size == 0 || level == 0) continue;
      bytes[level] = size;
      different[level].insert(first_line(folder / "shared_cpu_list"));
    }
  }
  std::vector<CacheLevel> levels;
  levels.reserve(bytes.size());
  for (const auto& [level, size] : bytes) levels.push_back({level, size, static_cast<int>(different[level].size())});
  return levels;
}

std::int64_t last_level_bytes() {
  const std::vector<CacheLevel> levels = cache_levels(kCpuRoot, allowed_cpus());
  return levels.empty() ? kUsualLastLevel : levels.back().bytes * levels.back().count;
}

std::string huge_page_setting(const std::filesystem::path& file) {
  const std::string line = first_line(file);  // "always [madvise] never"
  const std::size_t open = line.find('[');
  const std::size_t close = line.find(']', open);
  if (open == std::string::npos || close == std::string::npos) return "unknown";
  return line.substr(open + 1, close - open - 1);
}

std::string nvidia_driver(const std::filesystem::path& file) {
  std::istringstream words(first_line(file));  // "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue …"
  for (std::string word; words >> word;) {
    if (word.find('.') != std::string::npos && word.find_first_not_of("0123456789.") == std::string::npos) return word;
  }
  return {};
}

}  // namespace octavo
