// The safetensors format (https://github.com/huggingface/safetensors): 8 bytes of header length, little endian; the header,
// a JSON object {"name": {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {string: string}}, padded with
// spaces; the data.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/file.h"
#include "octavo/checkpoint.h"
#include "octavo/status.h"

namespace octavo {

inline constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;

// Bits of an element of a dtype as safetensors spells it, or 0 for one that is not known.
int safetensors_bits(std::string_view dtype);
// "F32", "F16", "BF16" …, of the types that Octavo writes.
std::string_view safetensors_name(DType dtype);

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // sorted by offset; offsets are those in the file
  std::map<std::string, std::string> metadata;
  std::string text;  // the header itself
};

// Checks everything the format demands of the header's text, for a file whose data section has data_bytes. Offsets in the
// result count from the start of the data section.
Result<SafetensorsHeader> parse_safetensors_header(std::string_view text, std::uint64_t data_bytes);

Result<SafetensorsHeader> read_safetensors_header(const File& file);

// One tensor of a file to be written.
struct TensorSpec {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
};

// Where everything of a new file goes, known before any data.
struct SafetensorsLayout {
  std::string head;                              // header length and header
  std::map<std::string, std::uint64_t> offsets;  // of each tensor's data, from the start of the file
  std::uint64_t bytes = 0;                       // of the whole file
};

// Tensors are ordered by descending width of their elements, then by name, so each is aligned to its element.
Result<SafetensorsLayout> lay_out_safetensors(std::vector<TensorSpec> tensors,
                                              const std::map<std::string, std::string>& metadata);

}  // namespace octavo
