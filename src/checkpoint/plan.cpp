#include <algorithm>
#include <array>
#include <map>
#include <regex>
#include <set>

#include "checkpoint/compressed_tensors.h"
#include "checkpoint/file.h"
#include "checkpoint/json.h"
#include "checkpoint/layers.h"
#include "checkpoint/model_config.h"
#include "core/error.h"
#include "core/half.h"
#include "core/macros.h"
#include "octavo/checkpoint.h"

namespace octavo {
namespace {

constexpr std::array<std::int64_t, 3> kAutoGroupSizes = {128, 64, 32};
constexpr std::string_view kSuffix = ".weight";
// std::regex recurses along its subject; longer names could exhaust the stack, and no model has them.
constexpr std::size_t kMaxName = 512;

// A user's regular expression, which must match something: one that doesn't is a mistake worth knowing of.
class Pattern {
 public:
  static Result<Pattern> compile(std::string_view option, const std::string& text) {
    try {
      return Pattern(option, text, std::regex(text, std::regex::ECMAScript | std::regex::optimize));
    } catch (const std::regex_error& error) {
      return invalid("{} '{}' is not a valid regular expression: {}", option, text, error.what());
    }
  }

  bool matches(const std::string& name) {
    const bool found = std::regex_search(name, regex_);
    used_ |= found;
    return found;
  }

  Status check_used() const {
    if (used_) return {};
    return invalid("{} '{}' matches no Linear layer; 'octavo inspect' lists the tensors", option_, text_);
  }

