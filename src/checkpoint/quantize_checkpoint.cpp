#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <memory>

#include "checkpoint/compressed_tensors.h"
#include "checkpoint/destination.h"
#include "checkpoint/file.h"
#include "checkpoint/model_config.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/weight_job.h"
#include "core/error.h"
#include "core/macros.h"
#include "octavo/checkpoint.h"
#include "octavo/version.h"

namespace octavo {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kCopyBytes = std::uint64_t{512} << 10;
// Between two calls of the progress callback.
constexpr std::uint64_t kBatchBytes = std::uint64_t{64} << 20;
constexpr float kOutlierThreshold = 6.0f;

// A piece of work that any thread may do in any order.
struct Task {
  enum class Kind { kRange, kQuantize, kCopy };
  Kind kind;
  std::size_t item;   // into weights, or the tensor's index
  std::int64_t unit;  // of the weight, or of kCopyBytes
  std::uint64_t bytes;
  bool completes_tensor;
};

class Run {
 public:
  Run(const Checkpoint& source, const QuantizationPlan& plan, const QuantizeCheckpointOptions& options, Parallel& parallel)
      : source_(source), plan_(plan), options_(options), parallel_(parallel), layer_of_(source.tensors().size()) {}

  Status prepare() {
    std::size_t scratch = kCopyBytes;
    std::string largest;
    for (const LayerPlan& layer : plan_.layers) {
      if (!layer.scheme) continue;
      layer_of_[layer.tensor] = &layer;
      if (layer.scheme->weight.group_size == kPerTensor && options_.clip != Clip::kAbsmax) {
        return invalid("{}: a scale per tensor goes with --clip absmax; use a scheme with scales per channel or group",
                       layer.name);
      }
      const TensorInfo& tensor = source_.tensors()[layer.tensor];
      const WeightJob job(source_, tensor, layer, options_);
      progress_.bytes_total += job.needs_range() ? tensor.bytes : 0;
      if (job.scratch_bytes() > scratch) {
        scratch = job.scratch_bytes();
        largest = tensor.name;
      }
    }
    for (const TensorInfo& tensor : source_.tensors()) progress_.bytes_total += tensor.bytes;
    progress_.tensors_total = static_cast<std::int64_t>(source_.tensors().size());
    const std::uint64_t arenas = std::min<std::uint64_t>(options_.memory_limit / scratch, parallel_.num_threads());
    if (arenas == 0) {
      return invalid("--memory of {} bytes is too little: {} takes {}", options_.memory_limit,
                     largest.empty() ? "copying" : "tensor '" + largest + "'", scratch);
    }
    arenas_ = std::make_unique<ArenaPool>(arenas, scratch);
    return {};
  }

  Status write_shards(const std::string& directory) {
    for (std::size_t file = 0; file < source_.files().size(); ++file) OCTAVO_RETURN_IF_ERROR(write_shard(directory, file));
    return {};
  }

  // Tensor names of the output and their shards, for the index.
  const std::map<std::string, std::string>& weight_map() const { return weight_map_; }
  std::uint64_t tensor_bytes() const { return tensor_bytes_; }
  QuantizationReport take_report() { return std::move(report_); }
  const QuantizationReport& report() const { return report_; }

 private:
  Status write_shard(const std::string& directory, std::size_t file) {
    const CheckpointFile& shard = source_.files()[file];
    std::vector<std::unique_ptr<WeightJob>> weights;
    std::vector<const LayerPlan*> layers;  // like weights
    std::vector<TensorSpec> specs;
    std::vector<Task> range_tasks;
    std::vector<Task> tasks;
    for (std::size_t i = 0; i < source_.tensors().size(); ++i) {
      const TensorInfo& tensor = source_.tensors()[i];
      if (tensor.file != file) continue;
      const LayerPlan* layer = layer_of_[i];
      if (layer == nullptr) {
        specs.push_back({tensor.name, tensor.dtype, tensor.shape});
        add_copy_tasks(i, tensor, tasks);
        continue;
      }
      weights.push_back(std::make_unique<WeightJob>(source_, tensor, *layer, options_));
      layers.push_back(layer);
      add_weight_tasks(weights.size() - 1, *weights.back(), range_tasks, tasks);
      for (TensorSpec& spec : weights.back()->stored().tensors(layer->name)) specs.push_back(std::move(spec));
    }
    for (const TensorSpec& spec : specs) weight_map_.emplace(spec.name, shard.name);

    std::map<std::string, std::string> metadata = shard.metadata;
    metadata.emplace("format", "pt");  // transformers refuses a file without
    OCTAVO_ASSIGN_OR_RETURN(const SafetensorsLayout layout, lay_out_safetensors(std::move(specs), metadata));
    OCTAVO_ASSIGN_OR_RETURN(const File output, File::create(directory + "/" + shard.name));
    OCTAVO_RETURN_IF_ERROR(output.write(0, std::as_bytes(std::span(layout.head))));
    report_.bytes_written += layout.bytes;
    tensor_bytes_ += layout.bytes - layout.head.size();

    const auto perform = [&](const Task& task, Arena& arena) -> Status {
      switch (task.kind) {
        case Task::Kind::kRange:
          return weights[task.item]->measure_range(task.unit, arena);
        case Task::Kind::kQuantize:
          return weights[task.item]->quantize(task.unit, arena);
        case Task::Kind::kCopy:
          break;
      }
      return copy(source_.tensors()[task.item], task, layout, output, arena);
    };
    OCTAVO_RETURN_IF_ERROR(run(range_tasks, perform));
    for (std::size_t i = 0; i < weights.size(); ++i) {
      if (weights[i]->needs_range()) weights[i]->range_is_complete();
      weights[i]->set_output(output, layout, layers[i]->name);
      OCTAVO_RETURN_IF_ERROR(weights[i]->write_shape());
    }
    OCTAVO_RETURN_IF_ERROR(run(tasks, perform));
    for (const auto& weight : weights) report_.tensors.push_back(weight->report());
    return output.sync();
  }

