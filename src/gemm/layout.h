// The packed layouts, stated once.
//
// kBlock64. A dword holds neighbours along K of one channel, the lowest k in the lowest bits: four integers of 5 to 8 bits,
// one a byte, or eight of up to 4 bits. They are unsigned: q of asymmetric formats, q + 128 or q + 8 of symmetric ones. A
// step is the dwords of 64 channels, 256 bytes. Steps of a group follow one another, then come its scales and zero points;
// then the next group; then the next 64 channels:
//
//   block 0, channels 0 … 63                                                        block 1, channels 64 … 127
//   group 0                                             group 1
//   | step 0            | step 1 | … | scale   | zero   | step 0 | … | scale | zero | …
//   | c0 c1 c2 …   c63  |        |   | 64 fp32 | 64 u8  |
//     └ k0 k1 k2 k3, or k0 … k7
//
// Four neighbours are what VPDPBUSD (unsigned · signed) and the AMX tiles multiply at once; floating-point kernels take a
// dword apart in a register. A group is padded to whole dwords, where x counts as 0; the last block with channels of scale
// 0; and a scale per tensor is stored for every channel. Zero points are there only in asymmetric formats.
#pragma once

#include <algorithm>
#include <cstdint>

#include "octavo/pack.h"

namespace octavo {

inline constexpr std::int64_t kBlockChannels = 64;
inline constexpr std::int64_t kStepBytes = kBlockChannels * 4;

// Where things are in a kBlock64 weight; N and K are at least 1.
class Block64 {
 public:
  Block64(const WeightFormat& format, std::int64_t N, std::int64_t K)
      : N_(N),
        K_(K),
        unit_(format.num_bits <= 4 ? 8 : 4),
        offset_(!format.symmetric      ? 0
                : format.num_bits <= 4 ? 8
                                       : 128),
        groups_(format.groups(K)),
        length_(format.group_size > 0 ? std::min(format.group_size, K) : K),
        parameter_bytes_(kBlockChannels * (4 + (format.symmetric ? 0 : 1))) {}

  std::int64_t blocks() const { return (N_ + kBlockChannels - 1) / kBlockChannels; }
  // Channels of block b: 64, or fewer in the last.
  std::int64_t channels(std::int64_t b) const { return std::min(kBlockChannels, N_ - b * kBlockChannels); }

  std::int64_t unit() const { return unit_; }  // neighbours in a dword
  int offset() const { return offset_; }       // what is stored is q + offset
  std::int64_t groups() const { return groups_; }
  std::int64_t first_k(std::int64_t g) const { return g * length_; }
  std::int64_t length(std::int64_t g) const { return std::min(length_, K_ - g * length_); }
  // Dwords of a channel: in group g, before it, in all.
  std::int64_t steps(std::int64_t g) const { return (length(g) + unit_ - 1) / unit_; }
  std::int64_t first_step(std::int64_t g) const { return g * ((length_ + unit_ - 1) / unit_); }
  std::int64_t steps() const { return first_step(groups_ - 1) + steps(groups_ - 1); }

  std::int64_t block_bytes() const { return steps() * kStepBytes + groups_ * parameter_bytes_; }
  std::int64_t bytes() const { return blocks() * block_bytes(); }

  // Byte offsets of group g of block b: its integers, scales and zero points.
  std::int64_t integers(std::int64_t b, std::int64_t g) const {
    return b * block_bytes() + first_step(g) * kStepBytes + g * parameter_bytes_;
  }
  std::int64_t scales(std::int64_t b, std::int64_t g) const { return integers(b, g) + steps(g) * kStepBytes; }
  std::int64_t zero_points(std::int64_t b, std::int64_t g) const { return scales(b, g) + kBlockChannels * 4; }

 private:
  std::int64_t N_, K_, unit_;
  int offset_;
  std::int64_t groups_, length_, parameter_bytes_;
};

// Whether a packed weight's buffer fits its description.
Status check_packed(const PackedWeight& w);

}  // namespace octavo
