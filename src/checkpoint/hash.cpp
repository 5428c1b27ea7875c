#include "checkpoint/hash.h"

#include "core/format.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace octavo {

std::string hash_hex(std::string_view data) {
  const XXH128_hash_t hash = XXH3_128bits(data.data(), data.size());
  return format_text("{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace octavo
