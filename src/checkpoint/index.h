// model.safetensors.index.json: which shard holds which tensor.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>

#include "octavo/status.h"

namespace octavo {

struct ShardIndex {
  std::map<std::string, std::string> shard_of;  // by tensor
  std::set<std::string> shards;
};

// Parses and checks an index: {"weight_map": {tensor: shard}}, where a shard is a plain *.safetensors file name. Errors
// start with `what`, the index's path.
Result<ShardIndex> parse_index(std::string_view text, std::string_view what);

}  // namespace octavo
