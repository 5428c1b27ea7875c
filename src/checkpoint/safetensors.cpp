#include "checkpoint/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <set>

#include "checkpoint/json.h"
#include "core/error.h"
#include "core/macros.h"

namespace octavo {
namespace {

struct Type {
  std::string_view name;
  int bits;
};
constexpr std::array kTypes = {
    Type{"BOOL", 8},    Type{"F4", 4},          Type{"F6_E2M3", 6}, Type{"F6_E3M2", 6},     Type{"U8", 8},   Type{"I8", 8},
    Type{"F8_E5M2", 8}, Type{"F8_E4M3", 8},     Type{"F8_E8M0", 8}, Type{"F8_E4M3FNUZ", 8}, Type{"I16", 16}, Type{"U16", 16},
    Type{"F16", 16},    Type{"F8_E5M2FNUZ", 8}, Type{"BF16", 16},   Type{"I32", 32},        Type{"U32", 32}, Type{"F32", 32},
    Type{"C64", 64},    Type{"F64", 64},        Type{"I64", 64},    Type{"U64", 64},
};

// bits = elements · bits of each; false when that exceeds 2^63.
bool total_bits(const std::vector<std::int64_t>& shape, int bits, std::uint64_t& total) {
  std::uint64_t count = static_cast<std::uint64_t>(bits);
  // An empty tensor is legal whatever its other dimensions are, as long as they could be multiplied.
  for (const std::int64_t dimension : shape) {
    if (__builtin_mul_overflow(count, static_cast<std::uint64_t>(dimension), &count)) return false;
  }
  total = count;
  return count <= std::uint64_t{1} << 63;
}

// Reads the header's fixed structure event by event; anything else stops it with a message.
class HeaderReader final : public nlohmann::json_sax<Json> {
 public:
  SafetensorsHeader header;
  const std::string& error() const { return error_; }

  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("a boolean"); }
  bool number_integer(number_integer_t) override { return unexpected("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { return unexpected("a fraction or a number beyond 64 bits"); }
  bool binary(binary_t&) override { return unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::kShape) {
      if (value > INT64_MAX) return fail("tensor '{}': dimension {} is too large", name_, value);
      tensor_.shape.push_back(static_cast<std::int64_t>(value));
      return true;
    }
    if (place_ == Place::kOffsets) {
      if (offsets_ == 2) return fail("tensor '{}': data_offsets has more than two numbers", name_);
      (offsets_++ == 0 ? tensor_.offset : end_) = value;
      return true;
    }
    return unexpected("a number");
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) {
      header.metadata[key_] = value;
      return true;
    }
    if (place_ == Place::kTensor && key_ == "dtype") {
      if (safetensors_bits(value) == 0) return fail("tensor '{}': unknown dtype '{}'", name_, excerpt(value));
      tensor_.dtype = value;
      return true;
    }
    return unexpected("a string");
  }

  bool key(string_t& key) override {
    switch (place_) {
      case Place::kHeader:
        if (!names_.insert(key).second) return fail("'{}' is there twice", excerpt(key));
        key_ = key;
        name_ = excerpt(key);
        return true;
      case Place::kMetadata:
        if (header.metadata.contains(key)) return fail("__metadata__ has '{}' twice", excerpt(key));
        key_ = key;
        return true;
      default:
        if (key != "dtype" && key != "shape" && key != "data_offsets") {
          return fail("tensor '{}': unknown key '{}'", name_, excerpt(key));
        }
        if (!keys_.insert(key).second) return fail("tensor '{}': '{}' is there twice", name_, key);
        key_ = key;
        return true;
    }
  }

  bool start_object(std::size_t) override {
    if (place_ == Place::kOutside) {
      place_ = Place::kHeader;
    } else if (place_ == Place::kHeader) {
      place_ = key_ == "__metadata__" ? Place::kMetadata : Place::kTensor;
      tensor_ = TensorInfo{.name = key_, .dtype = {}, .shape = {}};
      keys_.clear();
      offsets_ = 0;
      end_ = 0;
    } else {
      return unexpected("an object");
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kTensor) {
      if (keys_.size() != 3) return fail("tensor '{}': dtype, shape or data_offsets is missing", name_);
      if (offsets_ != 2) return fail("tensor '{}': data_offsets must be [begin, end]", name_);
      if (end_ < tensor_.offset) return fail("tensor '{}': data_offsets end before they begin", name_);
      tensor_.bytes = end_ - tensor_.offset;
      header.tensors.push_back(std::move(tensor_));
    }
    place_ = place_ == Place::kHeader ? Place::kOutside : Place::kHeader;
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ != Place::kTensor || key_ == "dtype") return unexpected("an array");
    place_ = key_ == "shape" ? Place::kShape : Place::kOffsets;
    return true;
  }

  bool end_array() override {
    place_ = Place::kTensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    return fail("the header is not valid JSON at byte {}", position);
  }

 private:
  enum class Place { kOutside, kHeader, kMetadata, kTensor, kShape, kOffsets };

  template <class... Args>
  bool fail(fmt::format_string<Args...> format, Args&&... args) {
    error_ = format_text(format, std::forward<Args>(args)...);
    return false;
  }

  bool unexpected(std::string_view what) {
    if (place_ == Place::kOutside) return fail("the header is {}, not an object", what);
    return fail("'{}': {} is not allowed there", name_, what);
  }

