// The files in tests/golden are what the reference computes today: a change of the specification shows here.
#include "gemm/golden.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "checkpoint/safetensors.h"

namespace octavo::test {
namespace {

void expect_file_holds(const std::string& name, const Golden& golden) {
  const std::string path = std::string(OCTAVO_TEST_DATA) + "/golden/" + name;
  const auto file = File::open(path);
  ASSERT_TRUE(file.ok()) << path;
  const auto header = read_safetensors_header(*file);
  ASSERT_TRUE(header.ok()) << header.status().message();
  std::ifstream stream(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(stream)), {});
  EXPECT_EQ(header->tensors.size(), golden.size());
  for (const TensorInfo& tensor : header->tensors) {
    const auto found = golden.find(tensor.name);
    ASSERT_NE(found, golden.end()) << tensor.name;
    const MatrixView view = found->second.view();
    ASSERT_EQ(tensor.shape, (std::vector<std::int64_t>{view.rows, view.cols})) << tensor.name;
    const auto length = static_cast<std::size_t>(view.rows * view.stride);
    ASSERT_EQ(std::memcmp(bytes.data() + tensor.offset, view.data, length), 0) << tensor.name;
  }
}

TEST(Golden, QuantizeFileIsTheReference) { expect_file_holds("quantize.safetensors", golden_quantize()); }
TEST(Golden, ProductsFileIsTheReference) { expect_file_holds("products.safetensors", golden_products()); }

}  // namespace
}  // namespace octavo::test
