#include "gemm/layout.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <array>
#include <cstring>
#include <vector>

#include "core/cpu_features.h"
#include "core/error.h"
#include "core/macros.h"
#include "gemm/cpu/pack_avx2.h"
#include "quantize/check.h"
#include "quantize/rows.h"

namespace octavo {
namespace {

constexpr std::int64_t kTileSteps = 16;  // 4 KiB of output, written while it is in the first-level cache

Status check_shape(Layout layout, const WeightFormat& format, std::int64_t N, std::int64_t K) {
  if (layout != Layout::kBlock64) return invalid("{} is no packed layout", to_string(layout));
  if (N < 1 || K < 1) return invalid("a weight of [{}, {}] has nothing to pack", N, K);
  if (format.num_bits < 2 || format.num_bits > 8 || format.group_size < kPerChannel) {
    return invalid("{} bits with group_size {} is no weight format", format.num_bits, format.group_size);
  }
  return {};
}

template <class Byte>
Status check_buffer(const BasicPackedWeight<Byte>& w) {
  OCTAVO_RETURN_IF_ERROR(check_shape(w.layout, w.format, w.N, w.K));
  const std::int64_t bytes = Block64(w.format, w.N, w.K).bytes();
  if (static_cast<std::int64_t>(w.data.size()) != bytes) {
    return invalid("the packed weight has {} bytes; [{}, {}] in {} takes {}", w.data.size(), w.N, w.K, to_string(w.layout),
                   bytes);
  }
  const auto address = reinterpret_cast<std::uintptr_t>(w.data.data());
  if (address % kPackedAlignment != 0) {
    return invalid("the packed weight's buffer is at an address that {} does not divide", kPackedAlignment);
  }
  return {};
}

template <class Matrix, class Byte>
Status check_pair(const BasicQuantizedWeight<Matrix>& w, const BasicPackedWeight<Byte>& packed) {
  if (w.q.rows != packed.N || w.q.cols != packed.K || !(w.format == packed.format)) {
    return invalid("the packed weight is [{}, {}] with {} bits and group_size {}, the other [{}, {}] with {} and {}",
                   packed.N, packed.K, packed.format.num_bits, packed.format.group_size, w.q.rows, w.q.cols,
                   w.format.num_bits, w.format.group_size);
  }
  return {};
}

// Pages that the processor finds with fewer look-ups; a hint, so its failure means nothing.
void ask_for_huge_pages(std::span<std::byte> data) {
#if defined(__linux__)
  constexpr std::uintptr_t kHugePage = std::uintptr_t{2} << 20;
  const auto begin = (reinterpret_cast<std::uintptr_t>(data.data()) + kHugePage - 1) / kHugePage * kHugePage;
  const auto end = reinterpret_cast<std::uintptr_t>(data.data() + data.size()) / kHugePage * kHugePage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // NOLINT(performance-no-int-to-ptr)
#else
  (void)data;
#endif
}

// The dwords of one channel and group, and back. Buffers hold whole dwords.
class RowDwords {
 public:
  RowDwords(const WeightFormat& format, DType stored, std::int64_t K)
      : nibbles_(format.num_bits <= 4),
        stored_nibbles_(bits_of(stored) == 4),
        offset_(format.symmetric ? 8 : 0),
        flip_(format.symmetric ? 0x80808080u : 0) {
    if (nibbles_) row_.resize(static_cast<std::size_t>(K));
  }

  // Dwords of elements [k, k + count) of a row. False where an integer has more bits than a dword has for it.
  bool read(const std::uint8_t* row, std::int64_t k, std::int64_t count, std::uint32_t* dwords) {
    if (!nibbles_) {
      copy_padded(row + k, count, dwords);
      for (std::int64_t i = 0; i < count; i += 4) dwords[i / 4] ^= flip_;
    } else if (stored_nibbles_ && k % 2 == 0) {
      copy_padded(row + k / 2, (count + 1) / 2, dwords);
      if (count % 2 != 0) dwords[count / 8] &= (std::uint32_t{1} << (count % 8 * 4)) - 1;
    } else {
      const std::uint8_t* integers = row + k;
      if (stored_nibbles_) {
        unpack_row_int4(row, k, count, offset_, row_.data());
        integers = row_.data();
      }
      dwords[(count - 1) / 8] = 0;
      return pack_row_int4(integers, count, offset_, reinterpret_cast<std::uint8_t*>(dwords));
    }
    return true;
  }

