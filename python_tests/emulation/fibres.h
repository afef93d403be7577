// One block of a kernel on the CPU: every thread is a fibre, run until it waits for others.
//
// A fibre gives way at a barrier and at a shuffle only. The scheduler runs each fibre that can run,
// then completes what all lanes or threads have reached. What a GPU leaves undefined is
// an error here: a barrier that not all threads reach, a shuffle to which a lane of the warp does not
// come (or with another flip), a misaligned 16-byte access, and what shared_memory.h finds.
#pragma once

#include <cstdint>

namespace vaal::emulation {

// In which order the threads of a block run: any order must give the same result. Forward and
// reverse let each warp run ahead as far as it gets, from the first or from the last on; shuffled
// goes from thread to thread at random.
enum class Order { kForward, kReverse, kShuffled };

struct BlockShape {
  int64_t index, count;  // of the block in its launch
  int threads, shared_bytes;
  Order order;
};

// Runs body(context) once as each thread of the block. Throws std::runtime_error on an error.
void run_block(const BlockShape& shape, void (*body)(const void*), const void* context);

// Inside of body:
const BlockShape& block();
int thread();
void barrier();
uint32_t shuffle_xor(uint32_t word, int flip);
void read_shared(int64_t at, void* to, int bytes);
void write_shared(int64_t at, const void* from, int bytes);
[[noreturn]] void fail(const char* message);  // ends the launch with an error

// Bytes that 16-byte loads and stores have moved between the threads and global memory. Rows of whole
// packs move by these alone; what is left out is one or two numbers a row and the split paths'
// workspace.
struct Traffic {
  int64_t loaded, stored;
};
inline Traffic traffic{};

// What stands for CUDA's runtime (runtime.cpp), if anything does, is asked before each launch, which
// does not come to pass if it says false, and told after it. The stream is of no other use here.
inline bool (*before_launch)(int64_t blocks, int threads, int shared_bytes,
                             const void* stream) = nullptr;
inline void (*after_launch)() = nullptr;

}  // namespace vaal::emulation
