// One block of a kernel on the CPU: every thread is a fibre, run until it waits for others.
//
// A fibre gives way at a barrier and at a shuffle only. The scheduler runs each fibre that can run,
// then completes what all the named lanes or threads have reached. What a GPU leaves undefined is
// an error here: a barrier that not all threads reach, a shuffle that names a lane which does not
// come (or comes with another mask), a misaligned 16-byte access, a write behind shared memory.
// Shared memory starts as NaN.
#pragma once

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define VAAL_SWITCH_BEGINS(save, stack, size) __sanitizer_start_switch_fiber(save, stack, size)
#define VAAL_SWITCH_ENDED(save, stack, size) __sanitizer_finish_switch_fiber(save, stack, size)
#else
#define VAAL_SWITCH_BEGINS(save, stack, size) (void)0
#define VAAL_SWITCH_ENDED(save, stack, size) (void)0
#endif

namespace vaal::emulation {

// In which order the threads of a block run: any order must give the same result. Forward and
// reverse let each warp run ahead as far as it gets, from the first or from the last on, which
// shows what is overwritten too early; shuffled goes from thread to thread at random.
enum class Order { kForward, kReverse, kShuffled };

class Block {
 public:
  // Runs body() once as each of `threads` threads. Throws std::runtime_error on an error.
  static void run(int64_t index, int64_t count, int threads, int shared_bytes, Order order,
                  const std::function<void()>& body) {
    Block& block = instance();
    block.index_ = index;
    block.count_ = count;
    block.body_ = &body;
    block.error_.clear();
    block.prepare(threads, shared_bytes);
    block.schedule(order);
  }

  static Block& instance() {
    static Block block;
    return block;
  }

  int64_t index() const { return index_; }
  int64_t count() const { return count_; }
  int thread() const { return current_; }
  int threads() const { return static_cast<int>(fibres_in_use_); }
  unsigned char* shared() { return shared_; }

  void barrier() { wait(State::kAtBarrier); }

  uint32_t shuffle_xor(uint32_t mask, uint32_t word, int flip) {
    Fibre& self = fibres_[current_];
    if ((mask >> (current_ % kWarp) & 1) == 0) fail("a shuffle whose mask leaves its own lane out");
    self.mask = mask;
    self.word = word;
    self.flip = flip;
    wait(State::kAtShuffle);
    return self.result;
  }

  // Ends the launch with an error, from inside a fibre.
  [[noreturn]] void fail(const std::string& message) {
    error_ = message + " (block " + std::to_string(index_) + ", thread " +
             std::to_string(current_) + ")";
    wait(State::kFailed);
    std::abort();  // the scheduler does not come back
  }

 private:
  static constexpr int kWarp = 32;
  static constexpr size_t kStackBytes = 256 * 1024;
  static constexpr int kGuardBytes = 64;

  enum class State { kReady, kAtBarrier, kAtShuffle, kDone, kFailed };

  struct Fibre {
    ucontext_t context;  // for the first entry only:
    jmp_buf place;       // a jump saves no signal mask and costs no system call
    bool started = false;
    void* stack = nullptr;
    void* sanitizer_stack = nullptr;
    State state = State::kReady;
    uint32_t mask = 0, word = 0, result = 0;
    int flip = 0;
  };

  static void enter() {
    Block& block = instance();
    VAAL_SWITCH_ENDED(nullptr, &block.main_stack_, &block.main_stack_bytes_);
    (*block.body_)();
    block.wait(State::kDone);
  }

  // Back to the scheduler until the state is kReady again.
  void wait(State state) {
    Fibre& self = fibres_[current_];
    self.state = state;
    VAAL_SWITCH_BEGINS(state == State::kDone ? nullptr : &self.sanitizer_stack, main_stack_,
                       main_stack_bytes_);
    if (_setjmp(self.place) == 0) _longjmp(scheduler_, 1);
    VAAL_SWITCH_ENDED(fibres_[current_].sanitizer_stack, &main_stack_, &main_stack_bytes_);
  }

  void resume(int thread) {
    current_ = thread;
    Fibre& fibre = fibres_[thread];
    VAAL_SWITCH_BEGINS(&main_sanitizer_stack_, fibre.stack, kStackBytes);
    if (_setjmp(scheduler_) == 0) {
      if (fibre.started) _longjmp(fibre.place, 1);
      fibre.started = true;
      setcontext(&fibre.context);
    }
    VAAL_SWITCH_ENDED(main_sanitizer_stack_, nullptr, nullptr);
  }