  static void add_copy_tasks(std::size_t index, const TensorInfo& tensor, std::vector<Task>& tasks) {
    std::uint64_t offset = 0;
    do {  // an empty tensor is one task without bytes
      const std::uint64_t bytes = std::min(kCopyBytes, tensor.bytes - offset);
      const auto unit = static_cast<std::int64_t>(offset / kCopyBytes);
      offset += bytes;
      tasks.push_back({Task::Kind::kCopy, index, unit, bytes, offset == tensor.bytes});
    } while (offset < tensor.bytes);
  }

  static void add_weight_tasks(std::size_t index, const WeightJob& weight, std::vector<Task>& range_tasks,
                               std::vector<Task>& tasks) {
    for (std::int64_t unit = 0; unit < weight.units(); ++unit) {
      const std::uint64_t bytes = weight.unit_bytes(unit);
      if (weight.needs_range()) range_tasks.push_back({Task::Kind::kRange, index, unit, bytes, false});
      tasks.push_back({Task::Kind::kQuantize, index, unit, bytes, unit + 1 == weight.units()});
    }
  }

  Status copy(const TensorInfo& tensor, const Task& task, const SafetensorsLayout& layout, const File& output,
              Arena& arena) const {
    const std::span part(arena.take<std::byte>(task.bytes), task.bytes);
    const std::uint64_t offset = static_cast<std::uint64_t>(task.unit) * kCopyBytes;
    OCTAVO_RETURN_IF_ERROR(source_.read(tensor, offset, part));
    return output.write(layout.offsets.at(tensor.name) + offset, part).with_context(format_text("tensor '{}'", tensor.name));
  }

  // All tasks, batch by batch; of several errors the first in order of tasks is returned, whatever the threads.
  template <class F>
  Status run(const std::vector<Task>& tasks, F&& perform) {
    for (std::size_t begin = 0; begin < tasks.size();) {
      std::size_t end = begin;
      std::uint64_t bytes = 0;
      std::int64_t completed = 0;
      for (; end < tasks.size() && bytes < kBatchBytes; ++end) {
        bytes += tasks[end].bytes;
        completed += tasks[end].completes_tensor;
      }
      std::vector<Status> results(end - begin);
      parallel_.run(static_cast<std::int64_t>(begin), static_cast<std::int64_t>(end), 1,
                    [&](std::int64_t first, std::int64_t last) {
                      ArenaPool::Lease arena(*arenas_);
                      for (auto i = static_cast<std::size_t>(first); i < static_cast<std::size_t>(last); ++i) {
                        (*arena).clear();
                        results[i - begin] = perform(tasks[i], *arena);
                      }
                    });
      for (Status& result : results) OCTAVO_RETURN_IF_ERROR(std::move(result));
      begin = end;
      report_.bytes_read += bytes;
      progress_.bytes_done += bytes;
      progress_.tensors_done += completed;
      if (options_.progress && !options_.progress(progress_)) return {StatusCode::kCancelled, "interrupted"};
    }
    return {};
  }