 private:
  Pattern(std::string_view option, std::string text, std::regex regex)
      : option_(option), text_(std::move(text)), regex_(std::move(regex)) {}
  std::string option_;
  std::string text_;
  std::regex regex_;
  bool used_ = false;
};

Result<std::vector<Pattern>> compile_all(std::string_view option, const std::vector<std::string>& texts) {
  std::vector<Pattern> patterns;
  for (const std::string& text : texts) {
    OCTAVO_ASSIGN_OR_RETURN(Pattern pattern, Pattern::compile(option, text));
    patterns.push_back(std::move(pattern));
  }
  return patterns;
}

bool any_matches(std::vector<Pattern>& patterns, const std::string& name) {
  bool found = false;
  for (Pattern& pattern : patterns) found |= pattern.matches(name);  // all of them, so that each knows it is used
  return found;
}

// The Linear weights, and tensors of fused experts, which stay.
Result<std::vector<LayerPlan>> find_layers(const Checkpoint& source) {
  std::vector<LayerPlan> layers;
  for (std::size_t i = 0; i < source.tensors().size(); ++i) {
    const TensorInfo& tensor = source.tensors()[i];
    if (tensor.name.size() > kMaxName) {
      return unsupported("tensor '{}': its name has {} characters; at most {} are supported", excerpt(tensor.name),
                         tensor.name.size(), kMaxName);
    }
    LayerPlan layer{.name = tensor.name, .tensor = i, .scheme = {}, .reason = {}};
    layer.bytes_before = layer.bytes_after = tensor.bytes;
    if (tensor.shape.size() == 3 && tensor.name.find("experts") != std::string::npos) {
      if (tensor.name.ends_with(kSuffix)) layer.name.resize(layer.name.size() - kSuffix.size());
      layer.reason = "3-D tensor of fused experts";
    } else if (tensor.shape.size() == 2 && tensor.name.ends_with(kSuffix)) {
      layer.name.resize(layer.name.size() - kSuffix.size());
      const LayerKind kind = layer_kind(layer.name);
      if (kind == LayerKind::kTable) continue;
      if (kind == LayerKind::kEmbedding) layer.reason = "embedding";
      if (kind == LayerKind::kNorm) layer.reason = "norm";
      if (kind == LayerKind::kRouter) layer.reason = "router";
      if (tensor.bytes == 0) layer.reason = "empty";
    } else {
      continue;
    }
    layers.push_back(std::move(layer));
  }
  return layers;
}

Status check_config(const Checkpoint& source, const Json& config) {
  if (is_quantized(config)) {
    return invalid("{}: is quantized already (config.json has a quantization_config); quantize the original model",
                   source.path());
  }
  const std::string type = config.value("model_type", Json("")).is_string() ? config.value("model_type", "") : "";
  for (const std::string_view conv1d : {"gpt2", "openai-gpt", "imagegpt", "decision_transformer"}) {
    if (type == conv1d) {
      return unsupported(
          "{}: {} models keep their layers transposed, as Conv1D, which compressed-tensors readers do not take; "
          "quantize it in memory with octavo.quantize_model",
          source.path(), type);
    }
  }
  return {};
}

// Chooses schemes from the options, layer by layer.
Status assign_schemes(const Checkpoint& source, const PlanOptions& options, bool tied, std::vector<LayerPlan>& layers) {
  OCTAVO_ASSIGN_OR_RETURN(auto ignore, compile_all("--ignore", options.ignore));
  OCTAVO_ASSIGN_OR_RETURN(auto only, compile_all("--only", options.only));
  std::vector<Pattern> overrides;
  for (const LayerOverride& layer : options.layers) {
    OCTAVO_ASSIGN_OR_RETURN(Pattern pattern, Pattern::compile("--layer", layer.pattern));
    overrides.push_back(std::move(pattern));
  }
  int last_layer = -1;
  for (const LayerPlan& layer : layers) last_layer = std::max(last_layer, decoder_layer(layer.name).value_or(-1));

  for (LayerPlan& layer : layers) {
    if (!layer.reason.empty()) {
      any_matches(ignore, layer.name);  // naming what stays anyhow is no mistake
      continue;
    }
    const bool ignored = any_matches(ignore, layer.name);
    const bool chosen = any_matches(only, layer.name);
    const LayerOverride* override = nullptr;
    for (std::size_t i = 0; i < overrides.size(); ++i) {
      if (overrides[i].matches(layer.name)) override = &options.layers[i];
    }
    const bool is_head = layer_kind(layer.name) == LayerKind::kHead;
    const auto index = decoder_layer(layer.name);
    if (ignored) {
      layer.reason = "--ignore";
    } else if (is_head && !chosen && override == nullptr) {
      layer.reason = "output head";
    } else if (is_head && tied) {
      layer.reason = "tied to the embedding";
    } else if (!only.empty() && !chosen && override == nullptr) {
      layer.reason = "not in --only";
    } else if (options.keep_first && index == 0) {
      layer.reason = "--keep first";
    } else if (options.keep_last && index && *index == last_layer) {
      layer.reason = "--keep last";
    } else if (options.keep_attention_output && is_attention_output(layer.name)) {
      layer.reason = "--keep attn-out";
    } else {
      layer.scheme = override != nullptr ? override->scheme : options.scheme;
    }
    if (!layer.scheme) continue;
    const TensorInfo& tensor = source.tensors()[layer.tensor];
    const std::optional<DType> dtype = dtype_of(tensor);
    if (!dtype || !is_float_operand(*dtype)) {
      return unsupported("tensor '{}' is {}; F32, F16 and BF16 can be quantized (--ignore leaves it as it is)", tensor.name,
                         tensor.dtype);
    }
    layer.scale_dtype = options.scale_dtype.value_or(*dtype);
  }
  for (const auto* patterns : {&ignore, &only, &overrides}) {
    for (const Pattern& pattern : *patterns) OCTAVO_RETURN_IF_ERROR(pattern.check_used());
  }
  return {};
}

// A few of many names.
std::string list(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 3;
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), kShown); ++i) text += (i ? ", " : "") + names[i];
  if (names.size() > kShown) text += format_text(" and {} more", names.size() - kShown);
  return text;
}

// The largest of 128, 64, 32 that divides K of all these layers, or 0.
std::int64_t common_group_size(const Checkpoint& source, const std::vector<const LayerPlan*>& layers) {
  for (const std::int64_t size : kAutoGroupSizes) {
    if (std::all_of(layers.begin(), layers.end(),
                    [&](const LayerPlan* layer) { return source.tensors()[layer->tensor].shape[1] % size == 0; })) {
      return size;
    }
  }
  return 0;
}

// Every group must be whole. `layers` share a scheme.
Status check_group_size(const Checkpoint& source, const std::vector<const LayerPlan*>& layers) {
  const std::int64_t size = layers.front()->scheme->weight.group_size;
  if (size <= 0) return {};
  std::vector<std::string> bad;
  for (const LayerPlan* layer : layers) {
    const std::int64_t K = source.tensors()[layer->tensor].shape[1];
    if (K % size != 0) bad.push_back(format_text("{} (K = {})", layer->name, K));
  }
  if (bad.empty()) return {};
  const std::int64_t better = common_group_size(source, layers);
  Scheme suggestion = *layers.front()->scheme;
  suggestion.weight.group_size = better > 0 ? better : kPerChannel;
  return invalid("groups of {} do not divide {}, and the format has no short groups; use {}, or --ignore them", size,
                 list(bad), to_string(suggestion));
}

