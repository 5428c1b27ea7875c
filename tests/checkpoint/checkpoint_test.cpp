#include "octavo/checkpoint.h"

#include <gtest/gtest.h>

#include "checkpoint/json.h"
#include "checkpoint/make_checkpoint.h"

namespace octavo::test {
namespace {

namespace fs = std::filesystem;

std::string open_error(const std::string& path) {
  const auto checkpoint = Checkpoint::open(path);
  return checkpoint.ok() ? "" : checkpoint.status().message();
}

class Sharded : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directory(path_);
    write_safetensors(path_ + "/a.safetensors", {{"x", make_tensor<float>("F32", {1}, {1})}});
    write_safetensors(path_ + "/b.safetensors", {{"y", make_tensor<float>("F32", {1}, {2})}});
  }
  std::string error(const std::string& weight_map) {
    write_text(path_ + "/model.safetensors.index.json", R"({"metadata": {}, "weight_map": )" + weight_map + "}");
    return open_error(path_);
  }
  TemporaryDirectory directory_;
  std::string path_ = directory_.path("model");
};

TEST_F(Sharded, OpensWhenTheIndexAgrees) {
  EXPECT_EQ(error(R"({"x": "a.safetensors", "y": "b.safetensors"})"), "");
  const auto checkpoint = Checkpoint::open(path_);
  ASSERT_TRUE(checkpoint.ok());
  EXPECT_EQ(checkpoint->files().size(), 2u);
  ASSERT_NE(checkpoint->find("y"), nullptr);
  EXPECT_EQ(checkpoint->find("y")->file, 1u);
  EXPECT_EQ(checkpoint->find("z"), nullptr);
}

TEST_F(Sharded, NamesOutsideTheDirectoryAreRefused) {
  for (const std::string name : {"../a.safetensors", "/a.safetensors", "sub/a.safetensors", "..", ".a.safetensors", "a.bin",
                                 "a\\\\b.safetensors", "a\\u0000.safetensors"}) {
    EXPECT_NE(error(R"({"x": ")" + name + R"("})").find("not a plain *.safetensors file name"), std::string::npos) << name;
  }
}

TEST_F(Sharded, DisagreementIsRefused) {
  EXPECT_NE(error(R"({"x": "a.safetensors", "y": "c.safetensors"})").find("c.safetensors: is missing"), std::string::npos);
  EXPECT_NE(error(R"({"x": "b.safetensors", "y": "a.safetensors"})").find("the index does not say so"), std::string::npos);
  EXPECT_NE(
      error(R"({"x": "a.safetensors", "y": "b.safetensors", "z": "a.safetensors"})").find("'z' is not in a.safetensors"),
      std::string::npos);
  EXPECT_NE(error(R"({"x": "a.safetensors", "x": "a.safetensors"})").find("twice"), std::string::npos);
  EXPECT_NE(error(R"({"x": 1})").find("not a string"), std::string::npos);
  EXPECT_NE(error("[]").find("no object \"weight_map\""), std::string::npos);
  EXPECT_NE(error("{}").find("no tensors"), std::string::npos);
  write_safetensors(path_ + "/b.safetensors", {{"x", make_tensor<float>("F32", {1}, {1})}});
  EXPECT_NE(error(R"({"x": "a.safetensors", "y": "b.safetensors"})").find("'x' is in a.safetensors and in b.safetensors"),
            std::string::npos);
}

TEST(Checkpoint, FollowsSymbolicLinksToFiles) {
  const TemporaryDirectory directory;
  write_model(directory.path("blobs"), small_llama());
  fs::create_directory(directory.path("model"));
  fs::create_symlink("../blobs/model.safetensors", directory.path("model/model.safetensors"));
  EXPECT_EQ(open_error(directory.path("model")), "");
}

TEST(Checkpoint, SaysWhatIsNotThere) {
  const TemporaryDirectory directory;
  EXPECT_NE(open_error(directory.path("none")).find("no such file or directory"), std::string::npos);
  fs::create_directory(directory.path("empty"));
  EXPECT_NE(open_error(directory.path("empty")).find("neither model.safetensors nor"), std::string::npos);
}

TEST(Checkpoint, LayoutHashSeesNamesAndShapes) {
  const TemporaryDirectory directory;
  write_model(directory.path("a"), small_llama());
  write_model(directory.path("b"), small_llama());
  auto other = small_llama();
  other["x.weight"] = float_tensor(2, 2, 1);
  write_model(directory.path("c"), other);
  const std::string hash = Checkpoint::open(directory.path("a")).value().layout_hash();
  EXPECT_EQ(hash.size(), 32u);
  EXPECT_EQ(Checkpoint::open(directory.path("b")).value().layout_hash(), hash);
  EXPECT_NE(Checkpoint::open(directory.path("c")).value().layout_hash(), hash);
}

TEST(StrictJson, RefusesDuplicatesAndDepth) {
  EXPECT_NE(parse_json(R"({"a": {"b": 1, "b": 2}})", "f").status().message().find("f: the key \"b\" is there twice"),
            std::string::npos);
  EXPECT_TRUE(parse_json(R"({"a": {"b": 1}, "b": [{"b": 2}, {"b": 3}]})", "f").ok());
  EXPECT_NE(parse_json(std::string(100, '['), "f").status().message().find("more than 64 levels"), std::string::npos);
  EXPECT_NE(parse_json("{", "f").status().message().find("not valid JSON at byte"), std::string::npos);
}

}  // namespace
}  // namespace octavo::test
