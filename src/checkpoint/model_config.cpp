#include "checkpoint/model_config.h"

#include "checkpoint/file.h"
#include "core/error.h"
#include "core/macros.h"

namespace octavo {
namespace {

constexpr std::uint64_t kMaxConfigBytes = std::uint64_t{16} << 20;

// Whether f holds for the config, or for the text part of a multimodal model's.
template <class F>
bool any_part(const Json& config, F&& f) {
  for (const char* part : {"text_config", "llm_config", "language_config"}) {
    const auto found = config.find(part);
    if (found != config.end() && found->is_object() && f(*found)) return true;
  }
  return f(config);
}

}  // namespace

Result<Json> read_model_config(const std::string& directory) {
  const std::string path = directory + "/config.json";
  auto text = read_file(path, kMaxConfigBytes);
  if (!text.ok() && text.status().code() == StatusCode::kNotFound) {
    return not_found("{}: has no config.json, which says what the model is", directory);
  }
  if (!text.ok()) return text.status();
  OCTAVO_ASSIGN_OR_RETURN(Json config, parse_json(*text, path));
  if (!config.is_object()) return data_loss("{}: is not a JSON object", path);
  return config;
}

bool is_quantized(const Json& config) {
  return any_part(config, [](const Json& part) {
    for (const char* key : {"quantization_config", "compression_config"}) {
      if (const auto found = part.find(key); found != part.end() && !found->is_null()) return true;
    }
    return false;
  });
}

bool has_tied_embeddings(const Json& config) {
  return any_part(config, [](const Json& part) {
    const auto found = part.find("tie_word_embeddings");
    return found != part.end() && found->is_boolean() && found->get<bool>();
  });
}

}  // namespace octavo
