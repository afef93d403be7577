// The scheduler of fibres.h.
#include "fibres.h"

#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "runner.h"
#include "shared_memory.h"

#ifndef __SANITIZE_ADDRESS__  // in Python's process: nobody asks which stack is in use
void __sanitizer_start_switch_fiber(void**, const void*, size_t) {}
void __sanitizer_finish_switch_fiber(void*, const void**, size_t*) {}
#endif

namespace vaal::emulation {
namespace {

// The functions that switch stacks use GCC's own jumps: AddressSanitizer takes longjmp for the end of
// many frames and cleans the stack, which costs more than all the rest.
using Place = void* [5];
#define VAAL_SWITCH __attribute__((noinline, no_sanitize("address")))
[[noreturn]] VAAL_SWITCH inline void jump_to(Place place) { __builtin_longjmp(place, 1); }

class Block {
 public:
  void run(const BlockShape& shape, void (*body)(const void*), const void* context) {
    shape_ = shape;
    body_ = body;
    body_context_ = context;
    error_.clear();
    prepare();
    interrupted_ = true;
    schedule();
    interrupted_ = false;
  }

  static Block& instance() {
    static Block block;
    return block;
  }

  const BlockShape& shape() const { return shape_; }
  int thread() const { return current_; }

  void read_shared(int64_t at, void* to, int bytes) {
    in_fibre([&] { shared_.read(current_, at, to, bytes); });
  }
  void write_shared(int64_t at, const void* from, int bytes) {
    in_fibre([&] { shared_.write(current_, at, from, bytes); });
  }

  void barrier() { wait(State::kAtBarrier); }

  uint32_t shuffle_xor(uint32_t word, int flip) {
    Fibre& self = fibres_[current_];
    self.word = word;
    self.flip = flip;
    wait(State::kAtShuffle);
    return self.result;
  }

  // Ends the launch with an error, from inside a fibre.
  [[noreturn]] void fail(const std::string& message) {
    error_ = message + " (block " + std::to_string(shape_.index) + ", thread " +
             std::to_string(current_) + ")";
    wait(State::kFailed);
    std::abort();  // the scheduler does not come back
  }

 private:
  static constexpr int kWarp = 32;
  static constexpr size_t kStackBytes = 256 * 1024;

  enum class State { kReady, kAtBarrier, kAtShuffle, kDone, kFailed };

  struct Fibre {
    ucontext_t context;  // for the first entry only
    Place place;
    bool started = false;
    void* stack = nullptr;
    void* sanitizer_stack = nullptr;
    State state = State::kReady;
    uint32_t word = 0, result = 0;
    int flip = 0;
  };

  // An exception must not leave a fibre: it becomes the error of the launch.
  template <class F>
  void in_fibre(F&& f) {
    std::string message;
    try {
      return f();
    } catch (const std::runtime_error& error) {
      message = error.what();
    }
    fail(message);
  }

  static void enter() {
    Block& block = instance();
    __sanitizer_finish_switch_fiber(nullptr, &block.main_stack_, &block.main_stack_bytes_);
    for (;;) {
      block.body_(block.body_context_);
      block.wait(State::kDone);
    }
  }

  // Back to the scheduler until the state is kReady again.
  void wait(State state) {
    Fibre& self = fibres_[current_];
    self.state = state;
    __sanitizer_start_switch_fiber(&self.sanitizer_stack, main_stack_, main_stack_bytes_);
    leave(self.place, scheduler_);
    __sanitizer_finish_switch_fiber(fibres_[current_].sanitizer_stack, &main_stack_,
                                    &main_stack_bytes_);
  }

  void resume(int thread) {
    current_ = thread;
    Fibre& fibre = fibres_[thread];
    __sanitizer_start_switch_fiber(&main_sanitizer_stack_, fibre.stack, kStackBytes);
    if (fibre.started) {
      leave(scheduler_, fibre.place);
    } else {
      fibre.started = true;
      begin(scheduler_, fibre.context);
    }
    __sanitizer_finish_switch_fiber(main_sanitizer_stack_, nullptr, nullptr);
  }

  VAAL_SWITCH static void leave(Place here, Place there) {
    if (__builtin_setjmp(here) == 0) jump_to(there);
  }
  VAAL_SWITCH static void begin(Place here, const ucontext_t& first) {
    if (__builtin_setjmp(here) == 0) setcontext(&first);
  }