  Place place_ = Place::kOutside;
  std::string name_;  // of the current tensor, fit for a message
  std::string key_;
  TensorInfo tensor_;
  std::uint64_t end_ = 0;
  int offsets_ = 0;
  std::set<std::string> names_;
  std::set<std::string> keys_;
  std::string error_;
};

Status check_tensor(const TensorInfo& tensor, std::uint64_t data_bytes) {
  const std::string name = excerpt(tensor.name);
  if (tensor.offset + tensor.bytes > data_bytes) {
    return data_loss("tensor '{}' ends at byte {} of the data, which has {}; the file is truncated or damaged", name,
                     tensor.offset + tensor.bytes, data_bytes);
  }
  std::uint64_t bits = 0;
  if (!total_bits(tensor.shape, safetensors_bits(tensor.dtype), bits)) {
    return data_loss("tensor '{}': its shape overflows", name);
  }
  if (bits % 8 != 0 || bits / 8 != tensor.bytes) {
    return data_loss("tensor '{}': its shape and dtype {} take {} bits, its data_offsets span {} bytes", name, tensor.dtype,
                     bits, tensor.bytes);
  }
  return {};
}

}  // namespace

int safetensors_bits(std::string_view dtype) {
  for (const Type& type : kTypes) {
    if (type.name == dtype) return type.bits;
  }
  return 0;
}

std::string_view safetensors_name(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return "F64";
    case DType::kFloat16:
      return "F16";
    case DType::kBFloat16:
      return "BF16";
    case DType::kInt32:
      return "I32";
    case DType::kInt8:
      return "I8";
    case DType::kUInt8:
      return "U8";
    default:
      return "F32";
  }
}

Result<SafetensorsHeader> parse_safetensors_header(std::string_view text, std::uint64_t data_bytes) {
  HeaderReader reader;
  if (!Json::sax_parse(text, &reader)) return data_loss("{}", reader.error());
  SafetensorsHeader header = std::move(reader.header);
  std::stable_sort(header.tensors.begin(), header.tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes);
  });
  std::uint64_t end = 0;
  for (const TensorInfo& tensor : header.tensors) {
    OCTAVO_RETURN_IF_ERROR(check_tensor(tensor, data_bytes));
    if (tensor.offset < end) {
      return data_loss("tensor '{}' overlaps the one before it at byte {} of the data", excerpt(tensor.name), tensor.offset);
    }
    if (tensor.offset > end) {
      return data_loss("bytes {} to {} of the data belong to no tensor", end, tensor.offset);
    }
    end = tensor.offset + tensor.bytes;
  }
  if (end != data_bytes) return data_loss("the last {} bytes of the data belong to no tensor", data_bytes - end);
  header.text = text;
  return header;
}

Result<SafetensorsHeader> read_safetensors_header(const File& file) {
  OCTAVO_ASSIGN_OR_RETURN(const std::uint64_t size, file.size());
  if (size < 8) return data_loss("{}: has {} bytes; a safetensors file has at least 8", file.path(), size);
  std::array<unsigned char, 8> prefix{};
  OCTAVO_RETURN_IF_ERROR(file.read(0, std::as_writable_bytes(std::span(prefix))));
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < 8; ++i) length |= std::uint64_t{prefix[i]} << (8 * i);
  if (length > kMaxHeaderBytes) {
    return data_loss("{}: says its header has {} bytes; at most {} are legal", file.path(), length, kMaxHeaderBytes);
  }
  if (length > size - 8) {
    return data_loss("{}: says its header has {} bytes, but the file has {}; it is truncated", file.path(), length, size);
  }
  std::string text(length, '\0');
  OCTAVO_RETURN_IF_ERROR(file.read(8, std::as_writable_bytes(std::span(text))));
  auto header = parse_safetensors_header(text, size - 8 - length);
  if (!header.ok()) return header.status().with_context(file.path());
  for (TensorInfo& tensor : header->tensors) tensor.offset += 8 + length;
  return header;
}

Result<SafetensorsLayout> lay_out_safetensors(std::vector<TensorSpec> tensors,
                                              const std::map<std::string, std::string>& metadata) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorSpec& a, const TensorSpec& b) {
    const int width_a = safetensors_bits(a.dtype);
    const int width_b = safetensors_bits(b.dtype);
    return width_a != width_b ? width_a > width_b : a.name < b.name;
  });
  SafetensorsLayout layout;
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  // ordered_json looks keys up by walking, so entries are appended.
  auto& entries = header.get_ref<Json::object_t&>();
  std::uint64_t end = 0;
  for (const TensorSpec& tensor : tensors) {
    std::uint64_t bits = 0;
    if (!total_bits(tensor.shape, safetensors_bits(tensor.dtype), bits)) {
      return invalid("tensor '{}': its shape overflows", excerpt(tensor.name));
    }
    if (!layout.offsets.emplace(tensor.name, end).second) {
      return invalid("tensor '{}' would be written twice", excerpt(tensor.name));
    }
    Json entry = {{"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {end, end + bits / 8}}};
    static_cast<std::vector<Json::object_t::value_type>&>(entries).emplace_back(tensor.name, std::move(entry));
    end += bits / 8;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > kMaxHeaderBytes)
    return invalid("the header has {} bytes; at most {} are legal", text.size(), kMaxHeaderBytes);
  for (std::size_t i = 0; i < 8; ++i) layout.head += static_cast<char>(text.size() >> (8 * i) & 0xff);
  layout.head += text;
  for (auto& [name, offset] : layout.offsets) offset += layout.head.size();
  layout.bytes = layout.head.size() + end;
  return layout;
}

}  // namespace octavo
