#include "checkpoint/compressed_tensors.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"

namespace octavo {
namespace {

constexpr std::string_view kPacked = "pack-quantized";
constexpr std::string_view kInteger = "int-quantized";

std::string_view format_of(const Scheme& scheme) {
  return scheme.activation == Activation::kInt8PerToken ? kInteger : kPacked;
}

// Exactly the keys that compressed-tensors' QuantizationArgs has; it refuses others.
Json arguments(int num_bits, bool symmetric, std::string_view strategy, Json group_size, bool dynamic, Json observer) {
  return {{"num_bits", num_bits},
          {"type", "int"},
          {"symmetric", symmetric},
          {"strategy", strategy},
          {"group_size", std::move(group_size)},
          {"dynamic", dynamic},
          {"observer", std::move(observer)},
          {"observer_kwargs", Json::object()},
          {"block_structure", nullptr},
          {"actorder", nullptr}};
}

Json weight_arguments(const Scheme& scheme) {
  const WeightFormat& weight = scheme.weight;
  std::string_view strategy = "channel";
  Json group_size = nullptr;
  if (weight.group_size > 0) {
    strategy = "group";
    group_size = weight.group_size;
  } else if (weight.group_size == kPerTensor && format_of(scheme) == kInteger) {
    strategy = "tensor";
  }
  return arguments(weight.num_bits, weight.symmetric, strategy, std::move(group_size), false, "minmax");
}

// What distinguishes one group of the config from another; llm.int8 is stored as w8a16, per tensor as per channel.
Json group_of(const Scheme& scheme) {
  const bool integer = format_of(scheme) == kInteger;
  return {{"weights", weight_arguments(scheme)},
          {"input_activations", integer ? arguments(8, true, "token", nullptr, true, nullptr) : Json(nullptr)},
          {"output_activations", nullptr},
          {"format", format_of(scheme)}};
}

}  // namespace

std::vector<TensorSpec> StoredWeight::tensors(std::string_view name) const {
  const auto named = [&](std::string_view suffix) { return std::string(name) + std::string(suffix); };
  const std::string scale_type(safetensors_name(scale_dtype));
  if (!packed()) {
    return {
        {named(".weight"), "I8", {N, K}},
        {named(".weight_scale"), scale_type, one_scale() ? std::vector<std::int64_t>{1} : std::vector{N, std::int64_t{1}}}};
  }
  std::vector<TensorSpec> tensors = {{named(".weight_packed"), "I32", {N, row_bytes() / 4}},
                                     {named(".weight_scale"), scale_type, {N, groups()}},
                                     {named(".weight_shape"), "I64", {2}}};
  if (!scheme.weight.symmetric) {
    tensors.push_back({named(".weight_zero_point"), "I32", {(N * bits() + 31) / 32, groups()}});
  }
  return tensors;
}

std::uint64_t StoredWeight::bytes() const {
  std::int64_t sum = 0;
  for (const TensorSpec& tensor : tensors("")) {
    std::int64_t count = safetensors_bits(tensor.dtype) / 8;
    for (const std::int64_t dimension : tensor.shape) count *= dimension;
    sum += count;
  }
  return static_cast<std::uint64_t>(sum);
}

Status validate_for_compressed_tensors(const Scheme& scheme) {
  if (scheme.activation == Activation::kInt8Static) {
    return unsupported(
        "scheme {} is not supported for checkpoints yet: its activation scales need calibration data; use w8a8",
        to_string(scheme));
  }
  if (scheme.activation == Activation::kInt8PerToken && scheme.weight.num_bits != 8) {
    return unsupported(
        "scheme {} is not supported for checkpoints yet: the format has activations quantized per token, not per "
        "token and group of the weight; use w8a8 or w{}a16-g{}",
        to_string(scheme), scheme.weight.num_bits, scheme.weight.group_size);
  }
  return {};
}

void pack_rows(const std::uint8_t* values, std::int64_t rows, std::int64_t cols, int bits, std::byte* out,
               std::int64_t stride) {
  for (std::int64_t r = 0; r < rows; ++r, values += cols, out += stride) {
    std::byte* word = out;
    std::uint64_t pending = 0;
    int count = 0;  // bits in pending
    const auto flush = [&] {
      const auto low = static_cast<std::uint32_t>(pending);
      std::memcpy(word, &low, 4);
      word += 4;
      pending >>= 32;
      count -= 32;
    };
    for (std::int64_t c = 0; c < cols; ++c) {
      pending |= std::uint64_t{values[c]} << count;
      count += bits;
      if (count >= 32) flush();
    }
    if (count > 0) flush();
  }
}

void pack_columns(const std::uint8_t* values, std::int64_t rows, std::int64_t cols, int bits, std::uint32_t* out) {
  std::fill_n(out, (rows * bits + 31) / 32 * cols, 0u);
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t word = r * bits / 32;
    const int shift = static_cast<int>(r * bits % 32);
    for (std::int64_t c = 0; c < cols; ++c) {
      const std::uint64_t value = std::uint64_t{values[r * cols + c]} << shift;
      out[word * cols + c] |= static_cast<std::uint32_t>(value);
      if (shift + bits > 32) out[(word + 1) * cols + c] |= static_cast<std::uint32_t>(value >> 32);
    }
  }
}

Json quantization_config(const std::vector<LayerPlan>& layers) {
  std::vector<Json> groups;
  std::vector<std::vector<std::string>> targets;  // like groups
  std::vector<std::string> ignore;
  bool head_is_quantized = false;
  for (const LayerPlan& layer : layers) {
    if (!layer.scheme) {
      ignore.push_back(layer.name);
      continue;
    }
    head_is_quantized |= layer.name == "lm_head";
    const Json group = group_of(*layer.scheme);
    auto found = std::find(groups.begin(), groups.end(), group);
    if (found == groups.end()) {
      found = groups.insert(found, group);
      targets.emplace_back();
    }
    targets[static_cast<std::size_t>(found - groups.begin())].push_back(layer.name);
  }
  // A tied head is in no file, yet readers find the module: quantizing it would give garbage.
  if (!head_is_quantized && std::find(ignore.begin(), ignore.end(), "lm_head") == ignore.end()) ignore.push_back("lm_head");

  std::string format = groups.front()["format"];
  for (const Json& group : groups) {
    if (group["format"] != format) format = "mixed-precision";
  }
  Json config_groups = Json::object();
  for (std::size_t i = 0; i < groups.size(); ++i) {
    Json group = {{"targets", groups.size() == 1 ? Json::array({"Linear"}) : Json(targets[i])}};
    group.update(groups[i]);
    if (format != "mixed-precision") group.erase("format");
    config_groups["group_" + std::to_string(i)] = std::move(group);
  }
  return {{"quant_method", "compressed-tensors"},
          {"format", format},
          {"quantization_status", "compressed"},
          {"ignore", ignore},
          {"kv_cache_scheme", nullptr},
          {"global_compression_ratio", nullptr},
          {"config_groups", std::move(config_groups)}};
}

}  // namespace octavo
