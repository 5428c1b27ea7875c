// What a tensor of a transformer is, told from its name: checkpoints do not say.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace octavo {

enum class LayerKind {
  kLinear,
  kHead,       // lm_head and its other names: a Linear that stays as it is unless asked for
  kTable,      // looked up, never multiplied
  kEmbedding,  // named like a table, but maybe a Linear: stays, and readers are told so
  kRouter,     // chooses experts: tiny, sensitive, and in several models no Linear
  kNorm,
};

// The kind of module a 2-D "*.weight" belongs to; `module` is the tensor's name without ".weight".
LayerKind layer_kind(std::string_view module);

// The index in "model.layers.7.mlp.up_proj" and its like ("transformer.h.7.", "blocks.7."), or nothing.
std::optional<int> decoder_layer(std::string_view module);

bool is_attention_output(std::string_view module);

// The names, beside its own, of the layers that vLLM fuses with this one: for q_proj {q_proj, k_proj, v_proj}. Empty when
// none.
std::span<const std::string_view> fused_with(std::string_view leaf);

// The last part of a dotted name, and what is before it with the dot.
std::string_view leaf_of(std::string_view module);
std::string_view parent_of(std::string_view module);

}  // namespace octavo
