#include "checkpoint/weight_job.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/half.h"
#include "core/macros.h"
#include "quantize/check.h"

namespace octavo {
namespace {

// A unit and its results stay in a core's second-level cache.
constexpr std::int64_t kUnitBytes = std::int64_t{512} << 10;
// So many zero points along N fill whole words, whatever their bits.
constexpr std::int64_t kRowMultiple = 32;

std::span<const std::byte> bytes_of(const void* data, std::int64_t bytes) {
  return {static_cast<const std::byte*>(data), static_cast<std::size_t>(bytes)};
}

// The values are already rounded to the type, so this is exact.
void store_scales(const float* scales, std::int64_t count, DType dtype, std::byte* out) {
  visit_float(dtype, [&](auto type) {
    using T = decltype(type);
    for (std::int64_t i = 0; i < count; ++i) {
      const T value = from_float<T>(scales[i]);
      std::memcpy(out + i * static_cast<std::int64_t>(sizeof(T)), &value, sizeof(T));
    }
  });
}

}  // namespace

struct WeightJob::Buffers {
  std::byte* input;          // [rows, K] of the source's type
  std::byte* integers;       // rows as stored
  std::uint8_t* values;      // [rows, K], one a byte, where the stored layout is not one that quantize() writes
  float* scale;              // [rows, G]
  std::byte* stored_scale;   // the same in its stored type
  std::uint8_t* zero_point;  // [rows, G]
  std::uint32_t* packed_zero_point;
};

WeightJob::WeightJob(const Checkpoint& source, const TensorInfo& tensor, const LayerPlan& layer,
                     const QuantizeCheckpointOptions& options)
    : source_(source),
      tensor_(tensor),
      dtype_(*dtype_of(tensor)),
      stored_{*layer.scheme, layer.scale_dtype, tensor.shape[0], tensor.shape[1]},
      options_{options.clip, options.percentile, layer.scale_dtype, std::nullopt} {
  const std::int64_t rows_of_unit = kUnitBytes / row_bytes(dtype_, stored_.K) / kRowMultiple * kRowMultiple;
  unit_rows_ = std::max(kRowMultiple, rows_of_unit);
  sums_.resize(static_cast<std::size_t>(units()));
  if (needs_range()) ranges_.resize(static_cast<std::size_t>(units()));
}

WeightJob::Rows WeightJob::rows(std::int64_t unit) const {
  const std::int64_t begin = unit * unit_rows_;
  return {begin, std::min(unit_rows_, stored_.N - begin)};
}

std::uint64_t WeightJob::unit_bytes(std::int64_t unit) const {
  return static_cast<std::uint64_t>(rows(unit).count * row_bytes(dtype_, stored_.K));
}

WeightJob::Buffers WeightJob::carve(Arena& arena, std::int64_t count) const {
  const auto rows = static_cast<std::size_t>(count);
  const auto scales = rows * static_cast<std::size_t>(stored_.groups());
  const bool one_a_byte = stored_.bits() != 4 && stored_.bits() != 8;
  const std::size_t zero_points = stored_.scheme.weight.symmetric ? 0 : scales;
  Buffers buffers{};
  buffers.input = arena.take<std::byte>(rows * static_cast<std::size_t>(row_bytes(dtype_, stored_.K)));
  buffers.integers = arena.take<std::byte>(rows * static_cast<std::size_t>(stored_.row_bytes()));
  buffers.values = arena.take<std::uint8_t>(one_a_byte ? rows * static_cast<std::size_t>(stored_.K) : 0);
  buffers.scale = arena.take<float>(scales);
  buffers.stored_scale = arena.take<std::byte>(scales * sizeof(float));
  buffers.zero_point = arena.take<std::uint8_t>(zero_points);
  buffers.packed_zero_point = arena.take<std::uint32_t>(zero_points);
  return buffers;
}

std::size_t WeightJob::scratch_bytes() const {
  Arena counting;
  carve(counting, rows(0).count);
  return counting.used();
}

Status WeightJob::read(Rows rows, std::byte* out) const {
  const std::int64_t stride = row_bytes(dtype_, stored_.K);
  return source_.read(tensor_, static_cast<std::uint64_t>(rows.begin * stride),
                      {out, static_cast<std::size_t>(rows.count * stride)});
}

// Says where in the whole tensor a part of it could not be quantized.
Status WeightJob::explain(const Status& status, Rows rows, const MatrixView& w) const {
  for (std::int64_t n = 0; n < w.rows; ++n) {
    const Status bad = not_finite(w, n, rows.begin);
    if (bad.ok()) continue;
    return data_loss("{}: tensor '{}': {}", source_.files()[tensor_.file].name, tensor_.name, bad.message());
  }
  std::string advice;
  if (options_.scale_dtype == DType::kFloat16) advice = "; use --scale-dtype float32 or bfloat16";
  return {status.code(), format_text("tensor '{}', rows {} to {}: {}{}", tensor_.name, rows.begin,
                                     rows.begin + rows.count - 1, status.message(), advice)};
}

Status WeightJob::measure_range(std::int64_t unit, Arena& arena) {
  const Rows part = rows(unit);
  const Buffers buffers = carve(arena, part.count);
  OCTAVO_RETURN_IF_ERROR(read(part, buffers.input));
  const MatrixView w(buffers.input, dtype_, part.count, stored_.K);
  auto range = range_of(w, serial());
  if (!range.ok()) return explain(range.status(), part, w);
  ranges_[static_cast<std::size_t>(unit)] = *range;
  return {};
}

void WeightJob::range_is_complete() {
  Range all;
  for (const Range& range : ranges_) {
    all.lo = std::min(all.lo, range.lo);
    all.hi = std::max(all.hi, range.hi);
  }
  options_.tensor_range = all;
}

void WeightJob::set_output(const File& file, const SafetensorsLayout& layout, const std::string& module) {
  output_ = &file;
  const auto offset = [&](std::string_view suffix) {
    const auto found = layout.offsets.find(module + std::string(suffix));
    return found == layout.offsets.end() ? 0 : found->second;
  };
  integers_offset_ = offset(stored_.integers_suffix());
  scale_offset_ = offset(".weight_scale");
  zero_point_offset_ = offset(".weight_zero_point");
  shape_offset_ = offset(".weight_shape");
}

Status WeightJob::write_shape() const {
  if (!stored_.packed()) return {};
  const std::int64_t shape[] = {stored_.N, stored_.K};
  return output_->write(shape_offset_, bytes_of(shape, sizeof shape));
}

Status WeightJob::quantize(std::int64_t unit, Arena& arena) {
  const Rows part = rows(unit);
  const Buffers buffers = carve(arena, part.count);
  OCTAVO_RETURN_IF_ERROR(read(part, buffers.input));
  const MatrixView w(buffers.input, dtype_, part.count, stored_.K);

  const WeightFormat& format = stored_.scheme.weight;
  const std::int64_t stride = stored_.row_bytes();
  const auto total = static_cast<std::size_t>(part.count * stride);
  const bool whole_tensor = format.group_size == kPerTensor;
  MutableQuantizedWeight q;
  q.format = format;
  if (buffers.values != nullptr && stored_.bits() != 4 && stored_.bits() != 8) {
    q.q = {buffers.values, storage_dtype(format, false), part.count, stored_.K};
  } else {
    std::memset(buffers.integers, 0, total);  // the padding of rows
    q.q = {buffers.integers, storage_dtype(format, stored_.bits() == 4), part.count, stored_.K, stride};
  }
  const std::int64_t scale_rows = whole_tensor ? 1 : part.count;
  q.scale = {buffers.scale, DType::kFloat32, scale_rows, stored_.groups()};
  if (!format.symmetric) q.zero_point = {buffers.zero_point, DType::kUInt8, scale_rows, stored_.groups()};

  if (Status status = octavo::quantize(w, options_, q, serial()); !status.ok()) return explain(status, part, w);
  OCTAVO_ASSIGN_OR_RETURN(sums_[static_cast<std::size_t>(unit)], error_sums(w, as_const(q), serial()));

  if (q.q.data == buffers.values) {
    const auto offset = static_cast<std::uint8_t>(format.symmetric ? 1 << (stored_.bits() - 1) : 0);
    const std::int64_t count = part.count * stored_.K;
    for (std::int64_t i = 0; i < count; ++i) buffers.values[i] = static_cast<std::uint8_t>(buffers.values[i] + offset);
    pack_rows(buffers.values, part.count, stored_.K, stored_.bits(), buffers.integers, stride);
  } else if (stored_.bits() == 8 && stored_.packed() && format.symmetric) {
    // q + 128, and back to zero in the padding.
    for (std::size_t i = 0; i < total; ++i) buffers.integers[i] ^= std::byte{0x80};
    if (stride != stored_.K) {
      for (std::int64_t r = 0; r < part.count; ++r) {
        std::fill(buffers.integers + r * stride + stored_.K, buffers.integers + (r + 1) * stride, std::byte{0});
      }
    }
  } else if (stored_.bits() == 4 && stored_.K % 2 != 0) {
    for (std::int64_t r = 0; r < part.count; ++r) buffers.integers[r * stride + stored_.K / 2] &= std::byte{0x0f};
  }
  if (whole_tensor) {
    std::fill_n(buffers.scale, part.count, buffers.scale[0]);
    if (!format.symmetric) std::fill_n(buffers.zero_point, part.count, buffers.zero_point[0]);
  }
  return write(part, buffers);
}

Status WeightJob::write(Rows part, const Buffers& buffers) const {
  const auto write_at = [&](std::uint64_t base, std::int64_t offset, const void* data, std::int64_t bytes) {
    return output_->write(base + static_cast<std::uint64_t>(offset), bytes_of(data, bytes))
        .with_context(format_text("tensor '{}'", tensor_.name));
  };
  const std::int64_t stride = stored_.row_bytes();
  OCTAVO_RETURN_IF_ERROR(write_at(integers_offset_, part.begin * stride, buffers.integers, part.count * stride));

  const std::int64_t scale_rows = stored_.one_scale() ? (part.begin == 0 ? 1 : 0) : part.count;
  const std::int64_t scale_stride = stored_.scale_row_bytes();
  store_scales(buffers.scale, scale_rows * stored_.groups(), stored_.scale_dtype, buffers.stored_scale);
  OCTAVO_RETURN_IF_ERROR(
      write_at(scale_offset_, part.begin * scale_stride, buffers.stored_scale, scale_rows * scale_stride));

  if (stored_.scheme.weight.symmetric) return {};
  pack_columns(buffers.zero_point, part.count, stored_.groups(), stored_.bits(), buffers.packed_zero_point);
  const std::int64_t word_row = stored_.groups() * 4;
  return write_at(zero_point_offset_, part.begin * stored_.bits() / 32 * word_row, buffers.packed_zero_point,
                  (part.count * stored_.bits() + 31) / 32 * word_row);
}

TensorReport WeightJob::report() const {
  ErrorSums sums;
  for (const ErrorSums& part : sums_) sums.add(part);
  return {tensor_.name, stored_.scheme, snr_db(sums), sums.max_absolute_error};
}

}  // namespace octavo
