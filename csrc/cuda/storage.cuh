// How the elements of a tensor lie in memory, and in what type one computes with them.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "cuda/device.cuh"
#include "cuda/storage_types.h"

namespace vaal {

VAAL_DEVICE float to_scalar(float value) { return value; }
VAAL_DEVICE double to_scalar(double value) { return value; }
VAAL_DEVICE float to_scalar(Half value) { return half_to_float(value.bits); }
VAAL_DEVICE float to_scalar(BFloat16 value) { return bits_to_float(uint32_t{value.bits} << 16); }

template <class T>
VAAL_DEVICE T from_scalar(Scalar<T> value) {
  if constexpr (std::is_same_v<T, Half>) return T{float_to_half(value)};
  else if constexpr (std::is_same_v<T, BFloat16>) return T{float_to_bfloat16(value)};
  else return value;
}

// Element i of a pack. i is known when the loop around is unrolled: no local memory.
template <class T>
VAAL_DEVICE T unpack(const Pack& pack, int i) {
  if constexpr (sizeof(T) == 2) return T{static_cast<uint16_t>(pack.word[i / 2] >> (i % 2 * 16))};
  else if constexpr (sizeof(T) == 4) return bits_to_float(pack.word[i]);
  else return bits_to_double(pack.word[2 * i], pack.word[2 * i + 1]);
}

template <class T>
VAAL_DEVICE void put(Pack& pack, int i, T value) {
  if constexpr (sizeof(T) == 2) {
    const uint32_t shift = i % 2 * 16;
    pack.word[i / 2] = (pack.word[i / 2] & ~(0xFFFFu << shift)) | uint32_t{value.bits} << shift;
  } else if constexpr (sizeof(T) == 4) {
    pack.word[i] = float_to_bits(value);
  } else {
    pack.word[2 * i] = low_bits(value);
    pack.word[2 * i + 1] = high_bits(value);
  }
}

// For loops that are not unrolled: takes item 0 out and moves the others down; moves all items
// down and puts one in the last place.
template <class T>
VAAL_DEVICE T take(Pack& pack) {
  constexpr int kWords = static_cast<int>(sizeof(T)) / 4;  // 0 for the half types
  const T item = unpack<T>(pack, 0);
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    if constexpr (kWords == 0)
      pack.word[w] = pack.word[w] >> 16 | (w < 3 ? pack.word[w + 1] << 16 : 0u);
    else pack.word[w] = w + kWords < 4 ? pack.word[w + kWords] : 0u;
  }
  return item;
}

template <class T>
VAAL_DEVICE void append(Pack& pack, T item) {
  take<T>(pack);
  put(pack, kPackItems<T> - 1, item);
}

template <class T>
VAAL_DEVICE Pack filled(Scalar<T> value) {
  Pack pack{};
#pragma unroll
  for (int i = 0; i < kPackItems<T>; ++i) put(pack, i, from_scalar<T>(value));
  return pack;
}

// Which columns of a row a thread holds, out of a group of `size` threads.
//
// Item i of the thread's pack c lies in column(c, i). Where every pointer and the row stride are
// multiples of 16 bytes (`whole`), a pack is 16 consecutive bytes; elsewhere its items are `size`
// columns apart, so that each of the scalar accesses is coalesced. Either way the columns of one
// thread ascend with (c, i), and pack c of all threads covers the columns [c, c + 1)·size·items.
template <class T>
struct Columns {
  int begin;      // first column of this thread
  int item_step;  // from one item to the next
  int pack_step;  // from one pack to the next
  int end;        // columns of the row (or of the part of it that this block works on)
  bool whole;

  VAAL_DEVICE Columns(int rank, int size, int columns, bool whole_packs)
      : begin(whole_packs ? rank * kPackItems<T> : rank),
        item_step(whole_packs ? 1 : size),
        pack_step(size * kPackItems<T>),
        end(columns),
        whole(whole_packs) {}

  VAAL_DEVICE int column(int c, int i) const { return begin + c * pack_step + i * item_step; }
  // Packs of the thread that holds the most.
  VAAL_DEVICE int packs() const { return (end + pack_step - 1) / pack_step; }

  // Columns past the end read as `blank`.
  VAAL_DEVICE Pack load(const T* row, int c, const Pack& blank) const {
    return whole ? load_whole(row, c, blank) : load_items(row, c, blank);
  }

  // Packs first … first + kPacks - 1. One branch for all of them, so that nothing stands between
  // the loads.
  template <int kPacks>
  VAAL_DEVICE void load(const T* row, int first, const Pack& blank, Pack (&packs)[kPacks]) const {
    if (whole) {
#pragma unroll
      for (int c = 0; c < kPacks; ++c) packs[c] = load_whole(row, first + c, blank);
    } else {
#pragma unroll
      for (int c = 0; c < kPacks; ++c) packs[c] = load_items(row, first + c, blank);
    }
  }

  VAAL_DEVICE void store(T* row, int c, const Pack& pack) const {
    if (whole) {
      if (column(c, 0) < end) store_pack(row + column(c, 0), pack);
      return;
    }
#pragma unroll
    for (int i = 0; i < kPackItems<T>; ++i)
      if (column(c, i) < end) row[column(c, i)] = unpack<T>(pack, i);
  }

 private:
  VAAL_DEVICE Pack load_whole(const T* row, int c, const Pack& blank) const {
    return column(c, 0) < end ? load_pack(row + column(c, 0)) : blank;
  }
  VAAL_DEVICE Pack load_items(const T* row, int c, const Pack& blank) const {
    Pack pack = blank;
#pragma unroll
    for (int i = 0; i < kPackItems<T>; ++i)
      if (column(c, i) < end) put(pack, i, load_one(row + column(c, i)));
    return pack;
  }
};

}  // namespace vaal
