#include <gtest/gtest.h>

#include "checkpoint/compressed_tensors.h"
#include "checkpoint/make_checkpoint.h"
#include "octavo/checkpoint.h"

namespace octavo::test {
namespace {

class Plan : public testing::Test {
 protected:
  void write(const Tensors& tensors, const std::string& config = R"({"model_type": "llama"})") {
    write_model(directory_.path("model"), tensors, config);
  }
  Result<QuantizationPlan> plan(const std::string& scheme) {
    options_.scheme = parse_scheme(scheme).value();
    const auto source = Checkpoint::open(directory_.path("model"));
    if (!source.ok()) return source.status();
    return plan_quantization(*source, options_);
  }
  std::string error(const std::string& scheme) {
    const auto result = plan(scheme);
    return result.ok() ? "no error" : result.status().message();
  }
  // "name=scheme" of what is quantized.
  std::map<std::string, std::string> schemes(const std::string& scheme) {
    const auto result = plan(scheme);
    EXPECT_TRUE(result.ok()) << result.status().message();
    std::map<std::string, std::string> names;
    if (!result.ok()) return names;
    for (const LayerPlan& layer : result->layers) {
      if (layer.scheme) names[layer.name] = to_string(*layer.scheme);
    }
    return names;
  }

  TemporaryDirectory directory_;
  PlanOptions options_;
};

#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST_F(Plan, TakesLinearWeightsAndLeavesTheRest) {
  write(small_llama());
  const auto names = schemes("w8a16");
  EXPECT_EQ(names.size(), 14u);
  EXPECT_TRUE(names.contains("model.layers.1.mlp.down_proj"));
  EXPECT_FALSE(names.contains("lm_head"));
  EXPECT_FALSE(names.contains("model.embed_tokens"));
}

TEST_F(Plan, CountsBytes) {
  write({{"a.weight", float_tensor(8, 64, 1)}, {"norm.weight", make_tensor<float>("F32", {1}, {1})}});
  const auto result = plan("w4a16-g32-asym");
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->bytes_before, 8u * 64 * 4 + 4);
  // 8 rows of 8 words, 2 float32 scales a row, 2 columns of zero points in 1 word, the shape.
  EXPECT_EQ(result->bytes_after, 8u * 32 + 8 * 2 * 4 + 2 * 4 + 16 + 4);
}

TEST_F(Plan, IgnoreOnlyAndLayer) {
  write(small_llama());
  options_.ignore = {"down_proj", "lm_head"};
  EXPECT_EQ(schemes("w8a16").size(), 12u);
  options_.ignore = {"\\.0\\."};
  options_.only = {"mlp"};
  EXPECT_EQ(schemes("w8a16").size(), 3u);
  options_ = {};
  options_.only = {"^lm_head$"};
  EXPECT_EQ(schemes("w8a16").size(), 1u);
  options_ = {};
  options_.layers = {{"down_proj", parse_scheme("w4a16-g32").value()}, {"1.mlp.down", parse_scheme("w8a8").value()}};
  const auto names = schemes("w8a16");
  EXPECT_EQ(names.at("model.layers.0.mlp.down_proj"), "w4a16-g32");
  EXPECT_EQ(names.at("model.layers.1.mlp.down_proj"), "w8a8");
  EXPECT_EQ(names.at("model.layers.1.mlp.up_proj"), "w8a16");
}

TEST_F(Plan, Keep) {
  write(small_llama());
  options_.keep_first = true;
  EXPECT_EQ(schemes("w8a16").size(), 7u);
  options_.keep_attention_output = true;
  EXPECT_EQ(schemes("w8a16").size(), 6u);
  options_.keep_last = true;
  EXPECT_SAYS(error("w8a16"), "no Linear weight");
}

TEST_F(Plan, PatternsThatMatchNothingAreMistakes) {
  write(small_llama());
  options_.ignore = {"nothing"};
  EXPECT_SAYS(error("w8a16"), "--ignore 'nothing' matches no Linear layer");
  options_.ignore = {"("};
  EXPECT_SAYS(error("w8a16"), "--ignore '(' is not a valid regular expression");
}

TEST_F(Plan, FusedLayersNeedOneScheme) {
  write(small_llama());
  options_.ignore = {"q_proj"};
  EXPECT_SAYS(error("w8a16"), "vLLM fuses them");
  options_ = {};
  options_.layers = {{"up_proj", parse_scheme("w4a16").value()}};
  EXPECT_SAYS(error("w8a16"), "mlp.up_proj is w4a16");
}

TEST_F(Plan, GroupSizesMustDivide) {
  write(small_llama());
  const std::string message = error("w4a16-g64");
  EXPECT_SAYS(message, "model.layers.0.mlp.down_proj (K = 96)");
  EXPECT_SAYS(message, "use w4a16-g32");
  options_.auto_group_size = true;
  EXPECT_EQ(schemes("w4a16").begin()->second, "w4a16-g32");
  options_.ignore = {"down_proj"};
  EXPECT_EQ(schemes("w4a16-asym").begin()->second, "w4a16-g64-asym");
  EXPECT_SAYS(error("w4a16-g64"), "says itself what shares a scale");
  auto odd = small_llama();
  odd["model.layers.0.mlp.down_proj.weight"] = float_tensor(64, 33, 1);
  write(odd);
  options_.ignore = {};
  EXPECT_SAYS(error("w4a16"), "none of 128, 64, 32 divides K of model.layers.0.mlp.down_proj (K = 33)");
}

