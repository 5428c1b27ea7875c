#include "octavo/scheme.h"

#include <charconv>
#include <vector>

#include "core/error.h"
#include "core/macros.h"

namespace octavo {
namespace {

constexpr std::string_view kExamples =
    "schemes look like w8a16, w8a16-tensor, w8a16-g128, w4a16-g64-asym, w4a8-g128, w8a8, w8a8-static or llm.int8";

// The number that text consists of, or nothing.
bool parse_number(std::string_view text, std::int64_t& value) {
  if (text.empty() || text.front() < '0' || text.front() > '9') return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const std::size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

Status apply_option(std::string_view option, Scheme& scheme, bool& has_granularity) {
  std::int64_t group = 0;
  const bool is_group = option.starts_with('g') && parse_number(option.substr(1), group);
  if (option == "tensor" || is_group) {
    if (has_granularity) return invalid("it says twice what shares a scale, the second time '{}'", option);
    if (is_group && group == 0) return invalid("a group has at least one element, not 'g0'");
    has_granularity = true;
    scheme.weight.group_size = is_group ? group : kPerTensor;
  } else if (option == "asym") {
    if (!scheme.weight.symmetric) return invalid("'asym' is there twice");
    scheme.weight.symmetric = false;
  } else if (option == "static") {
    if (scheme.activation != Activation::kInt8PerToken) return invalid("'static' goes with 8-bit activations, once");
    scheme.activation = Activation::kInt8Static;
  } else {
    return invalid("'{}' is not one of the options tensor, gN, asym, static", option);
  }
  return {};
}

Status parse_into(std::string_view text, Scheme& scheme) {
  if (text == "llm.int8") {
    scheme.activation = Activation::kInt8Outliers;
    return {};
  }
  const auto parts = split(text, '-');
  const std::string_view head = parts.front();
  const std::size_t a = head.find('a');
  std::int64_t weight_bits = 0;
  std::int64_t activation_bits = 0;
  if (!head.starts_with('w') || a == std::string_view::npos || !parse_number(head.substr(1, a - 1), weight_bits) ||
      !parse_number(head.substr(a + 1), activation_bits)) {
    return invalid("'{}' is not of the form w<bits>a<bits>", head);
  }
  if (weight_bits < 2 || weight_bits > 8) return invalid("weights have 2 to 8 bits, not {}", weight_bits);
  if (activation_bits != 8 && activation_bits != 16)
    return invalid("activations have 8 or 16 bits, not {}", activation_bits);
  scheme.weight.num_bits = static_cast<int>(weight_bits);
  scheme.activation = activation_bits == 8 ? Activation::kInt8PerToken : Activation::kFloat;
  bool has_granularity = false;
  for (std::size_t i = 1; i < parts.size(); ++i) {
    OCTAVO_RETURN_IF_ERROR(apply_option(parts[i], scheme, has_granularity));
  }
  return validate(scheme);
}

}  // namespace

Result<Scheme> parse_scheme(std::string_view text) {
  Scheme scheme;
  if (Status status = parse_into(text, scheme); !status.ok()) {
    return invalid("scheme '{}': {}; {}", text, status.message(), kExamples);
  }
  return scheme;
}

std::string to_string(const Scheme& scheme) {
  if (scheme.activation == Activation::kInt8Outliers) return "llm.int8";
  std::string text = format_text("w{}a{}", scheme.weight.num_bits, scheme.activation == Activation::kFloat ? 16 : 8);
  if (scheme.weight.group_size == kPerTensor) text += "-tensor";
  if (scheme.weight.group_size > 0) text += format_text("-g{}", scheme.weight.group_size);
  if (!scheme.weight.symmetric) text += "-asym";
  if (scheme.activation == Activation::kInt8Static) text += "-static";
  return text;
}

Status validate(const Scheme& scheme) {
  const WeightFormat& weight = scheme.weight;
  if (weight.num_bits < 2 || weight.num_bits > 8) return invalid("weights have 2 to 8 bits, not {}", weight.num_bits);
  if (weight.group_size < kPerChannel) return invalid("{} is not a group size", weight.group_size);
  if (scheme.activation == Activation::kFloat) return {};
  if (scheme.activation == Activation::kInt8Outliers) {
    if (weight != WeightFormat{}) return invalid("llm.int8 has symmetric 8-bit weights, one scale a channel");
    return {};
  }
  if (weight.num_bits == 8) {
    if (!weight.symmetric) return invalid("8-bit weights with 8-bit activations are symmetric; leave out 'asym'");
    if (weight.group_size > 0) {
      return invalid(
          "8-bit weights with 8-bit activations have one scale a channel or tensor; leave out the group, or use "
          "w8a16-g{} or w4a8-g{}",
          weight.group_size, weight.group_size);
    }
    return {};
  }
  if (weight.num_bits > 4) return invalid("with 8-bit activations weights have 8 bits, or 2 to 4 in groups");
  if (weight.group_size <= 0) {
    return invalid("with 8-bit activations, weights of {} bits need a group size, as in w{}a8-g128", weight.num_bits,
                   weight.num_bits);
  }
  if (scheme.activation == Activation::kInt8Static) {
    return invalid("static activation scales go with 8-bit weights, as in w8a8-static");
  }
  return {};
}

}  // namespace octavo
