// Quantizing one weight from file to file, in units of rows.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "checkpoint/arena.h"
#include "checkpoint/compressed_tensors.h"
#include "checkpoint/file.h"
#include "octavo/checkpoint.h"
#include "octavo/quantize.h"

namespace octavo {

// A weight that is being quantized. Units are independent of each other, so any thread may take any; how a weight is cut
// depends on its shape alone, so sums over units, added in order, are the same bits whatever the threads and the memory.
class WeightJob {
 public:
  WeightJob(const Checkpoint& source, const TensorInfo& tensor, const LayerPlan& layer,
            const QuantizeCheckpointOptions& options);

  const StoredWeight& stored() const { return stored_; }
  std::int64_t units() const { return (stored_.N + unit_rows_ - 1) / unit_rows_; }
  std::uint64_t unit_bytes(std::int64_t unit) const;
  // One scale for all rows: the range must be known before the first is quantized.
  bool needs_range() const { return stored_.scheme.weight.group_size == kPerTensor; }
  // Scratch memory that any unit needs.
  std::size_t scratch_bytes() const;

  // The first pass, where it is needed; then range_is_complete().
  Status measure_range(std::int64_t unit, Arena& arena);
  void range_is_complete();

  // Where the module's tensors start in the output.
  void set_output(const File& file, const SafetensorsLayout& layout, const std::string& module);
  Status write_shape() const;
  Status quantize(std::int64_t unit, Arena& arena);

  TensorReport report() const;

 private:
  struct Buffers;
  struct Rows {
    std::int64_t begin;
    std::int64_t count;
  };
  Rows rows(std::int64_t unit) const;
  Buffers carve(Arena& arena, std::int64_t count) const;
  Status read(Rows rows, std::byte* out) const;
  Status explain(const Status& status, Rows rows, const MatrixView& w) const;
  Status write(Rows rows, const Buffers& buffers) const;

  const Checkpoint& source_;
  const TensorInfo& tensor_;
  DType dtype_;
  StoredWeight stored_;
  QuantizeOptions options_;
  std::int64_t unit_rows_;
  std::vector<ErrorSums> sums_;  // by unit
  std::vector<Range> ranges_;    // by unit
  const File* output_ = nullptr;
  std::uint64_t integers_offset_ = 0;
  std::uint64_t scale_offset_ = 0;
  std::uint64_t zero_point_offset_ = 0;
  std::uint64_t shape_offset_ = 0;
};

}  // namespace octavo
