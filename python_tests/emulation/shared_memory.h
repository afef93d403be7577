// A block's shared memory with a memory of its own: who wrote and who read each word, and when.
//
// Only barriers order the accesses of different threads. Between two barriers, therefore, no two
// threads may touch one word unless both only read it; and no word may be read that nobody wrote.
// Both are found whatever the order in which the threads happen to run.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace vaal::emulation {

class SharedMemory {
 public:
  // Fresh memory of a block about to start.
  void reset(int bytes) {
    bytes_.assign(bytes, 0);
    words_.assign((bytes + kWordBytes - 1) / kWordBytes, Word{});
    interval_ = 0;
  }

  void after_barrier() { ++interval_; }

  void read(int thread, int64_t at, void* to, int bytes) {
    check_range("a read", at, bytes);
    for_words(at, bytes, [&](Word& word, int64_t byte) {
      if (word.writer < 0) fail("a read of shared memory that nobody wrote", byte);
      if (word.written == interval_ && word.writer != thread)
        race("reads", thread, "wrote", word.writer, byte);
      if (word.read != interval_) word.reader = thread;
      else if (word.reader != thread) word.reader = kSeveral;
      word.read = interval_;
    });
    std::memcpy(to, bytes_.data() + at, bytes);
  }

  void write(int thread, int64_t at, const void* from, int bytes) {
    check_range("a write", at, bytes);
    for_words(at, bytes, [&](Word& word, int64_t byte) {
      if (word.writer >= 0 && word.written == interval_ && word.writer != thread)
        race("writes", thread, "wrote", word.writer, byte);
      if (word.read == interval_ && word.reader != thread)
        race("writes", thread, "read", word.reader, byte);
      word.writer = thread;
      word.written = interval_;
    });
    std::memcpy(bytes_.data() + at, from, bytes);
  }

 private:
  static constexpr int kWordBytes = 4, kSeveral = -2;

  struct Word {
    int writer = -1;   // who wrote last; -1: nobody yet
    int reader = -1;   // who read in the interval `read`
    int written = -1;  // in which interval between barriers
    int read = -1;
  };

  template <class F>
  void for_words(int64_t at, int bytes, F&& f) {
    for (int64_t word = at / kWordBytes; word * kWordBytes < at + bytes; ++word)
      f(words_[word], word * kWordBytes);
  }

  void check_range(const char* what, int64_t at, int bytes) const {
    if (at < 0 || at + bytes > static_cast<int64_t>(bytes_.size()))
      fail(std::string(what) + " outside of the shared memory", at);
  }

  [[noreturn]] static void fail(const std::string& what, int64_t byte) {
    throw std::runtime_error(what + ", byte " + std::to_string(byte));
  }
  [[noreturn]] static void race(const char* does, int thread, const char* did, int other,
                                int64_t byte) {
    fail("a race in shared memory: thread " + std::to_string(thread) + " " + does + " what " +
             (other == kSeveral ? "others" : "thread " + std::to_string(other)) + " " + did +
             " since the last barrier",
         byte);
  }

  std::vector<unsigned char> bytes_;
  std::vector<Word> words_;
  int interval_ = 0;
};

}  // namespace vaal::emulation
