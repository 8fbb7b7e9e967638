// Working memory that each thread keeps from call to call, and the division of work among threads.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdlib>

#include "vector.h"

namespace sepnet {

class Arena {
 public:
  ~Arena() { std::free(base_); }
  // Start anew with room for `bytes`; what was there is lost.
  void reserve(int64_t bytes) {
    used_ = 0;
    if (bytes <= size_) return;
    std::free(base_);
    size_ = (bytes + 4095) / 4096 * 4096;
    base_ = static_cast<char*>(std::aligned_alloc(4096, size_));
    if (!base_) std::abort();
  }
  template <class T>
  T* take(int64_t count) {
    T* start = reinterpret_cast<T*>(base_ + used_);
    used_ += room<T>(count);
    return start;
  }
  template <class T>
  static int64_t room(int64_t count) {
    return (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
  }

 private:
  char* base_ = nullptr;
  int64_t size_ = 0, used_ = 0;
};

inline Arena& own_arena() {
  static thread_local Arena arena;
  return arena;
}
inline Arena& shared_arena() {
  static thread_local Arena arena;
  return arena;
}

// Memory that will be read soon, fetched into the second cache a few lines at a time while something else is computed.
class Ahead {
 public:
  void add(const void* from, int64_t bytes) {
    if (!from || bytes <= 0 || count_ == ROOM) return;
    next_[count_] = static_cast<const char*>(from);
    left_[count_++] = bytes;
    total_ += bytes;
  }
  // Divide what was added among `steps` calls of step().
  void spread(int64_t steps) { lines_ = steps > 0 ? total_ / LINE / steps + 1 : 0; }
  void step() {
    int64_t lines = lines_;
    while (lines > 0 && current_ < count_) {
      __builtin_prefetch(next_[current_], 0, 2);
      next_[current_] += LINE;
      left_[current_] -= LINE;
      if (left_[current_] <= 0) current_++;
      lines--;
    }
  }

 private:
  static constexpr int64_t ROOM = 4, LINE = 64;
  const char* next_[ROOM];
  int64_t left_[ROOM], total_ = 0, lines_ = 0;
  int count_ = 0, current_ = 0;
};

// Work is cut into parts that do not depend on the number of threads, and each part sums on its own: so sums come
// out the same, bit for bit, whichever thread takes which part and however many there are.
constexpr int64_t PARTS = 16;

inline int64_t parts_of(int64_t count) { return count < 1 ? 1 : count < PARTS ? count : PARTS; }

// Call work(part, first, last) for every part of `count`; a thread that is done early takes the next part.
template <class Work>
inline void share_out(int64_t count, int64_t threads, Work&& work) {
  const int64_t parts = parts_of(count);
#pragma omp parallel for schedule(dynamic, 1) num_threads(static_cast<int>(std::min(threads, parts)))
  for (int64_t part = 0; part < parts; part++) work(part, count * part / parts, count * (part + 1) / parts);
}

// Add the other parts' sums to the first's.
template <class Number>
inline void add_parts(Number* sums, int64_t parts, int64_t length) {
  for (int64_t part = 1; part < parts; part++)
    for (int64_t i = 0; i < length; i++) sums[i] += sums[part * length + i];
}

}  // namespace sepnet
