// Any header, for a data section of any size below 64 KiB: refused, or consistent and writable again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "checkpoint/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const std::uint64_t data_bytes = data[0] | std::uint64_t{data[1]} << 8;
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  const auto header = octavo::parse_safetensors_header(text, data_bytes);
  if (!header.ok()) return 0;
  std::uint64_t end = 0;
  std::vector<octavo::TensorSpec> specs;
  for (const octavo::TensorInfo& tensor : header->tensors) {
    if (tensor.offset != end) std::abort();
    end += tensor.bytes;
    specs.push_back({tensor.name, tensor.dtype, tensor.shape});
  }
  if (end != data_bytes || !octavo::lay_out_safetensors(specs, header->metadata).ok()) std::abort();
  return 0;
}
