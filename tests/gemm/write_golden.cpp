// write_golden DIRECTORY: writes the golden cases anew, after a deliberate change of the specification.
#include <cstdio>
#include <fstream>

#include "checkpoint/safetensors.h"
#include "gemm/golden.h"

namespace octavo::test {
namespace {

bool write(const std::string& path, const Golden& golden) {
  std::vector<TensorSpec> specs;
  for (const auto& [name, matrix] : golden) {
    specs.push_back({name, std::string(safetensors_name(matrix.view().dtype)), {matrix.view().rows, matrix.view().cols}});
  }
  const auto layout = lay_out_safetensors(specs, {});
  if (!layout.ok()) return false;
  std::string bytes = layout->head;
  bytes.resize(layout->bytes);
  for (const auto& [name, matrix] : golden) {
    const MatrixView view = matrix.view();
    std::memcpy(bytes.data() + layout->offsets.at(name), view.data, static_cast<std::size_t>(view.rows * view.stride));
  }
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return file.good();
}

}  // namespace
}  // namespace octavo::test

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: write_golden DIRECTORY\n");
    return 2;
  }
  const std::string directory = argv[1];
  const bool ok = octavo::test::write(directory + "/quantize.safetensors", octavo::test::golden_quantize()) &&
                  octavo::test::write(directory + "/products.safetensors", octavo::test::golden_products());
  return ok ? 0 : 1;
}
