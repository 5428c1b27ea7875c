#include "octavo/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <unordered_map>

#include "checkpoint/file.h"
#include "checkpoint/hash.h"
#include "checkpoint/index.h"
#include "checkpoint/json.h"
#include "checkpoint/safetensors.h"
#include "core/error.h"
#include "core/macros.h"

namespace octavo {
namespace fs = std::filesystem;

struct Checkpoint::State {
  std::string path;
  bool is_directory = false;
  std::vector<CheckpointFile> files;
  std::vector<File> handles;  // like files
  std::vector<TensorInfo> tensors;
  std::unordered_map<std::string_view, std::size_t> by_name;  // into tensors
  std::string layout;                                         // what layout_hash is taken of

  Status add_file(const std::string& directory, const std::string& name) {
    OCTAVO_ASSIGN_OR_RETURN(File file, File::open(directory.empty() ? name : directory + "/" + name));
    OCTAVO_ASSIGN_OR_RETURN(const std::uint64_t bytes, file.size());
    OCTAVO_ASSIGN_OR_RETURN(SafetensorsHeader header, read_safetensors_header(file));
    layout += format_text("{} {} {}\n", fs::path(name).filename().string(), bytes, header.text.size()) + header.text;
    for (TensorInfo& tensor : header.tensors) {
      tensor.file = files.size();
      tensors.push_back(std::move(tensor));
    }
    files.push_back({name, bytes, std::move(header.metadata)});
    handles.push_back(std::move(file));
    return {};
  }

  Status add_sharded(const std::string& index_path) {
    OCTAVO_ASSIGN_OR_RETURN(const std::string text, read_file(index_path, kMaxHeaderBytes));
    OCTAVO_ASSIGN_OR_RETURN(const ShardIndex index, parse_index(text, index_path));
    for (const std::string& shard : index.shards) {
      if (Status status = add_file(path, shard); !status.ok()) {
        if (status.code() != StatusCode::kNotFound) return status;
        return not_found("{}: is missing; {} lists it", path + "/" + shard, fs::path(index_path).filename().string());
      }
    }
    std::map<std::string_view, std::size_t> seen;
    for (const TensorInfo& tensor : tensors) {
      const auto [other, is_new] = seen.emplace(tensor.name, tensor.file);
      if (!is_new) {
        return data_loss("{}: tensor '{}' is in {} and in {}", path, excerpt(tensor.name), files[other->second].name,
                         files[tensor.file].name);
      }
      const auto listed = index.shard_of.find(tensor.name);
      if (listed == index.shard_of.end() || listed->second != files[tensor.file].name) {
        return data_loss("{}: tensor '{}' is in {}, but the index does not say so", path, excerpt(tensor.name),
                         files[tensor.file].name);
      }
    }
    for (const auto& [tensor, shard] : index.shard_of) {
      if (!seen.contains(tensor)) {
        return data_loss("{}: tensor '{}' is not in {}, though the index says so", path, excerpt(tensor), shard);
      }
    }
    return {};
  }
};

Checkpoint::Checkpoint(std::unique_ptr<State> state) : state_(std::move(state)) {}
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;
Checkpoint::~Checkpoint() = default;

Result<Checkpoint> Checkpoint::open(const std::string& path) {
  auto state = std::make_unique<State>();
  state->path = path;
  std::error_code error;
  const fs::file_status kind = fs::status(path, error);
  if (!fs::exists(kind)) return not_found("{}: no such file or directory", path);
  state->is_directory = fs::is_directory(kind);
  if (!state->is_directory) {
    OCTAVO_RETURN_IF_ERROR(state->add_file("", path));
  } else if (fs::exists(path + "/model.safetensors", error)) {  // where both are, transformers prefers the single file
    OCTAVO_RETURN_IF_ERROR(state->add_file(path, "model.safetensors"));
  } else if (const std::string index = path + "/model.safetensors.index.json"; fs::exists(index, error)) {
    OCTAVO_RETURN_IF_ERROR(state->add_sharded(index));
  } else {
    return not_found("{}: has neither model.safetensors nor model.safetensors.index.json", path);
  }
  for (std::size_t i = 0; i < state->tensors.size(); ++i) state->by_name.emplace(state->tensors[i].name, i);
  return Checkpoint(std::move(state));
}

const std::string& Checkpoint::path() const { return state_->path; }
bool Checkpoint::is_directory() const { return state_->is_directory; }
const std::vector<CheckpointFile>& Checkpoint::files() const { return state_->files; }
const std::vector<TensorInfo>& Checkpoint::tensors() const { return state_->tensors; }

const TensorInfo* Checkpoint::find(std::string_view name) const {
  const auto found = state_->by_name.find(name);
  return found == state_->by_name.end() ? nullptr : &state_->tensors[found->second];
}

Status Checkpoint::read(const TensorInfo& tensor, std::uint64_t offset, std::span<std::byte> out) const {
  if (offset > tensor.bytes || out.size() > tensor.bytes - offset) {
    return invalid("tensor '{}' has {} bytes; {} from {} were asked for", tensor.name, tensor.bytes, out.size(), offset);
  }
  return state_->handles[tensor.file]
      .read(tensor.offset + offset, out)
      .with_context(format_text("tensor '{}'", tensor.name));
}

std::string Checkpoint::layout_hash() const { return hash_hex(state_->layout); }

std::optional<DType> dtype_of(const TensorInfo& tensor) {
  for (const DType dtype :
       {DType::kFloat64, DType::kFloat32, DType::kFloat16, DType::kBFloat16, DType::kInt32, DType::kInt8, DType::kUInt8}) {
    if (tensor.dtype == safetensors_name(dtype)) return dtype;
  }
  return std::nullopt;
}

}  // namespace octavo
