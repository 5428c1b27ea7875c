#include "checkpoint/safetensors.h"

#include <gtest/gtest.h>

#include "checkpoint/make_checkpoint.h"

namespace octavo::test {
namespace {

struct Malformed {
  const char* name;
  const char* header;
  std::uint64_t data_bytes;
  const char* message;
};

void PrintTo(const Malformed& c, std::ostream* out) { *out << c.name; }

class MalformedHeader : public testing::TestWithParam<Malformed> {};

TEST_P(MalformedHeader, IsRefusedWithItsReason) {
  const auto header = parse_safetensors_header(GetParam().header, GetParam().data_bytes);
  ASSERT_FALSE(header.ok());
  EXPECT_EQ(header.status().code(), StatusCode::kDataLoss);
  EXPECT_NE(header.status().message().find(GetParam().message), std::string::npos) << header.status().message();
}

const Malformed kMalformed[] = {
    {"empty", "", 0, "not valid JSON"},
    {"array", "[]", 0, "not an object"},
    {"number", "1", 0, "not an object"},
    {"unfinished", R"({"a":{"dtype":"F32")", 0, "not valid JSON"},
    {"text after", R"({} x)", 0, "not valid JSON"},
    {"bad utf-8", "{\"\xff\":{}}", 0, "not valid JSON"},
    {"duplicate tensor",
     R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2,
     "'a' is there twice"},
    {"duplicate key", R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1, "'dtype' is there twice"},
    {"duplicate metadata", R"({"__metadata__":{"x":"1","x":"2"}})", 0, "'x' twice"},
    {"metadata number", R"({"__metadata__":{"x":1}})", 0, "a number is not allowed"},
    {"unknown key", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"b":1}})", 1, "unknown key 'b'"},
    {"unknown dtype", R"({"a":{"dtype":"F99","shape":[1],"data_offsets":[0,1]}})", 1, "unknown dtype 'F99'"},
    {"missing shape", R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1, "is missing"},
    {"one offset", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", 1, "must be [begin, end]"},
    {"three offsets", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}})", 1, "more than two"},
    {"reversed", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}})", 1, "end before they begin"},
    {"negative dimension", R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", 1, "negative number"},
    {"fraction", R"({"a":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}})", 1, "a fraction"},
    {"beyond 64 bits", R"({"a":{"dtype":"U8","shape":[99999999999999999999],"data_offsets":[0,1]}})", 1, "beyond 64 bits"},
    {"beyond int64", R"({"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,1]}})", 1, "too large"},
    {"overflow", R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,1]}})", 1, "shape overflows"},
    {"nested", R"({"a":{"dtype":"U8","shape":[[1]],"data_offsets":[0,1]}})", 1, "an array is not allowed"},
    {"nested object", R"({"a":{"dtype":{},"shape":[1],"data_offsets":[0,1]}})", 1, "an object is not allowed"},
    {"size", R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, "take 64 bits"},
    {"half bytes", R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}})", 2, "take 12 bits"},
    {"beyond the end", R"({"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}})", 8, "ends at byte 9"},
    {"offset wrap", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[18446744073709551614,18446744073709551615]}})", 8,
     "ends at byte 18446744073709551615"},
    {"hole at the start", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2, "bytes 0 to 1"},
    {"hole at the end", R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 3, "the last 2 bytes"},
    {"overlap",
     R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})", 3,
     "'b' overlaps"},
};
INSTANTIATE_TEST_SUITE_P(Safetensors, MalformedHeader, testing::ValuesIn(kMalformed));