  // The inverse, which may change the dwords. Of a row stored two a byte, groups come in ascending order of k.
  void write(std::uint32_t* dwords, std::int64_t k, std::int64_t count, std::uint8_t* row) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(dwords);
    if (!nibbles_) {
      for (std::int64_t i = 0; i < count; i += 4) dwords[i / 4] ^= flip_;
      std::copy_n(bytes, count, row + k);
    } else if (!stored_nibbles_) {
      unpack_row_int4(bytes, 0, count, offset_, row + k);
    } else if (k % 2 == 0) {
      std::copy_n(bytes, (count + 1) / 2, row + k / 2);
    } else {
      unpack_row_int4(bytes, 0, count, offset_, row_.data());
      row[k / 2] = static_cast<std::uint8_t>((row[k / 2] & 0xf) | ((row_[0] + offset_) << 4));
      if (count > 1) pack_row_int4(row_.data() + 1, count - 1, offset_, row + k / 2 + 1);
    }
  }

 private:
  static void copy_padded(const std::uint8_t* from, std::int64_t bytes, std::uint32_t* dwords) {
    dwords[(bytes - 1) / 4] = 0;
    std::memcpy(dwords, from, static_cast<std::size_t>(bytes));
  }

  bool nibbles_;
  bool stored_nibbles_;
  int offset_;          // of nibbles
  std::uint32_t flip_;  // of bytes, + 128 is the uppermost bit flipped
  std::vector<std::uint8_t> row_;
};

// Scales and zero points of group g, where a scale per tensor counts for every channel.
void pack_parameters(const QuantizedWeight& w, const Block64& shape, std::int64_t b, std::int64_t g, std::byte* data,
                     FirstRow& bad) {
  const auto highest = static_cast<float>(w.format.qmax());
  auto* scale = reinterpret_cast<float*>(data + shape.scales(b, g));
  auto* zero_point = reinterpret_cast<std::uint8_t*>(data + shape.zero_points(b, g));
  for (std::int64_t c = 0; c < kBlockChannels; ++c) {
    const bool inside = c < shape.channels(b);
    const ScaleZero s = inside ? scale_zero(w, b * kBlockChannels + c, g) : ScaleZero{0, 0};
    scale[c] = s.scale;
    if (w.format.symmetric) continue;
    zero_point[c] = static_cast<std::uint8_t>(s.zero_point);
    if (s.zero_point > highest) bad.report(b * kBlockChannels + c);
  }
}

// Steps [begin, steps) of channels [first, last) in group g of block b, by the plain loops.
struct Region {
  std::int64_t b, g, first, last, begin;
};

void pack_region(const QuantizedWeight& w, const Block64& shape, const Region& r, std::byte* data, FirstRow& bad) {
  RowDwords row_dwords(w.format, w.q.dtype, w.q.cols);
  std::array<std::uint32_t, kTileSteps> dwords;
  auto* out = reinterpret_cast<std::uint32_t*>(data + shape.integers(r.b, r.g));
  for (std::int64_t step = r.begin; step < shape.steps(r.g); step += kTileSteps) {
    const std::int64_t k = step * shape.unit();
    const std::int64_t count = std::min(kTileSteps * shape.unit(), shape.length(r.g) - k);
    const std::int64_t steps = std::min(kTileSteps, shape.steps(r.g) - step);
    std::uint32_t* tile = out + step * kBlockChannels;
    for (std::int64_t c = r.first; c < r.last; ++c) {
      if (c < shape.channels(r.b)) {
        const std::int64_t n = r.b * kBlockChannels + c;
        if (!row_dwords.read(w.q.row<std::uint8_t>(n), shape.first_k(r.g) + k, count, dwords.data())) bad.report(n);
      } else {
        dwords.fill(0);
      }
      for (std::int64_t s = 0; s < steps; ++s) tile[s * kBlockChannels + c] = dwords[static_cast<std::size_t>(s)];
    }
  }
}

#if defined(__x86_64__)
// Whole dwords of rows that lie as they are packed, sixteen channels at a time. Returns how many steps that makes.
std::int64_t pack_bulk(const QuantizedWeight& w, const Block64& shape, std::int64_t b, std::int64_t g, std::int64_t first,
                       std::byte* data) {
  const bool nibbles = shape.unit() == 8;
  const bool stored_nibbles = bits_of(w.q.dtype) == 4;
  const std::int64_t k = shape.first_k(g);
  if (!cpu_features().avx2 || first + kPackChannels > shape.channels(b)) return 0;
  if (nibbles != stored_nibbles || (nibbles && k % 2 != 0)) return 0;
  const std::int64_t steps = shape.length(g) / shape.unit() / kPackSteps * kPackSteps;
  const std::uint8_t* row = w.q.row<std::uint8_t>(b * kBlockChannels + first) + (nibbles ? k / 2 : k);
  auto* out = reinterpret_cast<std::uint8_t*>(data + shape.integers(b, g)) + first * 4;
  pack_dwords_avx2(row, w.q.stride, steps, !nibbles && w.format.symmetric ? 0x80808080u : 0, out);
  return steps;
}
#else
std::int64_t pack_bulk(const QuantizedWeight&, const Block64&, std::int64_t, std::int64_t, std::int64_t, std::byte*) {
  return 0;
}
void finish_packing_avx2() {}
#endif

void pack_block(const QuantizedWeight& w, const Block64& shape, std::int64_t b, std::byte* data, FirstRow& bad) {
  for (std::int64_t first = 0; first < kBlockChannels; first += kPackChannels) {
    for (std::int64_t g = 0; g < shape.groups(); ++g) {
      const std::int64_t done = pack_bulk(w, shape, b, g, first, data);
      if (done < shape.steps(g)) pack_region(w, shape, {b, g, first, first + kPackChannels, done}, data, bad);
    }
  }
  for (std::int64_t g = 0; g < shape.groups(); ++g) pack_parameters(w, shape, b, g, data, bad);
}

// What keeps row n from being packed.
Status refuse_row(const QuantizedWeight& w, std::int64_t n) {
  OCTAVO_RETURN_IF_ERROR(check_zero_points(w, n));
  return check_row_int4(w.q, n);
}

void unpack_block(const PackedWeight& w, const Block64& shape, std::int64_t b, const MutableQuantizedWeight& out) {
  RowDwords row_dwords(w.format, out.q.dtype, w.K);
  std::array<std::uint32_t, kTileSteps> dwords;
  for (std::int64_t g = 0; g < shape.groups(); ++g) {
    const auto* in = reinterpret_cast<const std::uint32_t*>(w.data.data() + shape.integers(b, g));
    for (std::int64_t step = 0; step < shape.steps(g); step += kTileSteps) {
      const std::int64_t k = step * shape.unit();
      const std::int64_t count = std::min(kTileSteps * shape.unit(), shape.length(g) - k);
      const std::int64_t steps = std::min(kTileSteps, shape.steps(g) - step);
      const std::uint32_t* tile = in + step * kBlockChannels;
      for (std::int64_t c = 0; c < shape.channels(b); ++c) {
        for (std::int64_t s = 0; s < steps; ++s) dwords[static_cast<std::size_t>(s)] = tile[s * kBlockChannels + c];
        row_dwords.write(dwords.data(), shape.first_k(g) + k, count, out.q.row<std::uint8_t>(b * kBlockChannels + c));
      }
    }
    const auto* scale = reinterpret_cast<const float*>(w.data.data() + shape.scales(b, g));
    const auto* zero_point = reinterpret_cast<const std::uint8_t*>(w.data.data() + shape.zero_points(b, g));
    for (std::int64_t c = 0; c < shape.channels(b); ++c) {
      const std::int64_t n = b * kBlockChannels + c;
      if (n > 0 && w.format.group_size == kPerTensor) break;
      out.scale.row<float>(n)[g] = scale[c];
      if (!w.format.symmetric) out.zero_point.row<std::uint8_t>(n)[g] = zero_point[c];
    }
  }
}

}  // namespace

