// The few things of a model's config.json that matter here.
#pragma once

#include <string>

#include "checkpoint/json.h"
#include "octavo/status.h"

namespace octavo {

// The config.json of a directory, an object.
Result<Json> read_model_config(const std::string& directory);

bool is_quantized(const Json& config);
// Whether lm_head shares the embedding's tensor.
bool has_tied_embeddings(const Json& config);

}  // namespace octavo