TEST(Safetensors, AcceptsWhatIsLegal) {
  const auto header = parse_safetensors_header(
      R"( {"__metadata__":{"format":"pt"},"b":{"data_offsets":[4,5],"dtype":"BOOL","shape":[1]},)"
      R"("scalar":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"empty":{"dtype":"F8_E4M3","shape":[3,0],"data_offsets":[4,4]},)"
      R"("f4":{"dtype":"F4","shape":[2],"data_offsets":[5,6]}}   )",
      6);
  ASSERT_TRUE(header.ok()) << header.status().message();
  ASSERT_EQ(header->tensors.size(), 4u);
  EXPECT_EQ(header->tensors[0].name, "scalar");
  EXPECT_EQ(header->tensors[1].name, "empty");
  EXPECT_EQ(header->tensors[2].dtype, "BOOL");
  EXPECT_EQ(header->metadata.at("format"), "pt");
}

TEST(Safetensors, DeepNestingIsRefusedWithoutRecursion) {
  std::string text;
  for (int i = 0; i < 1000000; ++i) text += "{\"a\":";
  EXPECT_FALSE(parse_safetensors_header(text, 0).ok());
}

TEST(Safetensors, LayoutIsAlignedSortedAndDeterministic) {
  const std::vector<TensorSpec> specs = {{"b", "I8", {3}}, {"c", "F32", {2}}, {"a", "I8", {1}}, {"d", "I64", {1}}};
  const auto layout = lay_out_safetensors(specs, {{"format", "pt"}});
  ASSERT_TRUE(layout.ok());
  EXPECT_EQ(layout->head.size() % 8, 0u);
  EXPECT_EQ(layout->offsets.at("d"), layout->head.size());
  EXPECT_EQ(layout->offsets.at("c"), layout->head.size() + 8);
  EXPECT_EQ(layout->offsets.at("a"), layout->head.size() + 16);
  EXPECT_EQ(layout->offsets.at("b"), layout->head.size() + 17);
  EXPECT_EQ(layout->bytes, layout->head.size() + 20);
  EXPECT_EQ(layout->head.substr(8, 80),
            R"({"__metadata__":{"format":"pt"},"d":{"dtype":"I64","shape":[1],"data_offsets":[0)");
  EXPECT_FALSE(lay_out_safetensors({{"a", "I8", {1}}, {"a", "I8", {1}}}, {}).ok());
}

TEST(Safetensors, FilesAreCheckedAgainstTheirSize) {
  const TemporaryDirectory directory;
  const std::string path = directory.path("x.safetensors");
  const auto message = [&](const std::string& content) {
    write_text(path, content);
    const auto checkpoint = Checkpoint::open(path);
    return checkpoint.ok() ? "" : checkpoint.status().message();
  };
  using namespace std::string_literals;
  EXPECT_NE(message("1234").find("at least 8"), std::string::npos);
  EXPECT_NE(message("\xff\xff\xff\xff\0\0\0\0"s).find("at most 100000000 are legal"), std::string::npos);
  EXPECT_NE(message("\x09\0\0\0\0\0\0\0{}"s).find("it is truncated"), std::string::npos);
  EXPECT_EQ(message("\x02\0\0\0\0\0\0\0{}"s), "");
  EXPECT_NE(message("\x02\0\0\0\0\0\0\0{}x"s).find("the last 1 bytes"), std::string::npos);
  EXPECT_NE(message("\x02\0\0\0\0\0\0\0{}x"s).find(path), std::string::npos);
}

TEST(Safetensors, ReadingBeyondATensorIsRefused) {
  const TemporaryDirectory directory;
  const std::string path = directory.path("x.safetensors");
  write_safetensors(path, {{"a", make_tensor<float>("F32", {2}, {1, 2})}});
  const auto checkpoint = Checkpoint::open(path);
  ASSERT_TRUE(checkpoint.ok());
  std::byte bytes[8];
  EXPECT_TRUE(checkpoint->read(*checkpoint->find("a"), 4, std::span(bytes).first(4)).ok());
  EXPECT_FALSE(checkpoint->read(*checkpoint->find("a"), 4, bytes).ok());
  // Shrinks while it is open.
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
  const Status status = checkpoint->read(*checkpoint->find("a"), 0, bytes);
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_NE(status.message().find("tensor 'a': " + path + ": ends at offset"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace octavo::test