  void prepare(int threads, int shared_bytes) {
    fibres_in_use_ = static_cast<size_t>(threads);
    if (fibres_.size() < fibres_in_use_) fibres_.resize(fibres_in_use_);
    for (int t = 0; t < threads; ++t) {
      Fibre& fibre = fibres_[t];
      if (fibre.stack == nullptr) {
        fibre.stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (fibre.stack == MAP_FAILED) throw std::runtime_error("no memory for a fibre's stack");
      }
      getcontext(&fibre.context);
      fibre.context.uc_stack.ss_sp = fibre.stack;
      fibre.context.uc_stack.ss_size = kStackBytes;
      fibre.context.uc_link = nullptr;
      fibre.state = State::kReady;
      fibre.started = false;
      makecontext(&fibre.context, &Block::enter, 0);
    }
    std::free(shared_);
    shared_bytes_ = (shared_bytes + 15) / 16 * 16;
    shared_ = static_cast<unsigned char*>(std::aligned_alloc(16, shared_bytes_ + kGuardBytes));
    std::memset(shared_, 0xFF, shared_bytes_ + kGuardBytes);  // NaN in every type
  }

  void schedule(Order order) {
    const int threads = static_cast<int>(fibres_in_use_);
    std::vector<int> turns(threads);
    for (int t = 0; t < threads; ++t) turns[t] = order == Order::kReverse ? threads - 1 - t : t;
    std::mt19937 generator(12345);
    const int together = order == Order::kShuffled ? threads : kWarp;
    for (;;) {
      if (order == Order::kShuffled) std::shuffle(turns.begin(), turns.end(), generator);
      for (int first = 0; first < threads; first += together) {
        const int last = std::min(first + together, threads);
        do {
          for (int i = first; i < last; ++i) {
            if (fibres_[turns[i]].state == State::kReady) resume(turns[i]);
            if (!error_.empty()) throw std::runtime_error(error_);
          }
        } while (complete_shuffles(turns, first, last));
      }
      const int done = in_state(State::kDone), waiting = in_state(State::kAtBarrier);
      if (done == threads) break;
      if (waiting != threads) throw std::runtime_error(stuck(done, waiting));
      for (int t = 0; t < threads; ++t) fibres_[t].state = State::kReady;
    }
    for (int i = 0; i < kGuardBytes; ++i)
      if (shared_[shared_bytes_ + i] != 0xFF)
        throw std::runtime_error("a write behind the end of shared memory");
  }

  // Of the threads turns[first … last): shuffles whose named lanes are all there. False: none.
  bool complete_shuffles(const std::vector<int>& turns, int first, int last) {
    bool any = false;
    const int threads = static_cast<int>(fibres_in_use_);
    for (int i = first; i < last; ++i) {
      const int t = turns[i];
      if (fibres_[t].state != State::kAtShuffle) continue;
      const int warp = t / kWarp * kWarp;
      const uint32_t mask = fibres_[t].mask;
      bool all_here = true;
      for (int lane = 0; lane < kWarp && all_here; ++lane)
        if (mask >> lane & 1)
          all_here = warp + lane < threads && fibres_[warp + lane].state == State::kAtShuffle &&
                     fibres_[warp + lane].mask == mask &&
                     fibres_[warp + lane].flip == fibres_[t].flip;
      if (!all_here) continue;
      for (int lane = 0; lane < kWarp; ++lane) {
        if ((mask >> lane & 1) == 0) continue;
        Fibre& fibre = fibres_[warp + lane];
        const int source = lane ^ fibre.flip;
        if ((mask >> source & 1) == 0)
          throw std::runtime_error("a shuffle from a lane that its mask does not name");
        fibre.result = fibres_[warp + source].word;
        fibre.state = State::kReady;
      }
      any = true;
    }
    return any;
  }

  int in_state(State state) const {
    int n = 0;
    for (size_t t = 0; t < fibres_in_use_; ++t) n += fibres_[t].state == state;
    return n;
  }

  std::string stuck(int done, int at_barrier) const {
    const int threads = static_cast<int>(fibres_in_use_);
    const int at_shuffle = threads - done - at_barrier;
    if (at_shuffle > 0)
      return "a shuffle names lanes that do not come: " + std::to_string(at_shuffle) +
             " of " + std::to_string(threads) + " threads wait at shuffles, " +
             std::to_string(at_barrier) + " at a barrier, " + std::to_string(done) + " are done";
    return "a barrier that not all threads reach: " + std::to_string(at_barrier) + " of " +
           std::to_string(threads) + " threads wait there, " + std::to_string(done) + " are done";
  }

  int64_t index_ = 0, count_ = 0;
  int current_ = 0;
  const std::function<void()>* body_ = nullptr;
  std::string error_;
  std::vector<Fibre> fibres_;
  size_t fibres_in_use_ = 0;
  jmp_buf scheduler_;
  unsigned char* shared_ = nullptr;
  int shared_bytes_ = 0;
  [[maybe_unused]] const void* main_stack_ = nullptr;
  [[maybe_unused]] size_t main_stack_bytes_ = 0;
  [[maybe_unused]] void* main_sanitizer_stack_ = nullptr;
};

}  // namespace vaal::emulation
