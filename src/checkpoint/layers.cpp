#include "checkpoint/layers.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace octavo {
namespace {

using Names = std::string_view;

constexpr std::array<Names, 3> kQkv = {"q_proj", "k_proj", "v_proj"};
constexpr std::array<Names, 2> kGateUp = {"gate_proj", "up_proj"};
constexpr std::array<Names, 2> kExpertGateUp = {"w1", "w3"};
constexpr std::array<Names, 2> kLatentAttention = {"q_a_proj", "kv_a_proj_with_mqa"};

template <std::size_t N>
bool is_one_of(std::string_view name, const std::array<Names, N>& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

std::string_view leaf_of(std::string_view module) { return module.substr(module.rfind('.') + 1); }
std::string_view parent_of(std::string_view module) { return module.substr(0, module.rfind('.') + 1); }

LayerKind layer_kind(std::string_view module) {
  constexpr std::array<Names, 2> kHeads = {"lm_head", "embed_out"};
  constexpr std::array<Names, 12> kTables = {"embed_tokens",
                                             "embed_in",
                                             "embed_positions",
                                             "tok_embeddings",
                                             "word_embeddings",
                                             "position_embeddings",
                                             "token_type_embeddings",
                                             "embeddings",
                                             "wte",
                                             "wpe",
                                             "shared",
                                             "relative_attention_bias"};
  constexpr std::array<Names, 3> kRouters = {"gate", "router", "shared_expert_gate"};
  const std::string_view leaf = leaf_of(module);
  if (is_one_of(leaf, kHeads) || module == "output") return LayerKind::kHead;
  if (is_one_of(leaf, kTables)) return LayerKind::kTable;
  if (leaf.find("embed") != std::string_view::npos) return LayerKind::kEmbedding;
  if (is_one_of(leaf, kRouters)) return LayerKind::kRouter;
  if (leaf.find("norm") != std::string_view::npos || leaf.starts_with("ln_")) return LayerKind::kNorm;
  return LayerKind::kLinear;
}

std::optional<int> decoder_layer(std::string_view module) {
  constexpr std::array<Names, 4> kStacks = {"layers", "h", "blocks", "block"};
  std::string_view previous;
  for (std::string_view rest = module; !rest.empty();) {
    const std::size_t dot = rest.find('.');
    const std::string_view part = rest.substr(0, dot);
    int index = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), index);
    if (is_one_of(previous, kStacks) && error == std::errc() && end == part.data() + part.size() && index >= 0) return index;
    previous = part;
    rest = dot == std::string_view::npos ? std::string_view() : rest.substr(dot + 1);
  }
  return std::nullopt;
}

bool is_attention_output(std::string_view module) {
  constexpr std::array<Names, 5> kOutputs = {"o_proj", "out_proj", "c_proj", "dense", "wo"};
  return is_one_of(leaf_of(module), kOutputs) && (parent_of(module).find("attn") != std::string_view::npos ||
                                                  parent_of(module).find("attention") != std::string_view::npos);
}

std::span<const std::string_view> fused_with(std::string_view leaf) {
  if (is_one_of(leaf, kQkv)) return kQkv;
  if (is_one_of(leaf, kGateUp)) return kGateUp;
  if (is_one_of(leaf, kExpertGateUp)) return kExpertGateUp;
  if (is_one_of(leaf, kLatentAttention)) return kLatentAttention;
  return {};
}

}  // namespace octavo