  void prepare() {
    for (Fibre& fibre : fibres_)
      if (interrupted_) {  // its frames are still there
        fibre.started = false;
        ASAN_UNPOISON_MEMORY_REGION(fibre.stack, kStackBytes);
      }
    if (fibres_.size() < static_cast<size_t>(shape_.threads)) fibres_.resize(shape_.threads);
    for (int t = 0; t < shape_.threads; ++t) {
      Fibre& fibre = fibres_[t];
      if (fibre.stack == nullptr) {
        fibre.stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (fibre.stack == MAP_FAILED) throw std::runtime_error("no memory for a fibre's stack");
      }
      fibre.state = State::kReady;
      if (fibre.started) continue;
      getcontext(&fibre.context);
      fibre.context.uc_stack.ss_sp = fibre.stack;
      fibre.context.uc_stack.ss_size = kStackBytes;
      fibre.context.uc_link = nullptr;
      makecontext(&fibre.context, &Block::enter, 0);
    }
    shared_.reset(shape_.shared_bytes);
  }

  void schedule() {
    const int threads = shape_.threads;
    const Order order = shape_.order;
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
      shared_.after_barrier();
    }
  }

  // Of the threads turns[first … last): shuffles to which the whole warp has come. False: none.
  bool complete_shuffles(const std::vector<int>& turns, int first, int last) {
    bool any = false;
    for (int i = first; i < last; ++i) {
      const int t = turns[i];
      if (fibres_[t].state != State::kAtShuffle) continue;
      const int warp = t / kWarp * kWarp;
      bool all_here = warp + kWarp <= shape_.threads;
      for (int lane = 0; lane < kWarp && all_here; ++lane)
        all_here = fibres_[warp + lane].state == State::kAtShuffle &&
                   fibres_[warp + lane].flip == fibres_[t].flip;
      if (!all_here) continue;
      for (int lane = 0; lane < kWarp; ++lane) {
        Fibre& fibre = fibres_[warp + lane];
        fibre.result = fibres_[warp + (lane ^ fibre.flip)].word;
        fibre.state = State::kReady;
      }
      any = true;
    }
    return any;
  }

  int in_state(State state) const {
    int n = 0;
    for (int t = 0; t < shape_.threads; ++t) n += fibres_[t].state == state;
    return n;
  }

  std::string stuck(int done, int at_barrier) const {
    const int threads = shape_.threads;
    const int at_shuffle = threads - done - at_barrier;
    if (at_shuffle > 0)
      return "a shuffle to which not all lanes come: " + std::to_string(at_shuffle) + " of " +
             std::to_string(threads) + " threads wait at shuffles, " + std::to_string(at_barrier) +
             " at a barrier, " + std::to_string(done) + " are done";
    return "a barrier that not all threads reach: " + std::to_string(at_barrier) + " of " +
           std::to_string(threads) + " threads wait there, " + std::to_string(done) + " are done";
  }

  BlockShape shape_{};
  int current_ = 0;
  void (*body_)(const void*) = nullptr;
  const void* body_context_ = nullptr;
  std::string error_;
  std::vector<Fibre> fibres_;
  Place scheduler_;
  bool interrupted_ = false;  // the last launch ended with an error: its fibres did not
  SharedMemory shared_;
  const void* main_stack_ = nullptr;
  size_t main_stack_bytes_ = 0;
  void* main_sanitizer_stack_ = nullptr;
};

}  // namespace

void run_block(const BlockShape& shape, void (*body)(const void*), const void* context) {
  Block::instance().run(shape, body, context);
}
const BlockShape& block() { return Block::instance().shape(); }
int thread() { return Block::instance().thread(); }
void barrier() { Block::instance().barrier(); }
uint32_t shuffle_xor(uint32_t word, int flip) { return Block::instance().shuffle_xor(word, flip); }
void read_shared(int64_t at, void* to, int bytes) { Block::instance().read_shared(at, to, bytes); }
void write_shared(int64_t at, const void* from, int bytes) {
  Block::instance().write_shared(at, from, bytes);
}
void fail(const char* message) { Block::instance().fail(message); }

// → bytes loaded and stored since this was last called
const testing::Registration counted("traffic", [](const testing::Call&, void* const* buffer) {
  *static_cast<Traffic*>(buffer[0]) = traffic;
  traffic = {};
});

}  // namespace vaal::emulation
