// Checkpoints on disk: reading Hugging Face directories of safetensors files, planning what to quantize, and writing the
// result in the compressed-tensors format, in bounded memory. docs/formats.md describes the files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "octavo/parallel.h"
#include "octavo/quantize.h"
#include "octavo/scheme.h"
#include "octavo/status.h"
#include "octavo/tensor.h"

namespace octavo {

// Where a tensor lies. Rows of a matrix follow each other without gaps.
struct TensorInfo {
  std::string name;
  std::string dtype;                // as safetensors spells it: "BF16", "I32", "F8_E4M3" …
  std::vector<std::int64_t> shape;  // empty for a scalar
  std::size_t file = 0;             // index into Checkpoint::files()
  std::uint64_t offset = 0;         // of the first byte, from the start of the file
  std::uint64_t bytes = 0;
};

// The type of a tensor's elements where Octavo computes with it: F64, F32, F16, BF16, I32, I8, U8.
std::optional<DType> dtype_of(const TensorInfo& tensor);

struct CheckpointFile {
  std::string name;  // inside the directory
  std::uint64_t bytes = 0;
  std::map<std::string, std::string> metadata;  // the header's __metadata__
};

// An open checkpoint: a .safetensors file, or a directory with model.safetensors or model.safetensors.index.json. Headers
// are checked completely when it is opened; data is read on demand with pread, so a file that shrinks meanwhile gives an
// error.
class Checkpoint {
 public:
  static Result<Checkpoint> open(const std::string& path);

  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;
  ~Checkpoint();

  const std::string& path() const;
  bool is_directory() const;
  const std::vector<CheckpointFile>& files() const;
  // In the order of files and of offsets within them.
  const std::vector<TensorInfo>& tensors() const;
  // Null when there is none of that name.
  const TensorInfo* find(std::string_view name) const;

  // Reads out.size() bytes of a tensor's data, starting `offset` bytes into it. Safe to call from several threads.
  Status read(const TensorInfo& tensor, std::uint64_t offset, std::span<std::byte> out) const;

  // XXH3-128, in hex, of all files' names, sizes and safetensors headers: tells checkpoints of different layout apart, not
  // two whose values alone differ.
  std::string layout_hash() const;

 private:
  struct State;
  explicit Checkpoint(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

struct LayerOverride {
  std::string pattern;  // ECMAScript regular expression, searched for in the module's name
  Scheme scheme;
};

struct PlanOptions {
  Scheme scheme;                       // of every Linear weight not named below
  bool auto_group_size = false;        // instead of the scheme's: the largest of 128, 64, 32 that divides every K
  std::optional<DType> scale_dtype;    // float32, bfloat16 or float16; none: each weight's own
  std::vector<std::string> ignore;     // regular expressions: stay as they are, whatever else names them
  std::vector<std::string> only;       // regular expressions: if any, nothing else is quantized
  std::vector<LayerOverride> layers;   // the last that matches wins
  bool keep_first = false;             // the first decoder layer stays as it is
  bool keep_last = false;              // the last one
  bool keep_attention_output = false;  // output projections of attention
};

// What becomes of one Linear weight (or of one tensor of fused experts, which stays).
struct LayerPlan {
  std::string name;              // of the module: the tensor's without ".weight"
  std::size_t tensor = 0;        // index into Checkpoint::tensors()
  std::optional<Scheme> scheme;  // none: it stays as it is
  std::string reason;            // why it stays
  DType scale_dtype = DType::kFloat32;
  std::uint64_t bytes_before = 0;
  std::uint64_t bytes_after = 0;  // with scales and zero points
};

struct QuantizationPlan {
  Scheme scheme;                   // the default one, with the group size that was chosen
  std::vector<LayerPlan> layers;   // in the checkpoint's order
  std::uint64_t bytes_before = 0;  // of all tensors
  std::uint64_t bytes_after = 0;
};

// Decides what is quantized and how. Linear weights are 2-D tensors named *.weight that are no embedding, router or norm;
// lm_head stays unless `only` or `layers` names it. Fails on schemes that the format cannot express, on group sizes that do
// not divide K, on patterns that match nothing, on layers that vLLM fuses (q/k/v, gate/up) getting different schemes, on
// models whose layers are not Linear (GPT-2's Conv1D), and on checkpoints that are quantized already.
Result<QuantizationPlan> plan_quantization(const Checkpoint& source, const PlanOptions& options);

struct Progress {
  std::uint64_t bytes_done = 0;  // of input
  std::uint64_t bytes_total = 0;
  std::int64_t tensors_done = 0;
  std::int64_t tensors_total = 0;
};

struct QuantizeCheckpointOptions {
  Clip clip = Clip::kAbsmax;
  double percentile = 99.9;
  std::uint64_t memory_limit = std::uint64_t{512} << 20;  // bytes for blocks of input and output of all threads together
  bool replace = false;                                   // an existing destination, once the new one is complete
  // Called on the caller's thread, now and then; false cancels.
  std::function<bool(const Progress&)> progress;
};

struct TensorReport {
  std::string name;
  Scheme scheme;
  double snr_db = 0;  // +inf when exact
  double max_abs_error = 0;
};

struct QuantizationReport {
  std::vector<TensorReport> tensors;  // the quantized ones, in the plan's order
  std::uint64_t bytes_read = 0;
  std::uint64_t bytes_written = 0;  // of safetensors files
};

// Writes the directory `destination`: shards like the source's, config.json with a quantization_config, the source's other
// files (tokenizer, chat template …) and octavo.json. It appears complete or not at all: everything is written to
// `destination`.partial, synced, and renamed. The same bytes for any number of threads and any memory limit.
Result<QuantizationReport> quantize_checkpoint(const Checkpoint& source, const QuantizationPlan& plan,
                                               const std::string& destination, const QuantizeCheckpointOptions& options = {},
                                               Parallel& parallel = serial());

}  // namespace octavo
