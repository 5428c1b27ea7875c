// JSON from files nobody vouches for.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "octavo/status.h"

namespace octavo {

// Keeps the order of keys, so a patched config.json stays close to the original.
using Json = nlohmann::ordered_json;

// Parses strictly: no duplicate keys, no more than 64 levels. Errors start with `what`, a file's path.
Result<Json> parse_json(std::string_view text, std::string_view what);

// Indented by two, with a final newline, as Hugging Face writes it.
std::string to_text(const Json& json);

// The beginning of hostile text, fit for a message or a terminal: control characters replaced.
std::string excerpt(std::string_view text, std::size_t max_bytes = 60);

}  // namespace octavo
