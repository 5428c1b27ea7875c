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
        unit_(format.num_bits <= 4 ? 8 : 4),
        offset_(!format.symmetric      ? 0
                : format.num_bits <= 4 ? 8
                                       : 128),
        groups_(format.groups(K)),
        length_(format.group_size > 0 ? std::min(format.group_size, K) : K),
        last_length_(K - (groups_ - 1) * length_),
        steps_((length_ + unit_ - 1) / unit_),
        last_steps_((last_length_ + unit_ - 1) / unit_),
        group_bytes_(steps_ * kStepBytes + kBlockChannels * (format.symmetric ? 4 : 5)),
        block_bytes_((groups_ - 1) * group_bytes_ + group_bytes_ - (steps_ - last_steps_) * kStepBytes) {}

  std::int64_t blocks() const { return (N_ + kBlockChannels - 1) / kBlockChannels; }
  // Channels of block b: 64, or fewer in the last.
  std::int64_t channels(std::int64_t b) const { return std::min(kBlockChannels, N_ - b * kBlockChannels); }

  std::int64_t unit() const { return unit_; }  // neighbours in a dword
  int offset() const { return offset_; }       // what is stored is q + offset
  std::int64_t groups() const { return groups_; }
  std::int64_t first_k(std::int64_t g) const { return g * length_; }
  std::int64_t length(std::int64_t g) const { return g + 1 < groups_ ? length_ : last_length_; }
  // Dwords of a channel: in group g, before it, in all.
  std::int64_t steps(std::int64_t g) const { return g + 1 < groups_ ? steps_ : last_steps_; }
  std::int64_t first_step(std::int64_t g) const { return g * steps_; }
  std::int64_t steps() const { return (groups_ - 1) * steps_ + last_steps_; }

  std::int64_t group_bytes() const { return group_bytes_; }  // of any but the last
  std::int64_t block_bytes() const { return block_bytes_; }
  std::int64_t bytes() const { return blocks() * block_bytes_; }

  // Byte offsets of group g of block b: its integers, scales and zero points.
  std::int64_t integers(std::int64_t b, std::int64_t g) const { return b * block_bytes_ + g * group_bytes_; }
  std::int64_t scales(std::int64_t b, std::int64_t g) const { return integers(b, g) + steps(g) * kStepBytes; }
  std::int64_t zero_points(std::int64_t b, std::int64_t g) const { return scales(b, g) + kBlockChannels * 4; }

 private:
  std::int64_t N_, unit_;
  int offset_;
  std::int64_t groups_, length_, last_length_, steps_, last_steps_, group_bytes_, block_bytes_;
};

// Whether a packed weight's buffer fits its description.
Status check_packed(const PackedWeight& w);

}  // namespace octavo
