// Numbers as people read them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace octavo::cli {

std::string format_bytes(std::uint64_t bytes);                     // "269.1 MB", decimal as disks are sold
std::string format_seconds(double seconds);                        // "1:02:03", "2:05", "7 s"
std::string format_shape(const std::vector<std::int64_t>& shape);  // "[576, 1536]"

}  // namespace octavo::cli
