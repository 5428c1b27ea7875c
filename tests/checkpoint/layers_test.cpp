#include "checkpoint/layers.h"

#include <gtest/gtest.h>

namespace octavo {
namespace {

TEST(Layers, KindsAreToldFromNames) {
  EXPECT_EQ(layer_kind("model.layers.0.self_attn.q_proj"), LayerKind::kLinear);
  EXPECT_EQ(layer_kind("model.layers.0.mlp.gate_proj"), LayerKind::kLinear);
  EXPECT_EQ(layer_kind("model.layers.0.mlp.experts.3.w1"), LayerKind::kLinear);
  EXPECT_EQ(layer_kind("bert.encoder.layer.0.attention.output.dense"), LayerKind::kLinear);
  EXPECT_EQ(layer_kind("bert.encoder.layer.0.attention.output"), LayerKind::kLinear);
  EXPECT_EQ(layer_kind("lm_head"), LayerKind::kHead);
  EXPECT_EQ(layer_kind("language_model.lm_head"), LayerKind::kHead);
  EXPECT_EQ(layer_kind("embed_out"), LayerKind::kHead);
  EXPECT_EQ(layer_kind("output"), LayerKind::kHead);
  for (const char* name : {"model.embed_tokens", "transformer.wte", "wpe", "shared", "bert.embeddings.word_embeddings"}) {
    EXPECT_EQ(layer_kind(name), LayerKind::kTable) << name;
  }
  EXPECT_EQ(layer_kind("model.layers.0.mlp.gate"), LayerKind::kRouter);
  EXPECT_EQ(layer_kind("model.layers.0.input_layernorm"), LayerKind::kNorm);
}

TEST(Layers, DecoderLayersHaveAnIndex) {
  EXPECT_EQ(decoder_layer("model.layers.17.mlp.up_proj"), 17);
  EXPECT_EQ(decoder_layer("transformer.h.3.attn.c_proj"), 3);
  EXPECT_EQ(decoder_layer("model.layers.2.mlp.experts.7.w1"), 2);
  EXPECT_EQ(decoder_layer("lm_head"), std::nullopt);
  EXPECT_EQ(decoder_layer("model.layers.x.y"), std::nullopt);
  EXPECT_EQ(decoder_layer("model.layers.99999999999999.y"), std::nullopt);
}

TEST(Layers, AttentionOutputsAndFusedSiblings) {
  EXPECT_TRUE(is_attention_output("model.layers.0.self_attn.o_proj"));
  EXPECT_TRUE(is_attention_output("h.0.attn.c_proj"));
  EXPECT_FALSE(is_attention_output("h.0.mlp.c_proj"));
  EXPECT_FALSE(is_attention_output("model.layers.0.self_attn.q_proj"));
  EXPECT_EQ(fused_with("k_proj").size(), 3u);
  EXPECT_EQ(fused_with("up_proj").size(), 2u);
  EXPECT_TRUE(fused_with("down_proj").empty());
}

}  // namespace
}  // namespace octavo
