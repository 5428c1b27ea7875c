// Any config.json: refused, or read, and the same after it was written.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "checkpoint/model_config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto config = octavo::parse_json({reinterpret_cast<const char*>(data), size}, "config.json");
  if (!config.ok()) return 0;
  if (config->is_object()) (void)(octavo::is_quantized(*config) + octavo::has_tied_embeddings(*config));
  const auto again = octavo::parse_json(octavo::to_text(*config), "again");
  if (!again.ok() || *again != *config) std::abort();
  return 0;
}
