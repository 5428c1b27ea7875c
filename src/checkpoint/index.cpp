#include "checkpoint/index.h"

#include "checkpoint/json.h"
#include "core/error.h"
#include "core/macros.h"

namespace octavo {

Result<ShardIndex> parse_index(std::string_view text, std::string_view what) {
  OCTAVO_ASSIGN_OR_RETURN(const Json json, parse_json(text, what));
  const auto map = json.is_object() ? json.find("weight_map") : json.end();
  if (map == json.end() || !map->is_object()) return data_loss("{}: has no object \"weight_map\"", what);
  ShardIndex index;
  for (const auto& [tensor, value] : map->items()) {
    if (!value.is_string()) return data_loss("{}: the shard of tensor '{}' is not a string", what, excerpt(tensor));
    const auto& shard = value.get_ref<const std::string&>();
    // Nothing outside the directory, and nothing that the file system would read in another way than it is written.
    if (!shard.ends_with(".safetensors") || shard.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos ||
        shard.starts_with('.')) {
      return data_loss("{}: shard '{}' of tensor '{}' is not a plain *.safetensors file name", what, excerpt(shard),
                       excerpt(tensor));
    }
    index.shard_of.emplace(tensor, shard);
    index.shards.insert(shard);
  }
  if (index.shards.empty()) return data_loss("{}: lists no tensors", what);
  return index;
}

}  // namespace octavo
