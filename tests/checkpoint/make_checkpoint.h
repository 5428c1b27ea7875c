// Small inputs for tests of checkpoints and of the program.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "checkpoint/file.h"
#include "checkpoint/safetensors.h"

namespace octavo::test {

// A directory that is removed with the test.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "octavo-test-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  std::string path(const std::string& name) const { return path_ + "/" + name; }
  // Names of what lies in it, sorted.
  std::vector<std::string> names() const {
    std::vector<std::string> result;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) result.push_back(entry.path().filename().string());
    std::sort(result.begin(), result.end());
    return result;
  }

 private:
  std::string path_;
};

struct Tensor {
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::string data;
};
using Tensors = std::map<std::string, Tensor>;

template <class T>
Tensor make_tensor(const std::string& dtype, std::vector<std::int64_t> shape, const std::vector<T>& values) {
  return {dtype, std::move(shape), std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T))};
}

// Values in [-scale, scale) that look random and are the same everywhere.
inline Tensor float_tensor(std::int64_t rows, std::int64_t cols, unsigned seed, float scale = 1) {
  std::vector<float> values(static_cast<std::size_t>(rows * cols));
  for (float& value : values) {
    seed = seed * 1664525u + 1013904223u;
    value = (static_cast<float>(seed >> 8) * 0x1p-23f - 1) * scale;
  }
  return make_tensor("F32", {rows, cols}, values);
}

inline void write_text(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

inline std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

inline void write_safetensors(const std::string& path, const Tensors& tensors) {
  std::vector<TensorSpec> specs;
  for (const auto& [name, tensor] : tensors) specs.push_back({name, tensor.dtype, tensor.shape});
  const auto layout = lay_out_safetensors(std::move(specs), {{"format", "pt"}});
  ASSERT_TRUE(layout.ok()) << layout.status().message();
  std::string file(layout->bytes, '\0');
  file.replace(0, layout->head.size(), layout->head);
  for (const auto& [name, tensor] : tensors) file.replace(layout->offsets.at(name), tensor.data.size(), tensor.data);
  write_text(path, file);
}

// The same tensors as they are in a file.
inline Tensors read_safetensors(const std::string& path) {
  const auto checkpoint = Checkpoint::open(path);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  Tensors tensors;
  if (!checkpoint.ok()) return tensors;
  for (const TensorInfo& info : checkpoint->tensors()) {
    Tensor tensor{info.dtype, info.shape, std::string(info.bytes, '\0')};
    EXPECT_TRUE(checkpoint->read(info, 0, std::as_writable_bytes(std::span(tensor.data))).ok());
    tensors[info.name] = std::move(tensor);
  }
  return tensors;
}

template <class T>
std::vector<T> values_of(const Tensor& tensor) {
  std::vector<T> values(tensor.data.size() / sizeof(T));
  std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
  return values;
}

// Two decoder layers of a Llama with hidden size 64, and what stays unquantized.
inline Tensors small_llama() {
  Tensors tensors;
  unsigned seed = 1;
  tensors["model.embed_tokens.weight"] = float_tensor(16, 64, ++seed);
  tensors["lm_head.weight"] = float_tensor(16, 64, ++seed);
  tensors["model.norm.weight"] = make_tensor("F32", {64}, std::vector<float>(64, 1.0f));
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    for (const std::string name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"}) {
      tensors[layer + name + ".weight"] = float_tensor(64, 64, ++seed);
    }
    tensors[layer + "mlp.gate_proj.weight"] = float_tensor(96, 64, ++seed);
    tensors[layer + "mlp.up_proj.weight"] = float_tensor(96, 64, ++seed);
    tensors[layer + "mlp.down_proj.weight"] = float_tensor(64, 96, ++seed);
    tensors[layer + "input_layernorm.weight"] = make_tensor("F32", {64}, std::vector<float>(64, 1.0f));
  }
  return tensors;
}

inline void write_model(const std::string& directory, const Tensors& tensors,
                        const std::string& config = R"({"model_type": "llama", "hidden_size": 64})") {
  std::filesystem::create_directory(directory);
  write_safetensors(directory + "/model.safetensors", tensors);
  write_text(directory + "/config.json", config);
  write_text(directory + "/tokenizer.json", "{}");
}

}  // namespace octavo::test