  const Checkpoint& source_;
  const QuantizationPlan& plan_;
  const QuantizeCheckpointOptions& options_;
  Parallel& parallel_;
  std::vector<const LayerPlan*> layer_of_;  // by tensor; null: it is copied
  std::unique_ptr<ArenaPool> arenas_;
  Progress progress_;
  std::map<std::string, std::string> weight_map_;
  std::uint64_t tensor_bytes_ = 0;
  QuantizationReport report_;
};

std::string_view to_string(Clip clip) {
  switch (clip) {
    case Clip::kMse:
      return "mse";
    case Clip::kPercentile:
      return "percentile";
    default:
      return "absmax";
  }
}

// What octavo knows and no key of the format can say. No time, path or host: same input, same bytes.
Json octavo_json(const Checkpoint& source, const QuantizationPlan& plan, const QuantizeCheckpointOptions& options,
                 const QuantizationReport& report) {
  Json tensors = Json::object();
  for (const TensorReport& tensor : report.tensors) {
    const Json snr = std::isfinite(tensor.snr_db) ? Json(tensor.snr_db) : Json(nullptr);
    tensors[tensor.name] = {{"scheme", to_string(tensor.scheme)}, {"snr_db", snr}, {"max_abs_error", tensor.max_abs_error}};
  }
  Json json = {
      {"format_version", 1},
      {"octavo_version", OCTAVO_VERSION},
      {"scheme", to_string(plan.scheme)},
      {"clip", to_string(options.clip)},
      {"source", {{"xxh3_128", source.layout_hash()}, {"of", "names, sizes and headers of the safetensors files"}}}};
  if (options.clip == Clip::kPercentile) json["percentile"] = options.percentile;
  const bool outliers = std::any_of(report.tensors.begin(), report.tensors.end(), [](const TensorReport& tensor) {
    return tensor.scheme.activation == Activation::kInt8Outliers;
  });
  if (outliers) json["llm_int8_threshold"] = kOutlierThreshold;
  json["tensors"] = std::move(tensors);
  return json;
}

// Tokenizer, chat template, generation config, model code; not weights in whatever format, nor what is written anew.
bool is_copied(const fs::path& path) {
  const std::string name = path.filename().string();
  if (name.starts_with('.') || name == "config.json" || name == "octavo.json" || name.ends_with(".index.json")) return false;
  for (const std::string_view weights : {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".ggml",
                                         ".onnx", ".onnx_data", ".tflite", ".ot", ".npz", ".partial"}) {
    if (name.ends_with(weights)) return false;
  }
  return true;
}

Status copy_other_files(const std::string& from, const std::string& to) {
  std::error_code error;
  std::vector<fs::path> files;
  for (fs::directory_iterator entry(from, error); !error && entry != fs::directory_iterator(); entry.increment(error)) {
    if (entry->is_regular_file(error) && is_copied(entry->path())) files.push_back(entry->path());
  }
  if (error) return io_error("{}: cannot be read: {}", from, error.message());
  for (const fs::path& file : files) OCTAVO_RETURN_IF_ERROR(copy_file(file.string(), to + "/" + file.filename().string()));
  // The one folder that belongs to a tokenizer.
  const std::string templates = "additional_chat_templates";
  if (!fs::is_directory(from + "/" + templates, error) || from.ends_with("/" + templates)) return {};
  if (!fs::create_directory(to + "/" + templates, error)) {
    return io_error("{}/{}: cannot be created: {}", to, templates, error.message());
  }
  OCTAVO_RETURN_IF_ERROR(copy_other_files(from + "/" + templates, to + "/" + templates));
  return sync_directory(to + "/" + templates);
}

}  // namespace

Result<QuantizationReport> quantize_checkpoint(const Checkpoint& source, const QuantizationPlan& plan,
                                               const std::string& destination, const QuantizeCheckpointOptions& options,
                                               Parallel& parallel) {
  OCTAVO_ASSIGN_OR_RETURN(Json config, read_model_config(source.path()));
  Run run(source, plan, options, parallel);
  OCTAVO_RETURN_IF_ERROR(run.prepare());
  OCTAVO_ASSIGN_OR_RETURN(Destination target, Destination::create(destination, options.replace, source.path()));
  const std::string& directory = target.directory();
  OCTAVO_RETURN_IF_ERROR(copy_other_files(source.path(), directory));
  OCTAVO_RETURN_IF_ERROR(run.write_shards(directory));

  if (source.files().size() > 1 || source.files().front().name != "model.safetensors") {
    const Json index = {{"metadata", {{"total_size", run.tensor_bytes()}}}, {"weight_map", run.weight_map()}};
    OCTAVO_RETURN_IF_ERROR(write_file(directory + "/model.safetensors.index.json", to_text(index)));
  }
  config["quantization_config"] = quantization_config(plan.layers);
  OCTAVO_RETURN_IF_ERROR(write_file(directory + "/config.json", to_text(config)));
  OCTAVO_RETURN_IF_ERROR(write_file(directory + "/octavo.json", to_text(octavo_json(source, plan, options, run.report()))));
  OCTAVO_RETURN_IF_ERROR(target.publish());
  return run.take_report();
}

}  // namespace octavo