Status choose_group_size(const Checkpoint& source, Scheme& scheme, std::vector<LayerPlan>& layers) {
  if (scheme.weight.group_size != kPerChannel) {
    return invalid("--group-size auto with scheme {}, which says itself what shares a scale; use one of them",
                   to_string(scheme));
  }
  std::vector<const LayerPlan*> grouped;
  for (const LayerPlan& layer : layers) {
    if (layer.scheme == scheme) grouped.push_back(&layer);
  }
  const std::int64_t size = common_group_size(source, grouped);
  if (size == 0) {
    std::vector<std::string> bad;
    for (const LayerPlan* layer : grouped) {
      const std::int64_t K = source.tensors()[layer->tensor].shape[1];
      if (K % kAutoGroupSizes.back() != 0) bad.push_back(format_text("{} (K = {})", layer->name, K));
    }
    return invalid("--group-size auto: none of 128, 64, 32 divides K of {}; --ignore them, or use {} without groups",
                   list(bad), to_string(scheme));
  }
  const Scheme before = scheme;
  scheme.weight.group_size = size;
  OCTAVO_RETURN_IF_ERROR(validate(scheme));
  for (LayerPlan& layer : layers) {
    if (layer.scheme == before) layer.scheme = scheme;
  }
  return {};
}

// vLLM concatenates q/k/v and gate/up into one matrix, which has one scheme.
Status check_fused(const std::vector<LayerPlan>& layers) {
  std::map<std::string_view, const LayerPlan*> by_name;
  for (const LayerPlan& layer : layers) by_name.emplace(layer.name, &layer);
  const auto say = [](const LayerPlan& layer) {
    return layer.scheme ? "is " + to_string(*layer.scheme) : "stays as it is (" + layer.reason + ")";
  };
  for (const LayerPlan& layer : layers) {
    for (const std::string_view leaf : fused_with(leaf_of(layer.name))) {
      const auto other = by_name.find(std::string(parent_of(layer.name)) + std::string(leaf));
      if (other == by_name.end() || other->second->scheme == layer.scheme) continue;
      return invalid("{} {}, but {} {}: vLLM fuses them into one matrix, so they need the same scheme", layer.name,
                     say(layer), other->second->name, say(*other->second));
    }
  }
  return {};
}

}  // namespace

Result<QuantizationPlan> plan_quantization(const Checkpoint& source, const PlanOptions& options) {
  if (!source.is_directory()) {
    return invalid("{}: is a file; to be quantized, a model is a directory with config.json", source.path());
  }
  OCTAVO_ASSIGN_OR_RETURN(const Json config, read_model_config(source.path()));
  OCTAVO_RETURN_IF_ERROR(check_config(source, config));

  QuantizationPlan plan;
  plan.scheme = options.scheme;
  OCTAVO_ASSIGN_OR_RETURN(plan.layers, find_layers(source));
  OCTAVO_RETURN_IF_ERROR(assign_schemes(source, options, has_tied_embeddings(config), plan.layers));
  if (options.auto_group_size) OCTAVO_RETURN_IF_ERROR(choose_group_size(source, plan.scheme, plan.layers));

  std::map<std::string, std::vector<const LayerPlan*>> by_scheme;
  for (const LayerPlan& layer : plan.layers) {
    if (!layer.scheme) continue;
    OCTAVO_RETURN_IF_ERROR(validate_for_compressed_tensors(*layer.scheme));
    by_scheme[to_string(*layer.scheme)].push_back(&layer);
  }
  if (by_scheme.empty()) return invalid("{}: has no Linear weight that these options leave to quantize", source.path());
  for (const auto& [name, layers] : by_scheme) OCTAVO_RETURN_IF_ERROR(check_group_size(source, layers));
  OCTAVO_RETURN_IF_ERROR(check_fused(plan.layers));

  for (const TensorInfo& tensor : source.tensors()) plan.bytes_before += tensor.bytes;
  plan.bytes_after = plan.bytes_before;
  for (LayerPlan& layer : plan.layers) {
    if (!layer.scheme) continue;
    const auto& shape = source.tensors()[layer.tensor].shape;
    layer.bytes_after = StoredWeight{*layer.scheme, layer.scale_dtype, shape[0], shape[1]}.bytes();
    plan.bytes_after += layer.bytes_after - layer.bytes_before;
  }
  return plan;
}

}  // namespace octavo
