// Any index: refused, or its shards are plain file names.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "checkpoint/index.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto index = octavo::parse_index({reinterpret_cast<const char*>(data), size}, "index");
  if (!index.ok()) return 0;
  for (const std::string& shard : index->shards) {
    if (shard.find('/') != std::string::npos || shard.find('\0') != std::string::npos || shard.starts_with('.'))
      std::abort();
  }
  return 0;
}