TEST_F(Plan, TiedHeadCannotBeQuantized) {
  write(small_llama(), R"({"tie_word_embeddings": true})");
  options_.only = {"lm_head", "mlp"};
  EXPECT_FALSE(schemes("w8a16").contains("lm_head"));
}

TEST_F(Plan, WhatTheFormatCannotSayIsRefused) {
  write(small_llama());
  EXPECT_SAYS(error("w8a8-static"), "need calibration data");
  options_.ignore = {"down_proj"};
  EXPECT_SAYS(error("w4a8-g64"), "not supported for checkpoints yet");
}

TEST_F(Plan, ModelsThatCannotBeQuantizedAreRefused) {
  write(small_llama(), R"({"quantization_config": {"quant_method": "gptq"}})");
  EXPECT_SAYS(error("w8a16"), "is quantized already");
  write(small_llama(), R"({"text_config": {"quantization_config": {}}})");
  EXPECT_SAYS(error("w8a16"), "is quantized already");
  write(small_llama(), R"({"model_type": "gpt2"})");
  EXPECT_SAYS(error("w8a16"), "Conv1D");
  write(small_llama(), "[1]");
  EXPECT_SAYS(error("w8a16"), "not a JSON object");
  std::filesystem::remove(directory_.path("model/config.json"));
  EXPECT_SAYS(error("w8a16"), "has no config.json");
}

TEST_F(Plan, DoubleWeightsAreRefusedByName) {
  auto tensors = small_llama();
  tensors["x.weight"] = make_tensor<double>("F64", {1, 2}, {1, 2});
  write(tensors);
  EXPECT_SAYS(error("w8a16"), "tensor 'x.weight' is F64");
  options_.ignore = {"^x$"};
  EXPECT_EQ(schemes("w8a16").size(), 14u);
}

TEST_F(Plan, FusedExpertsStayAndAreReported) {
  auto tensors = small_llama();
  tensors["model.layers.0.mlp.experts.gate_up_proj"] = make_tensor("F32", {2, 2, 2}, std::vector<float>(8));
  write(tensors);
  const auto result = plan("w8a16");
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(std::any_of(result->layers.begin(), result->layers.end(), [](const LayerPlan& layer) {
    return layer.name == "model.layers.0.mlp.experts.gate_up_proj" && !layer.scheme &&
           layer.reason == "3-D tensor of fused experts";
  }));
}

TEST(QuantizationConfig, OneGroupTargetsLinear) {
  LayerPlan a{.name = "a", .scheme = parse_scheme("w8a8").value(), .reason = {}};
  LayerPlan b{.name = "b", .scheme = {}, .reason = "--ignore"};
  const Json config = quantization_config({a, b});
  EXPECT_EQ(config.dump(),
            R"({"quant_method":"compressed-tensors","format":"int-quantized","quantization_status":"compressed",)"
            R"("ignore":["b","lm_head"],"kv_cache_scheme":null,"global_compression_ratio":null,"config_groups":{"group_0":)"
            R"({"targets":["Linear"],"weights":{"num_bits":8,"type":"int","symmetric":true,"strategy":"channel",)"
            R"("group_size":null,"dynamic":false,"observer":"minmax","observer_kwargs":{},"block_structure":null,)"
            R"("actorder":null},"input_activations":{"num_bits":8,"type":"int","symmetric":true,"strategy":"token",)"
            R"("group_size":null,"dynamic":true,"observer":null,"observer_kwargs":{},"block_structure":null,)"
            R"("actorder":null},"output_activations":null}}})");
}

TEST(QuantizationConfig, SeveralGroupsNameTheirTargets) {
  LayerPlan a{.name = "a", .scheme = parse_scheme("w4a16-g64").value(), .reason = {}};
  LayerPlan b{.name = "b", .scheme = parse_scheme("w8a8-tensor").value(), .reason = {}};
  LayerPlan head{.name = "lm_head", .scheme = parse_scheme("w4a16-g64").value(), .reason = {}};
  Json config = quantization_config({a, b, head});
  EXPECT_EQ(config["format"], "mixed-precision");
  EXPECT_TRUE(config["ignore"].empty());
  EXPECT_EQ(config["config_groups"]["group_0"]["targets"], Json::array({"a", "lm_head"}));
  EXPECT_EQ(config["config_groups"]["group_0"]["format"], "pack-quantized");
  EXPECT_EQ(config["config_groups"]["group_0"]["weights"]["group_size"], 64);
  EXPECT_EQ(config["config_groups"]["group_1"]["targets"], Json::array({"b"}));
  EXPECT_EQ(config["config_groups"]["group_1"]["weights"]["strategy"], "tensor");
  // Weight-only groups share a format; per tensor is stored as per channel.
  b.scheme = parse_scheme("w8a16-tensor").value();
  LayerPlan c{.name = "c", .scheme = parse_scheme("llm.int8").value(), .reason = {}};
  config = quantization_config({a, b, c});
  EXPECT_EQ(config["format"], "pack-quantized");
  EXPECT_EQ(config["config_groups"].size(), 2u);
  EXPECT_FALSE(config["config_groups"]["group_0"].contains("format"));
}

}  // namespace
}  // namespace octavo::test
