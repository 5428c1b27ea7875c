#include <gtest/gtest.h>

#include <limits>

#include "checkpoint/json.h"
#include "checkpoint/make_checkpoint.h"
#include "core/half.h"
#include "octavo/checkpoint.h"

namespace octavo::test {
namespace {

namespace fs = std::filesystem;

#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

class QuantizeCheckpoint : public testing::Test {
 protected:
  Status quantize(const std::string& scheme, const std::string& destination = "out", int threads = 1) {
    plan_.scheme = parse_scheme(scheme).value();
    const auto source = Checkpoint::open(directory_.path("model"));
    if (!source.ok()) return source.status();
    const auto plan = plan_quantization(*source, plan_);
    if (!plan.ok()) return plan.status();
    const auto pool = make_thread_pool(threads);
    return quantize_checkpoint(*source, *plan, directory_.path(destination), options_, *pool).status();
  }
  Tensors output(const std::string& destination = "out") {
    return read_safetensors(directory_.path(destination + "/model.safetensors"));
  }
  Json octavo_json() { return Json::parse(read_text(directory_.path("out/octavo.json"))); }
  // Nothing but the source is left behind.
  void expect_clean() { EXPECT_EQ(directory_.names(), std::vector<std::string>{"model"}); }

  TemporaryDirectory directory_;
  PlanOptions plan_;
  QuantizeCheckpointOptions options_;
};

// One row whose absmax is 127, so that with 8 bits the scale is 1 and q = w.
const std::vector<float> kRow = {127, -127, 1, -1, 0};

TEST_F(QuantizeCheckpoint, W8A16IsPackedByteByByte) {
  write_model(directory_.path("model"), {{"a.weight", make_tensor("F32", {1, 5}, kRow)}});
  ASSERT_TRUE(quantize("w8a16").ok());
  const auto out = output();
  EXPECT_EQ(out.size(), 3u);
  EXPECT_EQ(out.at("a.weight_packed").dtype, "I32");
  EXPECT_EQ(out.at("a.weight_packed").shape, (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(values_of<std::uint8_t>(out.at("a.weight_packed")), (std::vector<std::uint8_t>{255, 1, 129, 127, 128, 0, 0, 0}));
  EXPECT_EQ(out.at("a.weight_scale").shape, (std::vector<std::int64_t>{1, 1}));
  EXPECT_EQ(values_of<float>(out.at("a.weight_scale")), std::vector<float>{1});
  EXPECT_EQ(out.at("a.weight_shape").dtype, "I64");
  EXPECT_EQ(values_of<std::int64_t>(out.at("a.weight_shape")), (std::vector<std::int64_t>{1, 5}));
  EXPECT_TRUE(octavo_json()["tensors"]["a.weight"]["snr_db"].is_null());
  EXPECT_EQ(octavo_json()["tensors"]["a.weight"]["max_abs_error"], 0);
}

TEST_F(QuantizeCheckpoint, W4A16IsPackedLowNibbleFirst) {
  // Two groups of four; absmax 7 and 14: scales 1 and 2.
  const std::vector<float> row = {7, -7, 1, 0, 14, -14, 2, -2};
  write_model(directory_.path("model"), {{"a.weight", make_tensor("F32", {1, 8}, row)}});
  ASSERT_TRUE(quantize("w4a16-g4").ok());
  const auto out = output();
  EXPECT_EQ(values_of<std::uint8_t>(out.at("a.weight_packed")), (std::vector<std::uint8_t>{0x1f, 0x89, 0x1f, 0x79}));
  EXPECT_EQ(values_of<float>(out.at("a.weight_scale")), (std::vector<float>{1, 2}));
}

TEST_F(QuantizeCheckpoint, RowsOfFourBitsArePaddedToWordsWithZeros) {
  write_model(directory_.path("model"), {{"a.weight", make_tensor<float>("F32", {2, 3}, {7, 7, 7, -7, -7, -7})}});
  ASSERT_TRUE(quantize("w4a16").ok());
  EXPECT_EQ(values_of<std::uint8_t>(output().at("a.weight_packed")),
            (std::vector<std::uint8_t>{0xff, 0x0f, 0, 0, 0x11, 0x01, 0, 0}));
}

TEST_F(QuantizeCheckpoint, AsymmetricZeroPointsArePackedAlongN) {
  // Row r spans [-r, 15 - r]: scale 1, zero point r, q = w + r. Nine rows take two words.
  std::vector<float> values;
  for (int r = 0; r < 9; ++r) {
    values.push_back(static_cast<float>(-r));
    values.push_back(static_cast<float>(15 - r));
  }
  write_model(directory_.path("model"), {{"a.weight", make_tensor("F32", {9, 2}, values)}});
  ASSERT_TRUE(quantize("w4a16-asym").ok());
  const auto out = output();
  EXPECT_EQ(out.at("a.weight_zero_point").shape, (std::vector<std::int64_t>{2, 1}));
  EXPECT_EQ(values_of<std::uint32_t>(out.at("a.weight_zero_point")), (std::vector<std::uint32_t>{0x76543210, 0x8}));
  EXPECT_EQ(values_of<std::uint32_t>(out.at("a.weight_packed")), std::vector<std::uint32_t>(9, 0xf0));
}

TEST_F(QuantizeCheckpoint, ThreeBitsContinueInTheNextWord) {
  // q = w, u = q + 4: eleven values of 3 bits take 33 bits.
  const std::vector<float> row = {3, -3, 3, -3, 3, -3, 3, -3, 3, -3, 3};
  write_model(directory_.path("model"), {{"a.weight", make_tensor("F32", {1, 11}, row)}});
  ASSERT_TRUE(quantize("w3a16").ok());
  std::uint64_t bits = 0;
  for (int i = 0; i < 11; ++i) bits |= std::uint64_t(i % 2 ? 1 : 7) << (3 * i);
  EXPECT_EQ(values_of<std::uint64_t>(output().at("a.weight_packed")), std::vector<std::uint64_t>{bits});
}

TEST_F(QuantizeCheckpoint, W8A8IsStoredAsIntegers) {
  write_model(directory_.path("model"), {{"a.weight", make_tensor("F32", {1, 5}, kRow)}});
  ASSERT_TRUE(quantize("w8a8").ok());
  const auto out = output();
  EXPECT_EQ(out.size(), 2u);
  EXPECT_EQ(out.at("a.weight").dtype, "I8");
  EXPECT_EQ(values_of<std::int8_t>(out.at("a.weight")), (std::vector<std::int8_t>{127, -127, 1, -1, 0}));
}

TEST_F(QuantizeCheckpoint, PerTensorScalesCoverAllRows) {
  Tensors tensors = {{"a.weight", float_tensor(3000, 256, 3)}};  // several units
  std::vector<float> values = values_of<float>(tensors["a.weight"]);
  values.back() = -254;
  tensors["a.weight"] = make_tensor("F32", {3000, 256}, values);
  write_model(directory_.path("model"), tensors);
  ASSERT_TRUE(quantize("w8a8-tensor", "int", 2).ok());
  EXPECT_EQ(output("int").at("a.weight_scale").shape, std::vector<std::int64_t>{1});
  EXPECT_EQ(values_of<float>(output("int").at("a.weight_scale")), std::vector<float>{2});
  ASSERT_TRUE(quantize("w8a16-tensor", "packed").ok());
  EXPECT_EQ(values_of<float>(output("packed").at("a.weight_scale")), std::vector<float>(3000, 2));
  options_.clip = Clip::kMse;
  EXPECT_SAYS(quantize("w8a16-tensor", "mse").message(), "--clip absmax");
}

TEST_F(QuantizeCheckpoint, OtherTensorsAndFilesAreCopiedAndTheConfigKeepsItsKeys) {
  const Tensors tensors = small_llama();
  write_model(directory_.path("model"), tensors, R"({"zeta": 1e-05, "model_type": "llama", "list": [1, null]})");
  write_text(directory_.path("model/pytorch_model.bin"), "x");
  write_text(directory_.path("model/merges.txt"), "a b");
  ASSERT_TRUE(quantize("llm.int8").ok());
  EXPECT_EQ(output().at("lm_head.weight").data, tensors.at("lm_head.weight").data);
  EXPECT_EQ(output().at("model.norm.weight").data, tensors.at("model.norm.weight").data);
  EXPECT_FALSE(output().contains("model.layers.0.mlp.up_proj.weight"));
  EXPECT_EQ(read_text(directory_.path("out/merges.txt")), "a b");
  EXPECT_FALSE(fs::exists(directory_.path("out/pytorch_model.bin")));
  EXPECT_EQ(read_text(directory_.path("out/config.json")).substr(0, 84),
            "{\n  \"zeta\": 1e-05,\n  \"model_type\": \"llama\",\n  \"list\": [\n    1,\n    null\n  ],\n  \"quan");
  EXPECT_EQ(octavo_json()["llm_int8_threshold"], 6.0);
  EXPECT_EQ(octavo_json()["scheme"], "llm.int8");
  EXPECT_EQ(fs::exists(directory_.path("out.partial")), false);
}

TEST_F(QuantizeCheckpoint, ShardsStayShards) {
  fs::create_directory(directory_.path("model"));
  write_safetensors(directory_.path("model/m-1.safetensors"), {{"a.weight", float_tensor(4, 8, 1)}});
  write_safetensors(directory_.path("model/m-2.safetensors"), {{"b.weight", float_tensor(4, 8, 2)}});
  write_text(directory_.path("model/config.json"), "{}");
  write_text(directory_.path("model/model.safetensors.index.json"),
             R"({"weight_map": {"a.weight": "m-1.safetensors", "b.weight": "m-2.safetensors"}})");
  ASSERT_TRUE(quantize("w8a8").ok());
  const auto out = Checkpoint::open(directory_.path("out"));
  ASSERT_TRUE(out.ok()) << out.status().message();
  EXPECT_EQ(out->files().size(), 2u);
  EXPECT_EQ(out->files()[out->find("b.weight_scale")->file].name, "m-2.safetensors");
  const Json index = Json::parse(read_text(directory_.path("out/model.safetensors.index.json")));
  EXPECT_EQ(index["metadata"]["total_size"], 2 * (4 * 8 + 4 * 4));
}

TEST_F(QuantizeCheckpoint, BytesDoNotDependOnThreadsOrMemory) {
  Tensors tensors = small_llama();
  tensors["big.weight"] = float_tensor(2000, 1088, 9);
  tensors["copied"] = float_tensor(500, 700, 10);
  write_model(directory_.path("model"), tensors);
  for (const std::string scheme : {"w4a16-g32-asym", "w8a16-tensor", "w3a16-asym"}) {
    ASSERT_TRUE(quantize(scheme, "first").ok());
    for (const int threads : {2, 3}) {
      for (const std::uint64_t memory : {std::uint64_t{512} << 20, std::uint64_t{1500} << 10}) {
        options_.memory_limit = memory;
        options_.replace = true;
        ASSERT_TRUE(quantize(scheme, "other", threads).ok());
        for (const std::string file : {"model.safetensors", "octavo.json", "config.json"}) {
          EXPECT_TRUE(read_text(directory_.path("first/" + file)) == read_text(directory_.path("other/" + file)))
              << scheme << " " << file << " " << threads;
        }
      }
    }
  }
}

TEST_F(QuantizeCheckpoint, TooLittleMemoryIsAnError) {
  write_model(directory_.path("model"), small_llama());
  options_.memory_limit = 1000;
  EXPECT_SAYS(quantize("w8a16").message(), "--memory of 1000 bytes is too little");
  expect_clean();
}

TEST_F(QuantizeCheckpoint, NonFiniteWeightsAreNamed) {
  Tensors tensors = small_llama();
  std::vector<float> values(1000 * 512, 1.0f);
  values[777 * 512 + 5] = std::numeric_limits<float>::quiet_NaN();
  values[999 * 512] = std::numeric_limits<float>::infinity();
  tensors["bad.weight"] = make_tensor("F32", {1000, 512}, values);
  write_model(directory_.path("model"), tensors);
  for (const char* scheme : {"w8a16", "w8a16-tensor"}) {
    const Status status = quantize(scheme, "out", 3);
    EXPECT_EQ(status.code(), StatusCode::kDataLoss);
    EXPECT_SAYS(status.message(), "model.safetensors: tensor 'bad.weight': element [777, 5] is NaN; weights must be finite");
    expect_clean();
  }
}

TEST_F(QuantizeCheckpoint, ScaleOverflowNamesTensorAndOption) {
  write_model(directory_.path("model"), {{"a.weight", make_tensor<float>("F32", {1, 2}, {1e30f, 1})}});
  plan_.scale_dtype = DType::kFloat16;
  const std::string message = quantize("w8a16").message();
  EXPECT_SAYS(message, "tensor 'a.weight', rows 0 to 0");
  EXPECT_SAYS(message, "--scale-dtype float32 or bfloat16");
  expect_clean();
  plan_.scale_dtype = DType::kBFloat16;
  ASSERT_TRUE(quantize("w8a16").ok());
  EXPECT_EQ(output().at("a.weight_scale").dtype, "BF16");
}

TEST_F(QuantizeCheckpoint, ScalesTakeTheWeightsType) {
  std::vector<std::uint16_t> bits;
  for (const float value : kRow) bits.push_back(to_bfloat16(value).bits);
  write_model(directory_.path("model"), {{"a.weight", make_tensor("BF16", {1, 5}, bits)}});
  ASSERT_TRUE(quantize("w8a8").ok());
  EXPECT_EQ(output().at("a.weight_scale").dtype, "BF16");
  EXPECT_EQ(values_of<std::uint16_t>(output().at("a.weight_scale")), std::vector<std::uint16_t>{0x3f80});
}

TEST_F(QuantizeCheckpoint, AnExistingDestinationIsKeptUnlessReplacedWhole) {
  write_model(directory_.path("model"), small_llama());
  ASSERT_TRUE(quantize("w8a16").ok());
  const std::string before = read_text(directory_.path("out/model.safetensors"));
  EXPECT_EQ(quantize("w4a16").code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(read_text(directory_.path("out/model.safetensors")), before);
  options_.replace = true;
  options_.progress = [](const Progress&) { return false; };
  EXPECT_EQ(quantize("w4a16").code(), StatusCode::kCancelled);
  EXPECT_EQ(read_text(directory_.path("out/model.safetensors")), before);
  options_.progress = nullptr;
  ASSERT_TRUE(quantize("w4a16").ok());
  EXPECT_NE(read_text(directory_.path("out/model.safetensors")), before);
  EXPECT_EQ(directory_.names(), (std::vector<std::string>{"model", "out"}));
}

TEST_F(QuantizeCheckpoint, ReplacingTakesOnlyCheckpoints) {
  write_model(directory_.path("model"), small_llama());
  options_.replace = true;
  fs::create_directory(directory_.path("out"));
  write_text(directory_.path("out/letter.txt"), "dear");
  EXPECT_SAYS(quantize("w8a16").message(), "holds no checkpoint");
  EXPECT_EQ(read_text(directory_.path("out/letter.txt")), "dear");
  EXPECT_SAYS(quantize("w8a16", "model").message(), "holds the source itself");
  write_text(directory_.path("file"), "");
  EXPECT_SAYS(quantize("w8a16", "file").message(), "is not a directory");
  EXPECT_SAYS(quantize("w8a16", "no/such/out").message(), "no such directory");
}

TEST_F(QuantizeCheckpoint, WhatAKilledRunLeftIsClearedAndNothingElse) {
  write_model(directory_.path("model"), small_llama());
  fs::create_directory(directory_.path("out.partial"));
  write_text(directory_.path("out.partial/.octavo-partial"), "");
  write_text(directory_.path("out.partial/model.safetensors"), "half");
  EXPECT_TRUE(quantize("w8a16").ok());
  EXPECT_FALSE(fs::exists(directory_.path("out/.octavo-partial")));
  fs::create_directory(directory_.path("other.partial"));
  write_text(directory_.path("other.partial/letter.txt"), "dear");
  EXPECT_SAYS(quantize("w8a16", "other").message(), "was not left by octavo");
  EXPECT_EQ(read_text(directory_.path("other.partial/letter.txt")), "dear");
}

TEST_F(QuantizeCheckpoint, AnUnwritableDestinationLeavesNothing) {
  write_model(directory_.path("model"), small_llama());
  write_text(directory_.path("out.partial"), "a file");
  EXPECT_SAYS(quantize("w8a16").message(), "out.partial: cannot be created");
  EXPECT_EQ(directory_.names(), (std::vector<std::string>{"model", "out.partial"}));
  EXPECT_EQ(read_text(directory_.path("out.partial")), "a file");
}

TEST_F(QuantizeCheckpoint, AShardThatShrinksGivesAnErrorAndLeavesNothing) {
  write_model(directory_.path("model"), small_llama());
  const auto source = Checkpoint::open(directory_.path("model"));
  plan_.scheme = parse_scheme("w8a16").value();
  const auto plan = plan_quantization(*source, plan_);
  const std::string file = directory_.path("model/model.safetensors");
  fs::resize_file(file, fs::file_size(file) - 10000);
  const auto result = quantize_checkpoint(*source, *plan, directory_.path("out"));
  ASSERT_FALSE(result.ok());
  EXPECT_SAYS(result.status().message(), "model.safetensors: ends at offset");
  EXPECT_SAYS(result.status().message(), "tensor '");
  expect_clean();
}

TEST_F(QuantizeCheckpoint, ProgressCountsToTheEnd) {
  write_model(directory_.path("model"), small_llama());
  Progress last;
  options_.progress = [&](const Progress& progress) {
    last = progress;
    return true;
  };
  ASSERT_TRUE(quantize("w8a16-tensor").ok());
  EXPECT_EQ(last.bytes_done, last.bytes_total);
  EXPECT_EQ(last.tensors_done, 19);
  EXPECT_EQ(last.tensors_total, 19);
}

}  // namespace
}  // namespace octavo::test