std::string_view to_string(Layout layout) { return layout == Layout::kRowMajor ? "row-major" : "block64"; }

Status check_packed(const PackedWeight& w) { return check_buffer(w); }

Result<std::int64_t> packed_bytes(Layout layout, const WeightFormat& format, std::int64_t N, std::int64_t K) {
  OCTAVO_RETURN_IF_ERROR(check_shape(layout, format, N, K));
  return Block64(format, N, K).bytes();
}

Status pack(const QuantizedWeight& w, const MutablePackedWeight& out, Parallel& parallel) {
  OCTAVO_RETURN_IF_ERROR(check_weight(w));
  OCTAVO_RETURN_IF_ERROR(check_buffer(out));
  OCTAVO_RETURN_IF_ERROR(check_pair(w, out));
  ask_for_huge_pages(out.data);
  const Block64 shape(out.format, out.N, out.K);
  FirstRow bad;
  parallel.run(0, shape.blocks(), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) pack_block(w, shape, b, out.data.data(), bad);
    finish_packing_avx2();
  });
  return bad.get() == kNoRow ? Status() : refuse_row(w, bad.get());
}

Status unpack(const PackedWeight& w, const MutableQuantizedWeight& out, Parallel& parallel) {
  OCTAVO_RETURN_IF_ERROR(check_packed(w));
  OCTAVO_RETURN_IF_ERROR(check_weight(as_const(out)));
  OCTAVO_RETURN_IF_ERROR(check_pair(out, w));
  const Block64 shape(w.format, w.N, w.K);
  parallel.run(0, shape.blocks(), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) unpack_block(w, shape, b, out);
  });
  return {};
}

}  // namespace octavo
